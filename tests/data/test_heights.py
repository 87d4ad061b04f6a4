"""Heights over aerial images: 0 is a label, and what is none is said by the file."""

import json
import re

import numpy as np
import pytest
import torch

import depthbal
from depthbal.commands import main
from depthbal.data import FolderDataModule
from depthbal.data.packing import pack
from depthbal.errors import ConfigError
from depthbal.reports import load_results
from tests.data.make_heights import NODATA, tile, write_geotiff, write_heights
from tests.reports.made import page_data

SETTINGS = {"depth": "height", "label": "height", "zero_is_label": True, "num_workers": 0}
SETTINGS |= {"depth_range": (0.0, 60.0), "short_side": None, "depth_size": None, "bin_width": 0.5}
SETTINGS |= {"batch_size": 4, "lighting": 0.0, "jitter": 0.0}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_heights(tmp_path_factory.mktemp("tiles") / "area")


def heights(count=12):
    """Return what counts of the tiles, NaN elsewhere."""
    maps = np.stack([tile(number)[1] for number in range(count)])
    return np.where(maps == np.float32(NODATA), np.nan, maps)


@pytest.fixture
def data(root):
    module = FolderDataModule(root, test_fraction=1.0, **SETTINGS)
    module.setup("test")
    return module


def test_zeros_are_labels_and_nodata_and_nan_are_none(data):
    found = np.stack([data.test_set.truth(index) for index in range(12)])
    np.testing.assert_array_equal(found, heights())
    assert (found == 0).mean() > 0.5
    batch = next(iter(data.test_dataloader()))["depth"]
    np.testing.assert_array_equal(batch[:, 0].numpy(), heights()[:4])
    bins = data.bins()
    assert bins.index(torch.tensor([0.0, 0.49, 0.5, 59.9, -1.0, np.nan])).tolist() == [
        *(0, 0, 1, 119),
        *(-1, -1),
    ]


@pytest.mark.parametrize(
    ("stored", "scale"),
    [
        (np.array([[0, 7], [12, 255]], np.uint8), 1.0),
        (np.array([[0, 700], [1200, 9999]], np.uint16), 0.01),
        (np.array([[0, 7], [12, -3.4028234663852886e38]], np.float32), 1.0),
        (np.array([[0, 7], [12, np.nan]], np.float32), 1.0),
    ],
)
def test_the_tag_of_a_geotiff_says_what_is_none(tmp_path, stored, scale):
    nodata = None if np.isnan(stored[1, 1]) else f"{stored[1, 1]:.17g}"
    (tmp_path / "rgb").mkdir()
    write_geotiff(tmp_path / "rgb" / "a.tif", np.zeros((2, 2, 3), np.uint8))
    write_geotiff(tmp_path / "height" / "a.tif", stored, nodata)
    settings = {**SETTINGS, "scale": scale, "test_fraction": 1.0}
    module = FolderDataModule(tmp_path, **settings)
    module.setup("test")
    np.testing.assert_array_equal(module.test_set.truth(0), np.float32([[0, 7], [12, np.nan]]))


def test_what_a_rotation_or_padding_adds_is_none(root, tmp_path):
    data = FolderDataModule(root, rotation=30.0, test_fraction=0.2, val_fraction=0, **SETTINGS)
    data.setup()
    batch = next(iter(data.train_dataloader()))["depth"]
    assert batch[:, 0, 0, 0].isnan().all()  # a corner
    assert (batch == 0).any()
    count = sum((labels >= 0).sum() for labels in data.labels("train"))
    assert data.train_histogram().total == count
    zeros = sum((labels < 0.5).sum() for labels in data.labels("train"))
    assert data.train_histogram().counts[0] == zeros
    small, large = {"depth": torch.zeros(1, 2, 2)}, {"depth": torch.ones(1, 3, 2)}
    for sample in (small, large):
        sample["image"] = sample["depth"].expand(3, -1, -1)
    joined = data.collate([small, large])
    assert joined["depth"][0, 0, 2].isnan().all()
    assert (joined["image"][0, 0, 2] == 0).all()


def test_a_packed_file_gives_the_same_labels_and_none(root, data, tmp_path):
    pack(root, tmp_path / "area.h5", None, depth="height", zero_is_label=True, lowest=-2.0)
    packed = FolderDataModule(tmp_path / "area.h5", test_fraction=1.0, **SETTINGS)
    packed.setup("test")
    found = np.stack([packed.test_set.truth(index) for index in range(12)])
    np.testing.assert_allclose(found, heights(), atol=1e-6)  # whole centimetres, steps of 1 mm
    assert (found == 0).sum() == (heights() == 0).sum()
    with pytest.raises(ConfigError, match="packed with zero_is_label: True"):
        FolderDataModule(tmp_path / "area.h5", depth="height").setup("test")


@pytest.mark.filterwarnings("ignore:balanced mask")
def test_errors_of_heights_are_plain_and_have_no_ratios(data):
    result = depthbal.evaluate(lambda image: image[..., 0] / 6.0 - 7.0, data)
    truth = heights()
    preds = np.stack([tile(number)[0][..., 0] for number in range(12)]).astype(np.float32) / 6 - 7
    known = np.isfinite(truth)
    error = (preds - truth)[known]
    overall = result["all_pixels"]["overall"]
    assert overall["count"] == known.sum()
    assert overall["rmse"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-5)
    assert overall["bias"] == pytest.approx(error.mean(), rel=1e-5)
    assert not {"abs_rel", "silog", "delta1", "log10"} & set(overall)
    assert result["protocol"]["predictions"]["invalid"]["pixels"] == 0
    assert result["all_pixels"]["bins"][0]["count"] == (truth < 0.5).sum()


def test_a_training_reports_heights(root, tmp_path, capsys):
    run = tmp_path / "run"
    options = ["--config", "height/gai", "--data.root", root, "--out", run]
    options += ["--model.model.weights", "null", "--trainer.max_epochs", 1, "--data.batch_size", 4]
    options += ["--data.num_workers", 0, "--trainer.accelerator", "cpu"]
    assert main("train", [str(option) for option in options]) == 0
    captured = capsys.readouterr()
    assert "every height bin alike" in captured.out
    assert "height mostly 0 to" in captured.err
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["protocol"]["label"] == {"name": "height", "unit": "m", "range": [0.0, 60.0]}
    html = (run / "report.html").read_text()
    assert "Height, bin by bin" in html
    shown = re.sub(r"(?s)<(script|style|pre)\b.*?</\1>|<[^>]*>", " ", html)
    for text in (shown, json.dumps(page_data(html)), (run / "report.md").read_text()):
        assert re.findall(r"(?i)depth(?!bal)\w*", text) == []
    (result,) = load_results([run])
    assert all(one.known[one.truth == 0].all() for one in result.examples)
    assert not any(one.known.all() for one in result.examples)
    saved = [str(option) for option in ("evaluate", run, "--device", "cpu", "--protocol", "whole")]
    assert main(*[saved[0], saved[1:]]) == 0


@pytest.mark.parametrize(
    "options", [{"protocol": "kitti"}, {"alignments": ["median"]}, {"edges": True}]
)
def test_what_divides_by_the_label_is_refused(data, options):
    with pytest.raises(ConfigError, match=r"0 is a height: .*--protocol whole"):
        depthbal.evaluate(lambda image: image[..., 0] / 6.0, data, **options)

"""`depthbal demo`: the maps it shows, and its page, asked over HTTP on the loopback."""

import sys
import urllib.request
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from scipy import stats
from torch import nn

from depthbal import load_predictor
from depthbal.commands.demo import Demo, open_page
from depthbal.errors import ConfigError
from depthbal.examples import colour_depth
from depthbal.losses import (
    BinsLoss,
    BNILoss,
    CombinedLoss,
    GAILoss,
    GradientLoss,
    LogLabelLoss,
    MSELoss,
)
from tests.data.make_files import noise_image, write_file
from tests.test_predict import RED, network_of
from tests.test_predictor import (
    HISTOGRAM,
    MIXTURE,
    NO_MAPS,
    RANGE,
    UNCHANGED,
    checkpoint_of,
    save_run,
)
from tests.training.helpers import command

IMAGE = noise_image(24, 32)


def with_loss(path: Path, loss: nn.Module, channels: int = 1, **changes) -> Path:
    """Write a checkpoint of a network whose depth, or whose logits, follow the colours."""
    torch.manual_seed(0)
    arguments = {**RED, "out_channels": channels}
    network = nn.Conv2d(**arguments)
    nn.init.uniform_(network.weight, -4, 8)
    described = {"class_path": "torch.nn.Conv2d", "init_args": arguments}
    content = checkpoint_of(network, loss, **{"model": described, "input": UNCHANGED, **changes})
    torch.save(content, path)
    return path


def shown_as_predicted(demo: Demo, path: Path, value: float, balanced: dict, plain: dict):
    """Compare the demo's maps with what predictors of these options give; return the maps."""
    found = demo.maps(IMAGE, value)
    mean, ends = load_predictor(path, **balanced).predict_with_interval(IMAGE)
    expected = load_predictor(path, **plain).predict(IMAGE), mean, *ends
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)
    return found


@pytest.mark.parametrize("folder", [False, True])
def test_a_plain_network_is_shown_as_it_is_and_balanced_with_the_dials_sigma(tmp_path, folder):
    path = with_loss(tmp_path / "last.ckpt", MSELoss(label_range=RANGE))
    if folder:
        path = save_run(tmp_path / "run", torch.load(path, weights_only=True))
    demo = Demo(path)
    assert demo.dial.name == "sigma"
    assert "tenth of the label range" in demo.dial.about  # no validation error is known
    for sigma in (demo.dial.start, 0.4):
        shown = shown_as_predicted(demo, path, sigma, {"posthoc_sigma": sigma}, {})
    assert np.abs(shown[1] - shown[0]).max() > 0.1


def test_a_network_of_bins_is_read_out_at_the_dials_tau(tmp_path):
    loss = BinsLoss(HISTOGRAM, n_bins=12, label_range=RANGE, tau=0.75)
    path = with_loss(tmp_path / "last.ckpt", loss, channels=12)
    demo = Demo(path)
    assert demo.dial[:2] == ("tau", 0.75)
    for tau in (1.0, 0.3):
        shown_as_predicted(demo, path, tau, {"tau": tau}, {"tau": 0.0})


def slow_twin(location: float, density, tau: float) -> np.ndarray:
    """Mean and 68 % interval of f(y; p) p_train(y)^(1 - tau) on a fine grid of the range."""
    y = np.linspace(*RANGE, 40_001)
    place = np.searchsorted(HISTOGRAM.edges, y, side="right").clip(1, len(HISTOGRAM.counts)) - 1
    mass = density(y, location) * HISTOGRAM.densities[place] ** (1 - tau)
    below = np.cumsum(mass) / mass.sum()
    ends = np.interp([0.158655, 0.841345], below, y)
    return np.array([(y * mass).sum() / mass.sum(), *ends])


def gauss(y, p):
    return stats.norm.pdf(y, p, 0.8)


def laplace(y, p):
    return stats.laplace.pdf(y, p, 0.8)


def log_normal(y, p):
    return stats.norm.pdf(np.log(y), np.log(max(p, 0.01)), 0.3) / y


OPTIONS = {"init_noise_sigma": 0.8, "label_range": RANGE}
BALANCED = {
    "GAI": (GAILoss(MIXTURE, **OPTIONS), gauss),
    "Laplace": (BNILoss(HISTOGRAM, family="laplace", **OPTIONS), laplace),
    "sum": (CombinedLoss([GradientLoss(), GAILoss(MIXTURE, **OPTIONS)]), gauss),
    "log depth": (LogLabelLoss(BNILoss(init_noise_sigma=0.3), label_range=RANGE), log_normal),
}
BALANCED["log depth"][0].set_prior(HISTOGRAM)


@pytest.mark.parametrize("name", BALANCED)
@pytest.mark.parametrize("tau", [1.0, 0.4])
def test_a_balanced_network_is_read_out_in_the_world_of_the_dials_tau(tmp_path, name, tau):
    loss, density = BALANCED[name]
    path = with_loss(tmp_path / "last.ckpt", loss)
    found = np.stack(Demo(path).maps(IMAGE, tau))[:, :4, 0]
    predictor = load_predictor(path)
    raw = predictor.predict_raw(predictor.prepare(IMAGE)[0], (24, 32))
    for column, location in zip(found.T, raw[0, 0, :4, 0].tolist(), strict=True):
        expected = [slow_twin(location, density, 0.0)[0], *slow_twin(location, density, tau)]
        np.testing.assert_allclose(column, expected, atol=0.03)
    if tau == 1:
        np.testing.assert_allclose(found[1], predictor.predict(IMAGE)[:4, 0], atol=0.03)


def test_the_dial_of_logarithms_starts_at_ten_per_cent(tmp_path):
    plain = Demo(with_loss(tmp_path / "plain.ckpt", LogLabelLoss(MSELoss(), label_range=RANGE)))
    assert plain.dial[:2] == ("sigma", 0.1)


def test_what_cannot_be_shown_is_one_line(tmp_path, monkeypatch, capsys):
    unknown = with_loss(tmp_path / "unknown.ckpt", MSELoss(), histogram=None)
    with pytest.raises(ConfigError, match=r"unknown\.ckpt holds no histogram of its"):
        Demo(unknown)
    (tmp_path / "result").mkdir()
    (tmp_path / "result" / "metrics.json").touch()
    assert command("demo", tmp_path / "result", "--device", "cpu") == 2
    assert "a result of anybody's predictions has none" in capsys.readouterr().err
    labels = {"class_path": "torch.nn.Flatten", "init_args": {}}
    torch.save(
        checkpoint_of(NO_MAPS, MSELoss(), model=labels, input=UNCHANGED), tmp_path / "ages.ckpt"
    )
    assert command("demo", tmp_path / "ages.ckpt", "--device", "cpu") == 2
    assert "expected a network of depth maps" in capsys.readouterr().err
    known = with_loss(tmp_path / "known.ckpt", MSELoss())
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert command("demo", known, "--device", "cpu") == 2
    assert 'pip install "depthbal[demo]"' in capsys.readouterr().err


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    pytest.importorskip("gradio", reason='gradio is not installed (pip install -e ".[test]")')
    folder = tmp_path_factory.mktemp("demo")
    page = open_page(Demo(network_of(folder / "network.ckpt")), str(folder / "pictures"))
    page.folder = folder
    yield page
    page.close()


def test_the_page_answers_on_the_loopback_with_the_maps_of_the_picture(page, tmp_path):
    from gradio_client import Client, handle_file

    client = Client(page.local_url, verbose=False, download_files=tmp_path / "answers")
    write_file(tmp_path / "room.png", IMAGE)
    demo, seen = Demo(page.folder / "network.ckpt"), []
    for sigma in (0.5, 1.5):
        *pictures, numbers = client.predict(
            handle_file(tmp_path / "room.png"), sigma, api_name="/depth"
        )
        plain, balanced, low, high = demo.maps(IMAGE, sigma)
        both = np.stack([plain, balanced]).clip(*RANGE)
        for file, depth in zip(pictures[:2], both, strict=True):
            expected = colour_depth(depth, (float(both.min()), float(both.max())))
            np.testing.assert_array_equal(np.asarray(PIL.Image.open(file).convert("RGB")), expected)
        assert [PIL.Image.open(file).size for file in pictures] == [(32, 24)] * 4
        assert f"**Depth, balanced**: {balanced.min():.2f} to {balanced.max():.2f} m" in numbers
        assert f"yellow {(high - low).max():.2f}" in numbers
        seen.append(numbers)
    assert seen[0] != seen[1]
    assert list((page.folder / "pictures").rglob("room.png"))  # in the folder that is deleted
    (tmp_path / "torn.png").write_bytes((tmp_path / "room.png").read_bytes()[:200])
    with pytest.raises(Exception, match=r"torn\.png"):
        client.predict(handle_file(tmp_path / "torn.png"), 1.0, api_name="/depth")


def test_nothing_of_the_page_comes_from_elsewhere(page):
    with urllib.request.urlopen(page.local_url) as answer:
        text = answer.read().decode()
    assert page.local_url.startswith("http://127.0.0.1:")
    assert page.share_url is None
    assert not page.analytics_enabled
    assert "fonts.googleapis" not in text
    assert "fonts.gstatic" not in text

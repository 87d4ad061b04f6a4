"""Depth of any program is scored like a run's, and told apart from what is no metric depth."""

import itertools
import json

import numpy as np
import pytest

import depthbal
from depthbal.data import (
    DepthDataModule,
    FolderDataModule,
    PairSource,
    PredictionFolder,
    RoomsDataModule,
)
from depthbal.errors import ConfigError, DataError
from depthbal.evaluation import Scores
from depthbal.foreign import image_names as names_of
from depthbal.losses import BalanceMap
from depthbal.reports import write_report
from tests.data.make_files import write_file
from tests.reference import plain_align, plain_depth_scores
from tests.training.helpers import command


class Truths(PairSource):
    """Pairs whose image holds the depth: 25 levels a metre."""

    def __init__(self, count: int = 6) -> None:
        draw = np.random.default_rng(0).uniform(1, 9.5, (count, 8, 10))
        self.depths = np.floor(draw * 25).astype(np.float32) / 25

    def __len__(self) -> int:
        return len(self.depths)

    def load(self, index):
        depth = self.depths[index]
        return np.repeat(np.rint(depth * 25).astype(np.uint8)[..., None], 3, 2), depth

    def name(self, index):
        return f"rgb/{index:03d}.png"

    def fingerprint(self):
        return f"{len(self)} truths"


UNCHANGED = {"short_side": None, "crop_size": None, "depth_size": None, "num_workers": 0}


class TruthData(DepthDataModule):
    def __init__(self, **kwargs) -> None:
        super().__init__(**{**UNCHANGED, "val_fraction": 0, **kwargs})

    train_source = test_source = lambda self: Truths()


def truth_of(image):
    return image[..., 0].astype(np.float32) / 25


@pytest.fixture
def data():
    return TruthData()


def test_numbers_are_those_of_plain_numpy(data):
    noise = np.random.default_rng(1).normal(0, 0.4, (8, 10)).astype(np.float32)
    result = depthbal.evaluate(lambda image: truth_of(image) + noise, data)["all_pixels"]
    truths = Truths().depths
    preds, far = truths + noise, truths >= 9
    expected = plain_depth_scores(preds.ravel(), truths.ravel())
    assert {key: result["overall"][key] for key in expected} == pytest.approx(expected, rel=1e-4)
    bins = [one for one in result["bins"] if one["count"] and one["from_m"] >= 9]
    mse = sum(one["mse"] * one["count"] for one in bins) / sum(one["count"] for one in bins)
    assert mse == pytest.approx(((preds - truths)[far] ** 2).mean(), rel=1e-5)


ALL = ("none", "median", "depth", "inverse")


@pytest.mark.filterwarnings("ignore:balanced mask")
def test_one_pass_gives_every_protocol_as_it_is_alone(data, tmp_path):
    seen, noise = [], np.random.default_rng(2).normal(1.0, 0.5, (8, 10)).astype(np.float32)

    def predict(image):
        seen.append(image)
        return 0.7 * truth_of(image) + noise

    given = {"protocol": ["eigen", "whole"], "crop": ["nyu-eigen", "none"], "cap": [(1, 5), (2, 9)]}
    result = depthbal.evaluate(predict, data, tmp_path / "all", alignments=ALL, **given)
    looked_at = 6 + 6  # before the pass, and for the examples
    assert len(seen) == 6 + looked_at
    rows = result["protocols"]
    assert len(rows) == 8 * 4 * 3  # protocols, alignments, averagings
    folders = [tmp_path / "all", *sorted((tmp_path / "all" / "eval").iterdir())]
    found = {(s := Scores.load(folder)).given["name"]: s.result() for folder in folders}
    assert len(found) == 8
    for protocol, crop, cap in itertools.product(*given.values()):
        one = {"protocol": protocol, "crop": crop, "cap": cap}
        alone = depthbal.evaluate(predict, data, alignments=ALL, **one)
        name = alone["protocol"]["name"]
        assert name == f"{protocol}, {crop} crop, cap {cap[0]} to {cap[1]} m"
        # every row by plain NumPy, whose fits are over the pixels that count
        truths = Truths().depths
        box = np.s_[1:8, 1:9] if crop == "nyu-eigen" else np.s_[:, :]
        inside = np.zeros(truths.shape, bool)
        inside[(slice(None), *box)] = True
        inside &= (truths > cap[0]) & (truths < cap[1])
        for key, readout in zip(ALL, result["protocol"]["alignment"], strict=True):
            mine = [r for r in alone["protocols"] if r["readout"] == readout]
            assert mine == [r for r in rows if (r["protocol"], r["readout"]) == (name, readout)]
            pairs = []
            for truth, mask in zip(truths, inside, strict=True):
                p = 0.7 * truth + noise
                p = p if key == "none" else plain_align(p, truth, mask, key)
                pairs.append((p[mask].clip(*cap), truth[mask]))
            pooled = plain_depth_scores(*map(np.concatenate, zip(*pairs, strict=True)))
            images = [plain_depth_scores(*pair) for pair in pairs]
            by = {r["averaging"]: r for r in mine}
            for metric in ("rmse", "abs_rel", "sq_rel", "rmse_log", "silog", "delta1"):
                expected = pytest.approx(pooled[metric], rel=1e-4, abs=1e-4)
                assert by["pooled over pixels"][metric] == expected
                expected = pytest.approx(np.mean([i[metric] for i in images]), rel=1e-4, abs=1e-4)
                assert by["mean over images"][metric] == expected
        if name != result["protocol"]["name"]:  # which has the rows of all
            assert found[name]["protocols"] == alone["protocols"]
        else:
            assert {**result, "protocols": 0} == {**alone, "protocols": 0}
    said = list(result["protocol"]["alignment"].values())
    assert ["not metric" in words for words in said] == [False, True, True, True]
    with pytest.raises(ConfigError, match="nyud2_dir sizes images as for the network"):
        depthbal.evaluate(predict, data, protocol=["nyud2_dir", "eigen"])
    with pytest.raises(ConfigError, match="whole images"):
        depthbal.evaluate(truth_of, data, cap=(1, 80))


def disparity(image):
    return 40 / truth_of(image) + 3


def test_inverse_depth_and_other_sizes_are_brought_to_the_truth(data):
    def large_inverse(image):
        return 1 / np.repeat(np.repeat(truth_of(image), 2, 0), 2, 1)

    result = depthbal.evaluate(large_inverse, data, kind="inverse", protocol="eigen")
    assert result["overall"]["abs_rel"] < 0.3
    result = depthbal.evaluate(disparity, data, kind="inverse", alignments=["inverse"])
    assert result["all_pixels"]["overall"]["rmse"] < 0.01


def test_invalid_predictions_are_counted_named_and_scored_by_the_rule(data):
    def holes(image):
        depth = truth_of(image)
        depth[0, :3] = [0.0, np.nan, np.inf]
        return depth

    result = depthbal.evaluate(holes, data)
    invalid = result["protocol"]["predictions"]["invalid"]
    assert invalid["pixels"] == 18
    assert invalid["images"] == [f"rgb/{i:03d}.png" for i in range(6)]
    truths = Truths().depths[:, 0, :3]
    error = np.array([0.7, 0.7, 10.0]) - truths
    mean = result["all_pixels"]["overall"]["mse"]
    assert mean == pytest.approx((error**2).sum() / 480, rel=1e-4)


# public report: DepthAnything/Depth-Anything-V2 issue 289, disparity scored as metres
@pytest.mark.parametrize(
    ("predict", "kind", "message"),
    [
        (lambda image: np.full(image.shape[:2], 3.0), "depth", "constant"),
        (lambda image: 1000 * truth_of(image), "depth", "look like millimetres.*scale 0.001"),
        (lambda image: 1 / truth_of(image), "depth", "look like inverse depth"),
        (lambda image: image, "depth", r"expected predict to return \(h, w\)"),
        (lambda image: np.zeros(image.shape[:2]), "depth", "positive"),
        (disparity, "depth", "kind inverse, with --align inverse where their scale"),
        (disparity, "inverse", "or --align inverse if their scale is unknown"),
        # of another unit: the factor is that of the files
        (lambda image: 0.01 / truth_of(image), "inverse", r"give --predictions\.scale 100 if"),
    ],
)
def test_what_is_plainly_no_metric_depth_is_refused_before_long_work(data, predict, kind, message):
    with pytest.raises(DataError, match=message):
        depthbal.evaluate(predict, data, kind=kind)


def test_a_folder_of_a_runs_predictions_gives_the_runs_numbers_and_a_report(tmp_path, capsys):
    rooms = RoomsDataModule(n_train=6, n_val=0, n_test=4, size=(24, 32), num_workers=0)

    def blurred(image):
        return 1 + 6 * image.mean(2).astype(np.float32) / 255

    expected = depthbal.evaluate(blurred, rooms, tmp_path / "function")
    for index, name in enumerate(names_of(rooms)):
        file = tmp_path / "files" / f"{name}.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, blurred(rooms.test_set.source.load(index)[0]))
    line = ["--predictions", tmp_path / "files", "--data", "RoomsDataModule"]
    line += ["--data.n_train=6", "--data.n_val=0", "--data.n_test=4", "--data.size=[24,32]"]
    line += ["--data.num_workers=0", "--out", tmp_path / "result"]
    assert command("evaluate", *line) == 0
    found = json.loads((tmp_path / "result" / "metrics.json").read_text())
    expected = json.loads(json.dumps(expected))
    assert {**found, "protocol": None} == {**expected, "protocol": None}
    assert (tmp_path / "result" / "report.html").is_file()
    assert Scores.load(tmp_path / "result").names == Scores.load(tmp_path / "function").names
    page = ["--out", tmp_path / "page.html"]
    assert command("report", tmp_path / "result", tmp_path / "function", *page) == 0
    capsys.readouterr()
    assert command("evaluate", *line) == 2  # nothing is overwritten
    assert "is not empty" in capsys.readouterr().err


def test_missing_files_leave_their_images_out_and_say_so(tmp_path, data):
    np.save(tmp_path / "003.npy", Truths().depths[3])
    files = PredictionFolder(tmp_path, names_of(data), allow_missing=True)
    result = depthbal.evaluate(files, data)
    assert result["protocol"]["images"] == 1
    assert len(result["protocol"]["predictions"]["missing"]) == 5
    assert result["all_pixels"]["overall"]["rmse"] == 0


@pytest.mark.parametrize(("place", "settings"), [("test", {}), ("", {"test_fraction": 1.0})])
def test_a_set_for_testing_needs_no_training_pictures_whatever_its_names(tmp_path, place, settings):
    folder, out = tmp_path / "rgb and depth", tmp_path / "out"
    out.mkdir()
    for index, depth in enumerate(Truths().depths):
        name = f"man with dog {index}"
        write_file(folder / place / "rgb" / f"{name}.png", Truths().load(index)[0])
        millimetres = np.rint(depth * 1000).astype(np.uint16)
        write_file(folder / place / "depth" / f"{name}.png", millimetres)
        np.save(out / f"{name}.npy", depth)
    data = FolderDataModule(folder, **UNCHANGED, **settings)
    names = names_of(data)
    assert names[0] == "rgb/man with dog 0.png"
    result = depthbal.evaluate(PredictionFolder(out, names), data, tmp_path / "result")
    assert result["protocol"]["images"] == 6
    assert result["all_pixels"]["overall"]["rmse"] == pytest.approx(0, abs=1e-3)
    page = write_report([tmp_path / "result"], tmp_path / "page.html")
    assert page.stat().st_size > 10_000


def leaning(image):
    """A model that pulls everything towards near depths, as one does that is unsure."""
    return 0.6 * truth_of(image) + 1.0


class ManyTruths(TruthData):
    train_source = test_source = lambda self: Truths(24)


def test_files_of_any_program_are_balanced_and_scored_with_the_balance(tmp_path, capsys):
    source = Truths(24)
    for index in range(24):
        np.save(tmp_path / f"{index:03d}.npy", leaning(source.load(index)[0]))
    given = ["--predictions", tmp_path, "--data", f"{__name__}.ManyTruths"]
    balance = tmp_path / "balance.json"
    assert command("balance", *given, "--tau", 0, "--out", balance) == 0
    score = [*given, "--balance", balance, "--out", tmp_path / "result"]
    other = [*given, "--out", tmp_path / "other"]
    for line, words in (
        (score, "were calibrated on"),  # the same images
        ([*other, "--posthoc=-1"], "positive sigma"),
        ([*other, "--posthoc=auto"], "needs a run"),
        ([*score, "--relative-to=log_uniform"], "--relative-to goes with --posthoc SIGMA"),
        ([*score, "--checkpoint=best"], "of a run's network"),
    ):
        assert command("evaluate", *line) == 2
        assert words in capsys.readouterr().err
    assert command("evaluate", *score, "--force") == 0
    result = json.loads((tmp_path / "result" / "metrics.json").read_text())
    rmse = {key: row["overall"]["rmse"] for key, row in result["readout"].items()}
    assert rmse["balanced"] < 0.2 * rmse["raw"]
    assert result["protocol"]["readout"] == "balanced"
    assert result["protocol"]["posthoc"]["way"] == "calibration"
    assert result["calibration"]["all"]["overall"]["coverage"] > 0.4
    assert command("evaluate", *other, "--posthoc=0.5", "--relative-to=log_uniform") == 0
    result = json.loads((tmp_path / "other" / "metrics.json").read_text())
    assert result["protocol"]["posthoc"]["relative_to"] == "log_uniform"
    loaded = BalanceMap.load(balance)
    np.testing.assert_allclose(loaded(np.array([0.6 * 5 + 1.0])), [5.0], atol=0.1)


class Street(PairSource):
    """Depths of one of KITTI's sizes, each row and column another."""

    def __len__(self) -> int:
        return 2

    def load(self, index):
        rows, columns = np.mgrid[:375, :1242].astype(np.float32)
        return np.zeros((375, 1242, 3), np.uint8), 2 + (375 - rows) / 5 + columns / 1000 + index

    def fingerprint(self):
        return "street"


class StreetData(TruthData):
    def __init__(self) -> None:
        super().__init__(depth_range=(1.0, 80.0), bin_width=1.0)

    train_source = test_source = lambda self: Street()


@pytest.mark.filterwarnings("error")
def test_a_prediction_of_kittis_crop_is_put_in_its_place_and_not_stretched(data):
    """Public report: SysCV/idisc issue 21, predictions of 352 x 1216 resized to 375 x 1242."""
    truths = iter([Street().load(i)[1] for i in (0, 1, 0, 1)])
    result = depthbal.evaluate(
        lambda _: next(truths)[375 - 352 :, 13 : 13 + 1216], StreetData(), protocol="kitti"
    )
    assert result["overall"]["rmse"] == pytest.approx(0, abs=1e-6)
    invalid = result["protocol"]["predictions"]["invalid"]
    assert invalid["pixels"] == 0  # all of Garg's crop is there
    with pytest.raises(UserWarning, match="4 x 10 are stretched to truths of 8 x 10"):
        depthbal.evaluate(lambda image: truth_of(image)[4:], data, protocol="whole")

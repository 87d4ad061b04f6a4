"""Labels of any kind: ages, balanced metrics, and errors that are measured elsewhere."""

import numpy as np
import pytest
import torch

from depthbal.errors import DataError
from depthbal.evaluation import Label, LabelBins, Scores
from tests.evaluation.helpers import LABEL_METRICS, age_scores, ages, assert_equal
from tests.reference import plain_label_scores


def test_all_metrics_of_ages_equal_an_independent_implementation():
    preds, target = ages()
    scores = age_scores(
        ("raw", "mean"), "mean", balanced=("mae", "mse"), protocol={"name": "agedb"}
    )
    for part in (slice(0, 300), slice(300, 400)):
        scores.update({"raw": preds[part], "mean": preds[part] + 1}, target[part])
    result = scores.compute()
    p, t = preds.numpy() + 1, target.numpy()
    for group, (low, high) in {
        "many": (0, 40),
        "medium": (40, 80),
        "few": (80, 121),
        "overall": (0, 121),
    }.items():
        inside = (t >= low) & (t < high)
        assert_equal(result[group], plain_label_scores(p[inside], t[inside]))
        rows = [plain_label_scores(p[t == age], t[t == age]) for age in np.unique(t[inside])]
        for name in LABEL_METRICS:
            mean = np.mean([row[name] for row in rows])
            assert result["per_bin_mean"][group][name] == pytest.approx(mean, rel=1e-9), name
            if name in ("mae", "mse"):  # the balanced metric is that mean
                assert result[group][f"b{name}"] == pytest.approx(mean, rel=1e-9)
    for row in result["bins"]:
        assert_equal(row, plain_label_scores(p[t == row["bin"]], t[t == row["bin"]]))
    assert_equal(result["readout"]["raw"]["overall"], plain_label_scores(preds.numpy(), t))
    assert set(LABEL_METRICS) == {"rmse", "mse", "mae", "gm", "bias"}


def test_the_result_of_ages_says_what_it_is_of():
    preds, target = ages()
    scores = age_scores(protocol={"name": "agedb"})
    scores.update({"raw": preds}, target)
    result = scores.compute()
    assert not {"all_pixels", "readout"} & set(result)  # one read-out needs no section of them
    protocol = result["protocol"]
    assert protocol["label"] == {"name": "age", "unit": "years", "range": None}
    assert (protocol["name"], protocol["main_metric"], protocol["samples"]) == ("agedb", "mae", 400)
    assert not [key for key in protocol if "pixel" in key or key.startswith(("min_", "silog"))]
    assert protocol["gm"] == "exp(mean ln max(|prediction - truth|, 0.001 years))"
    assert "mask" not in protocol["averaging"]
    assert (result["bins"][5]["from"], result["bins"][5]["to"]) == (5.0, 6.0)
    assert result["overall"]["images"] == result["overall"]["count"] == 400
    scores.reset()
    scores.update({"raw": torch.tensor([3.0])}, torch.tensor([-5.0]))
    with pytest.raises(DataError, match=r"unit of the age \(years\)"):
        scores.compute()


# ---- errors that are measured elsewhere ----

LABEL = Label("distance to the mean pose", "mm")
BINS = LabelBins(np.linspace(0, 400, 101), ["many"] * 40 + ["medium"] * 30 + ["few"] * 30)
TERMS_OF_MESHES = {
    "terms": ("count", "mpjpe", "pa_mpjpe"),
    "label": LABEL,
    "main_metric": "pa_mpjpe",
}


def mesh_scores(**options) -> Scores:
    return Scores(BINS, ("",), "", **TERMS_OF_MESHES, **options)


@pytest.fixture(scope="module")
def meshes():
    rng = np.random.default_rng(0)
    distance = rng.gamma(4, 30, 10_000).clip(max=390)  # more samples than are worked on at once
    errors = {"mpjpe": rng.gamma(5, 20, 10_000), "pa_mpjpe": rng.gamma(5, 10, 10_000)}
    scores = mesh_scores(columns=("depth",), protocol={"name": "3dpw"})
    for part in (slice(9000, 10_000), slice(0, 9000)):
        numbers = np.arange(10_000)[part]
        scores.update_errors(
            {name: torch.from_numpy(values[part]) for name, values in errors.items()},
            torch.from_numpy(distance[part]),
            [f"frame {i}" for i in numbers],
            ["first"] * len(numbers),
            {"depth": torch.from_numpy(distance[part] * 2)},
            torch.from_numpy(numbers),
        )
    return scores, errors, distance


def test_means_of_measured_errors_pooled_and_over_bins_equal_numpy(meshes):
    scores, errors, distance = meshes
    result = scores.compute()
    index = np.minimum((distance / 4).astype(int), 99)
    few = index >= 70
    for name, values in errors.items():
        assert result["overall"][name] == pytest.approx(values.mean(), rel=1e-9)
        assert result["few"][name] == pytest.approx(values[few].mean(), rel=1e-9)
        per_bin = [values[index == b].mean() for b in np.unique(index)]
        assert result["per_bin_mean"]["overall"][name] == pytest.approx(np.mean(per_bin), rel=1e-9)
    assert result["overall"]["count"] == result["protocol"]["samples"] == 10_000


def test_the_result_of_measured_errors_has_the_structure_of_every_other(meshes, tmp_path):
    scores, _, distance = meshes
    result = scores.save(tmp_path)
    assert result["protocol"]["label"] == LABEL._asdict()
    assert result["calibration"] is None
    loaded = Scores.load(tmp_path)
    assert loaded.result() == result
    assert loaded.names[9_999] == "frame 9999"  # in the order of their places, not of the calls
    assert set(loaded.groups) == {"first"}
    np.testing.assert_allclose(loaded.column("depth"), distance * 2)


@pytest.mark.parametrize(
    ("errors", "label", "message"),
    [
        ({"pve": torch.ones(2)}, torch.ones(2), r"expected the errors \['mpjpe', 'pa_mpjpe'\]"),
        (dict.fromkeys(("mpjpe", "pa_mpjpe"), torch.ones(2, 1)), torch.ones(2, 1), r"\(samples,\)"),
        (
            dict.fromkeys(("mpjpe", "pa_mpjpe"), torch.tensor([1.0, torch.nan])),
            torch.ones(2),
            r"1 values that are not finite.* in frame 7;",
        ),
    ],
)
def test_errors_that_cannot_be_added_are_named(errors, label, message):
    with pytest.raises(DataError, match=message):
        mesh_scores().update_errors(errors, label, ["frame 5", "frame 7"])

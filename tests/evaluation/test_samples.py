import json

import numpy as np
import pytest
import torch

from depthbal.errors import ConfigError, DataError
from depthbal.evaluation import Label, LabelBins, SampleEvaluation, summarise

LABEL = Label("distance to the mean pose", "mm")
BINS = LabelBins(np.linspace(0, 400, 101), ["many"] * 40 + ["medium"] * 30 + ["few"] * 30)


@pytest.fixture
def scored():
    rng = np.random.default_rng(0)
    distance = rng.gamma(4, 30, 10_000).clip(max=390)  # more samples than are worked on at once
    errors = {"mpjpe": rng.gamma(5, 20, 10_000), "pa_mpjpe": rng.gamma(5, 10, 10_000)}
    evaluation = SampleEvaluation(BINS, ("mpjpe", "pa_mpjpe"), {"name": "3dpw"}, LABEL, "pa_mpjpe")
    for part in (slice(0, 9000), slice(9000, 10_000)):
        evaluation.update(
            {name: torch.from_numpy(values[part]) for name, values in errors.items()},
            torch.from_numpy(distance[part]),
            [f"frame {i}" for i in range(10_000)[part]],
            ["first"] * len(distance[part]),
        )
    return evaluation, errors, distance


def test_means_pooled_and_over_bins_equal_numpy(scored):
    evaluation, errors, distance = scored
    result = evaluation.result()
    index = np.minimum((distance / 4).astype(int), 99)
    few = index >= 70
    for name, values in errors.items():
        assert result["overall"][name] == pytest.approx(values.mean(), rel=1e-9)
        assert result["few"][name] == pytest.approx(values[few].mean(), rel=1e-9)
        per_bin = [values[index == b].mean() for b in np.unique(index)]
        assert result["per_bin_mean"]["overall"][name] == pytest.approx(np.mean(per_bin), rel=1e-9)
    assert result["overall"]["count"] == result["protocol"]["samples"] == 10_000


def test_the_files_have_the_structure_of_every_evaluation(scored):
    evaluation = scored[0]
    result, arrays = evaluation.result(), evaluation.per_image()
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["protocol"]["label"] == {"name": "distance to the mean pose", "unit": "mm"}
    assert result["protocol"]["main_metric"] == "pa_mpjpe"
    assert result["calibration"] is None
    assert not {"all_pixels", "readout"} & set(result)
    assert arrays["sums_all"].shape == (10_000, 100, 3)
    assert arrays["terms"].tolist() == ["count", "mpjpe", "pa_mpjpe"]
    assert arrays["names"][9_999] == "frame 9999"
    assert set(arrays["groups"].tolist()) == {"first"}
    assert not [name for name in arrays if name.startswith(("joint", "coverage", "sums_mask"))]
    again = summarise(arrays["sums_all"], BINS, arrays["terms"].tolist())
    assert again["few"] == result["few"]


def test_wrong_use_is_named():
    for errors in ((), ("count",), ("mpjpe", "rmse")):
        with pytest.raises(ConfigError, match="names of errors"):
            SampleEvaluation(BINS, errors, None, LABEL)
    with pytest.raises(ConfigError, match="'mpvpe' is not among"):
        SampleEvaluation(BINS, ("mpjpe",), None, LABEL, "mpvpe")
    evaluation = SampleEvaluation(BINS, ("mpjpe",), None, LABEL)
    with pytest.raises(DataError, match="no image"):
        evaluation.result()
    with pytest.raises(DataError, match=r"expected the errors \['mpjpe'\], got \['pve'\]"):
        evaluation.update({"pve": torch.ones(2)}, torch.ones(2))
    with pytest.raises(DataError, match=r"\(samples,\)"):
        evaluation.update({"mpjpe": torch.ones(2, 1)}, torch.ones(2, 1))
    spoilt = torch.tensor([1.0, float("nan"), 2.0])
    with pytest.raises(DataError, match=r"1 values that are not finite.* in frame 7;"):
        evaluation.update({"mpjpe": spoilt}, torch.ones(3), ["frame 5", "frame 7", "frame 9"])

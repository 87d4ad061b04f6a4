import numpy as np
import pytest
import torch

from depthbal.errors import ConfigError
from depthbal.evaluation import DepthBins, summarise
from depthbal.reports import compare, load_results
from depthbal.reports.protocols import comparable
from tests.reports.run_folders import BINS, change_json, change_npz, depths, make_run

FINER = DepthBins(np.arange(21.0) / 2, ["many"] * 10 + ["few"] * 10)
UNSCORED = DepthBins(np.arange(11.0), ["", *BINS.shots[1:]])


def changed_pixel():
    target = depths()
    target[7, 0, 0, 0] = 9.5
    return target


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        ({"bins": FINER}, r"20 bins from 0 to 10 m instead of 10 bins from 0 to 10 m"),
        ({"bins": UNSCORED}, r"bins \[0\] are scored in one of them only"),
        ({"mask_seed": 3}, "balanced mask drawn with seed 3.*instead of drawn with seed 0"),
        ({"target": depths(39)}, "39 test images instead of 40"),
        ({"prefix": "val"}, r"other test images \(40 of 40, the first 'val/0' instead of 'test/0'"),
        ({"target": changed_pixel()}, r"other truths in 1 of 40 test images \(the first: test/7\)"),
        (
            {"protocol": {"data": {"min_depth": 0.5}}},
            "min_depth of the test data 0.5 instead of 0.7",
        ),
        ({"protocol": {"name": "mine"}}, "protocol 'mine' instead of 'nyud2_dir'"),
        ({"protocol": {"min_prediction_m": 0.1}}, r"smallest prediction in ratios \(m\) 0.1"),
        ({"protocol": {"mask": None}}, "no balanced mask instead of one"),
        ({"protocol": {"main_metric": "mae"}}, "main metric 'mae' instead of 'rmse'"),
        ({"protocol": {"label": {"name": "depth", "unit": "mm"}}}, "label 'depth in mm'"),
    ],
)
def test_another_protocol_is_refused_by_name(tmp_path, other, difference):
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b", **other)]
    with pytest.raises(ConfigError, match=f"b cannot be compared with a.*{difference}"):
        compare(load_results(runs), resamples=100)


def test_a_given_mask_differs_from_a_drawn_one(tmp_path):
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b")]
    given = {"source": "test_balanced_mask.npy", "pixels": 7, "fingerprint": "f"}
    change_json(runs[1] / "metrics.json", lambda m: m["protocol"].update(mask=given))
    with pytest.raises(ConfigError, match=r"from test_balanced_mask\.npy, 7 pixels instead of"):
        compare(load_results(runs), resamples=100)


def test_other_scenes_are_refused_but_unknown_ones_are_not(tmp_path):
    runs = [make_run(tmp_path / name) for name in "ab"]
    scenes = np.array([str(i // 2) for i in range(40)])
    change_npz(runs[0] / "per_image.npz", groups=scenes)
    assert compare(load_results(runs), resamples=100).units == "20 test scenes (40 images)"
    change_npz(runs[1] / "per_image.npz", groups=scenes[::-1])
    with pytest.raises(ConfigError, match="other scenes"):
        compare(load_results(runs), resamples=100)


def test_checkpoint_and_epochs_may_differ_and_are_noted(tmp_path):
    run = make_run(tmp_path / "a", posthoc=(1.0,))
    runs = [run, make_run(tmp_path / "b", protocol={"epochs": 5})]
    notes = comparable(load_results(runs))[1]
    assert notes == (
        "The number of epochs differs: 2 for a; 2 for a, balanced afterwards (sigma 1); 5 for b.",
    )


def test_shots_of_another_training_split_give_way_to_the_first_ones(tmp_path):
    moved = DepthBins(np.arange(11.0), ["many"] * 5 + ["medium"] + ["few"] * 4)
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b", bias=0.3, bins=moved, interval=True)]
    results = load_results(runs)
    (_, other), notes = comparable(results)
    assert "b gives some bins other shots" in notes[0]
    assert "shots of a" in notes[0]
    assert other.bins.shots == BINS.shots
    expected = summarise(torch.from_numpy(other.sums["mask", "clamped"]), BINS, other.terms)
    assert other.metrics["many"] == expected["many"]
    assert other.metrics["many"] != results[1].metrics["many"]
    everywhere = summarise(torch.from_numpy(other.sums["all", "raw"]), BINS, other.terms)
    assert other.metrics["readout"]["raw"]["all_pixels"]["medium"] == everywhere["medium"]
    covered = other.coverage["mask"][:4].sum(0)
    assert other.metrics["calibration"]["mask"]["many"]["coverage"] == covered[0] / covered[1]
    pair = compare(results, resamples=100).pairs[0]
    first = comparable(results)[0][0]
    found = pair.differences["rmse", "many", "pooled"]
    assert found.estimate == pytest.approx(
        other.metrics["many"]["rmse"] - first.metrics["many"]["rmse"], abs=1e-12
    )


def test_shots_by_another_rule_are_refused(tmp_path):
    ruled = DepthBins(BINS.edges, BINS.shots, shot_rule="many above 1 %")
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b", bins=ruled)]
    with pytest.raises(ConfigError, match="rule of the shots 'many above 1 %'"):
        compare(load_results(runs), resamples=100)

import numpy as np
import pytest

from depthbal.errors import ConfigError
from depthbal.evaluation import DepthBins, Label, summarise
from depthbal.reports import compare, load_results
from depthbal.reports.comparing import comparable
from tests.reports.made import RUN_BINS, depths, evaluate, make_run

FINER = DepthBins(np.arange(21.0) / 2, ["many"] * 10 + ["few"] * 10)
UNSCORED = DepthBins(np.arange(11.0), ["", *RUN_BINS.shots[1:]])
RULED = DepthBins(RUN_BINS.edges, RUN_BINS.shots, shot_rule="many above 1 %")
GIVEN = {"source": "test_balanced_mask.npy", "pixels": 7, "fingerprint": "f"}


def changed_pixel():
    target = depths()
    target[7, 0, 0, 0] = 9.5
    return target


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        ({"bins": FINER}, "bin edges 21 values, 0 to 10 instead of 11 values, 0 to 10"),
        ({"bins": UNSCORED}, "scored bins 9 values, 1 to 9 instead of 10 values, 0 to 9"),
        ({"bins": RULED}, "rule of the shots many above 1 % instead of –"),
        ({"mask_seed": 3}, r"balanced mask \(.*seed 3.*instead of .*seed 0"),
        (
            {"protocol": {"mask": GIVEN}},
            r"mask \(source test_balanced_mask\.npy, pixels 7, .*instead",
        ),
        ({"protocol": {"mask": None}}, r"balanced mask \(none\) instead of \(source drawn"),
        ({"target": depths(39)}, "39 test images instead of 40"),
        ({"prefix": "val"}, r"other test images \(40 of 40, the first 'val/0' instead of 'test/0'"),
        ({"target": changed_pixel()}, r"other truths in 1 of 40 test images \(the first: test/7\)"),
        (
            {"protocol": {"data": {"min_depth": 0.5}}},
            "min_depth of the test data 0.5 instead of 0.7",
        ),
        ({"protocol": {"name": "mine"}}, "protocol mine instead of nyud2_dir"),
        ({"protocol": {"min_prediction_m": 0.1}}, r"smallest prediction in ratios \(m\) 0.1"),
        ({"main": "mae"}, "main metric mae instead of rmse"),
        ({"label": Label("depth", "mm")}, "label depth in mm instead of depth in m"),
    ],
)
def test_another_protocol_is_refused_by_name(tmp_path, other, difference):
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b", **other)]
    with pytest.raises(ConfigError, match=f"b cannot be compared with a.*{difference}"):
        compare(load_results(runs), resamples=100)


def test_other_scenes_are_refused_but_unknown_ones_are_not(tmp_path):
    scenes = [str(i // 2) for i in range(40)]
    runs = [make_run(tmp_path / "a", groups=scenes), make_run(tmp_path / "b")]
    comparison = compare(load_results(runs), resamples=100)
    assert comparison.units.text == "20 test scenes (40 images)"
    evaluate(runs[1], 0.1, {}, groups=scenes[::-1])
    with pytest.raises(ConfigError, match="other scenes"):
        compare(load_results(runs), resamples=100)


def test_checkpoint_and_epochs_may_differ_and_are_noted(tmp_path):
    run = make_run(tmp_path / "a", posthoc=(1.0,))
    other = make_run(tmp_path / "b", protocol={"epochs": 5})
    notes = comparable(load_results([run, run / "eval" / "posthoc_1", other]))[1]
    assert notes == (
        "The number of epochs differs: 2 for a; 2 for a, balanced afterwards (sigma 1); 5 for b.",
    )


def test_shots_of_another_training_split_give_way_to_the_first_ones(tmp_path):
    moved = DepthBins(np.arange(11.0), ["many"] * 5 + ["medium"] + ["few"] * 4)
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b", bias=0.3, bins=moved, interval=True)]
    results = load_results(runs)
    comparison = compare(results, resamples=100)
    first, other = comparison.results
    assert "b gives some bins other shots" in comparison.notes[0]
    assert "shots of a" in comparison.notes[0]
    assert other.bins.shots == RUN_BINS.shots
    scores = results[1].scores
    expected = summarise(scores.sums("mask", "clamped"), RUN_BINS, scores.terms)
    assert other.metrics["many"] == expected["many"] != results[1].metrics["many"]
    covered = scores.coverage("mask")[:4].sum(0)
    assert other.metrics["calibration"]["mask"]["many"]["coverage"] == covered[0] / covered[1]
    found = comparison.pairs[0].differences["rmse", "many", "pooled"]
    assert found.estimate == pytest.approx(
        other.metrics["many"]["rmse"] - first.metrics["many"]["rmse"], abs=1e-12
    )

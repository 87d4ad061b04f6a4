import json
import shutil

import numpy as np
import pytest
import torch

from depthbal.errors import ConfigError, RunFolderError
from depthbal.evaluation import LABEL_TERMS, LabelBins, Scores
from depthbal.reports import load_results
from depthbal.reports.results import common_name, methods_of, run_names
from tests.reports.made import make_run, read_as_mean, result_of


def test_a_run_and_its_evaluations_are_results_of_their_own(tmp_path):
    run = make_run(tmp_path / "mse", posthoc=(10.0, 0.5))
    shutil.copytree(run / "eval" / "posthoc_0.5", run / "eval" / "posthoc_0.5_best")
    folders = [run, *(run / "eval" / f"posthoc_{name}" for name in ("0.5", "10", "0.5_best"))]
    results = load_results(folders)
    assert [result.name for result in results] == [
        "mse",
        "mse, balanced afterwards (sigma 0.5), posthoc_0.5",
        "mse, balanced afterwards (sigma 10)",
        "mse, balanced afterwards (sigma 0.5), posthoc_0.5_best",
    ]
    assert [result.noise_sigma for result in results] == [None, 0.5, 10.0, 0.5]
    assert [result.posthoc for result in results] == [False, True, True, True]
    assert len({result.method for result in results[:3]}) == 3
    assert all(result.run == run and result.histogram for result in results)


def test_a_result_holds_what_the_files_say(tmp_path):
    run = make_run(tmp_path / "gai", sigma=0.75, seed=4, interval=True, examples=3)
    (result,) = load_results([run])
    stored = Scores.load(run)
    assert np.array_equal(result.pooled["mask", "raw"], stored.sums("mask", "raw").sum(0))
    assert np.array_equal(result.counts, stored.sums("all")[..., 0])
    assert result.metrics == stored.result()
    assert result.readouts == ("clamped", "raw")
    assert (result.seed, result.noise_sigma) == (4, 0.75)
    assert result.curves["train/loss_step"][1].tolist() == [1.5, 0.5]
    assert result.curves["val/rmse"][0].tolist() == [9.0]  # the NaN is left out
    assert result.histogram.total == 55
    assert result.prior.means.tolist() == [2.0, 5.0]
    assert [example.reason for example in result.examples] == ["best", "worst", "rare"]
    assert result.examples[0].image.shape == (6, 8, 3)


def test_scores_alone_are_a_result(tmp_path):
    scores = Scores(LabelBins([0, 1, 2], ["many", "few"]), ("own",), "own", terms=LABEL_TERMS)
    scores.update({"own": torch.tensor([0.4, 1.2])}, torch.tensor([0.5, 1.5]))
    for name in "ab":
        scores.save(tmp_path / name)
    results = load_results([tmp_path / "a", tmp_path / "b"])
    assert [(r.name, r.seed, r.config, r.examples) for r in results] == [
        (name, None, "", ()) for name in "ab"
    ]
    assert results[0].method != results[1].method  # nothing is known of their settings


@pytest.mark.parametrize(
    "name", ["prior.json", "metrics.csv", "run.json", "config.yaml", "examples.npz"]
)
def test_a_damaged_file_is_named_with_the_way_out(tmp_path, name):
    run = make_run(tmp_path / "run")
    (run / name).write_bytes(b"PK\x03\x04[{: \xff")
    with pytest.raises(RunFolderError, match=rf"{name} is damaged .*remove it"):
        load_results([run])
    (run / name).unlink()
    assert len(load_results([run])) == 1


def test_names_that_clash_are_told_apart_and_a_run_is_named_once(tmp_path):
    runs = [make_run(tmp_path / parent / "gai") for parent in ("a", "b")]
    assert [result.name for result in load_results(runs)] == ["a/gai", "b/gai"]
    with pytest.raises(ConfigError, match="named twice"):
        load_results([runs[0], runs[0] / ".." / "gai"])
    with pytest.raises(ConfigError, match="one or more"):
        load_results([])
    paths = [tmp_path / part for part in ("x/1/gai", "y/1/gai", "y/2/gai", "mse")]
    assert run_names(paths) == ["x/1/gai", "y/1/gai", "2/gai", "mse"]


@pytest.mark.parametrize("file", ["", "checkpoints/best.ckpt"])
def test_repetitions_that_start_from_other_repetitions_are_one_method(tmp_path, file):
    runs = []
    for seed, lr in enumerate((0.1, 0.1, 0.7)):
        base = make_run(tmp_path / f"base-{seed}", seed=seed, lr=lr)
        runs.append(make_run(tmp_path / f"head-{seed}", seed=seed, weights=str(base / file)))
    first, second, other = load_results(runs)
    assert first.method == second.method
    assert first.method != other.method
    assert (first.seed, second.seed) == (0, 1)
    assert str(tmp_path / "base-0") in first.config


@pytest.mark.parametrize(
    ("given", "recorded", "expected"), [(True, 77, 77), (0, 77, 0), (False, None, None)]
)
def test_a_drawn_seed_is_that_of_run_json(tmp_path, given, recorded, expected):
    run = make_run(tmp_path / "run", seed=given)
    (run / "run.json").write_text(json.dumps({"depthbal": "0.1.0", "seed": recorded}))
    assert load_results([run])[0].seed == expected


GAI = ("gai-0", "a", 0), ("gai-1", "a", 1)


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        # in the order of their first runs, with seeds in order
        ((("b-2", "b", 2), ("a", "a", 0), ("b-1", "b", 1)), {"b": (2, 0), "a": (1,)}),
        # no two of one name
        (
            (*GAI, ("gai-2", "b", 2), ("gai-3", "b", 3)),
            {"gai-0; gai-1": (0, 1), "gai-2; gai-3": (2, 3)},
        ),
        ((*GAI, ("gai", "b", 0)), {"gai-0; gai-1": (0, 1), "gai": (2,)}),
        # runs of unknown or equal seed stay apart
        ((("a", "m", None), ("b", "m", 1)), {"a": (0,), "b": (1,)}),
        ((("a", "m", 1), ("b", "m", 1), ("c", "m", 2)), {"a": (0,), "b": (1,), "c": (2,)}),
    ],
)
def test_methods_are_the_runs_of_different_seeds_that_share_their_settings(runs, expected):
    found = methods_of([ones(name=name, method=method, seed=seed) for name, method, seed in runs])
    assert {method.name: method.runs for method in found} == expected
    for method in found:
        assert method.seeds == tuple(runs[run][2] for run in method.runs)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["gai-0", "gai-1"], "gai"),
        (["gai-9", "gai-10"], "gai"),
        (["gai_s1.5-0", "gai_s1.5-1"], "gai_s1.5"),
        (["0/gai", "1/gai"], "gai"),
        (["x", "y"], "x"),
    ],
)
def test_the_common_name_leaves_out_what_tells_seeds_apart(names, expected):
    assert common_name(names) == expected


def ones(**options):
    """Return a result of three images, one bin and errors of 1."""
    return result_of(np.ones((3, 1, 2)), LabelBins([0.0, 1.0]), **options)


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (ones(), "raw output"),
        (read_as_mean(ones(), 0.5), "posterior mean"),
        (read_as_mean(ones()), "mean (the raw output)"),
    ],
)
def test_a_mean_that_is_the_raw_output_is_no_posterior_mean(result, expected):
    assert result.readout_name() == expected

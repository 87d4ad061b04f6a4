"""The benchmarks measure what they say, against the slow twins, and write page and data."""

import json
import math
import runpy

import pytest
import torch
from measuring import peak_mib

from depthbal.priors import GaussianMixture
from tests import reference
from tests.test_tools import tool
from tests.training.helpers import TOOLS


def bench(name, folder, *options):
    """Run a benchmark twice, the second time in vain; return its data and its page."""
    line = [*options, "--out", folder]
    assert tool(f"{name}.py", *line) == 0
    (page,) = folder.glob("*.md")
    assert tool(f"{name}.py", *line) == 2  # the table is there
    return json.loads(page.with_suffix(".json").read_text()), page.read_text()


def test_the_losses_are_measured_against_the_published_formulas(tmp_path):
    options = ["--quick", "--repeats", "2", "--memory-gib", "0.01", "--device", "cpu"]
    result, page = bench("bench_losses", tmp_path, *options)
    rows = {(row["labels"], row["loss"]): row for row in result["rows"]}
    for size in (300, 1000):
        assert rows[size, "GAILoss, K = 16, fixed noise"]["times_published"] > 0
    assert rows[300, "MSELoss"]["best_ms"] <= rows[300, "MSELoss"]["worst_ms"]
    # the N x N matrix and the gradient of its logarithm
    assert 2 * 300**2 * 4 < rows[300, "published BMC"]["peak_mib"] * 2**20 < 6 * 300**2 * 4
    assert "N x K" in rows[1000, "published BMC"]["skipped"]
    (step,) = result["steps"].values()
    assert 0 < step["shares"]["GAILoss, K = 16, fixed noise"] < 1
    assert result["machine"]["torch"]
    assert "| cpu | 1,000 | BMCLoss |" in page


def test_the_formulas_of_the_benchmark_are_the_slow_twins():
    made = runpy.run_path(str(TOOLS / "bench_losses.py"))
    preds, target = made["labels"](507, 0)
    prior = GaussianMixture([0.7, 0.3], [2.0, 6.0], [0.5, 0.0])
    parts = (part.float() for part in (prior.weights, prior.means, prior.variances))
    sigma = torch.tensor(1.0)
    torch.testing.assert_close(
        made["published_mixture"](prior, "cpu")(preds, target),
        reference.balanced_mse(preds, target, *parts, sigma),
    )
    constant = 2 * math.log(507)
    torch.testing.assert_close(
        made["published_bmc"](preds, target) - constant,
        reference.batch_monte_carlo(preds, target, sigma),
    )


def test_the_step_is_measured_folded_against_published_and_the_loader_with_it(tmp_path):
    options = ["--quick", "--repeats", "1", "--workers", "0", "--device", "cpu"]
    result, page = bench("bench_training", tmp_path, *options)
    steps = {(row["device"], row["form"]): row for row in result["steps"]}
    published = steps["cpu", "as published, float32"]
    folded = steps["cpu", "folded, bfloat16, channels_last"]
    assert published["times_published"] == 1
    assert folded["times_published"] == published["best_s"] / folded["best_s"]
    assert folded["images_per_s"] == 2 / folded["best_s"]
    # weights, gradients and Adam's two moments: 67.6 million numbers of 4 bytes each
    for row in (published, folded):
        assert 4 * 67_569_473 * 4 / 2**30 < row["peak_gib"] < 1.5
    (loader,) = result["loaders"]
    assert loader["images"] == 4
    assert 0 < loader["waiting_for_data"] < 1
    assert loader["training_images_per_s"] < loader["loader_images_per_s"]
    assert f"torch {torch.__version__}" in page


def test_fds_has_a_ratio_for_statistics_and_calibration(tmp_path):
    assert tool("bench_fds.py", "--quick", "--images", 2, "--repeats", 1, "--out", tmp_path) == 0
    result = json.loads((tmp_path / "fds_cpu.json").read_text())
    assert [row["work"] for row in result["rows"]] == ["statistics", "calibration"]
    for row in result["rows"]:
        ratio = row["loop_ms_per_image"] / row["ms_per_image"]
        assert row["times_as_fast"] == pytest.approx(ratio)
    assert "Statistics of the 600 images" in (tmp_path / "fds_cpu.md").read_text()


def test_every_loss_has_a_row_of_time_and_memory(tmp_path):
    options = ["--of", "age", "--device", "cpu", "--batch-size", 2, "--repeats", 1, "--seeds", 0, 1]
    rows = bench("bench_training_cost", tmp_path, *options)[0]["rows"]
    names = [row["loss"] for row in rows]
    assert names[0].startswith("L1Loss")
    assert {"LDS", "Focal-R", "GAI, K = 2", "GAI, K = 512", "BNI", "BMC"} <= {*names}
    assert rows[0]["times_plain"] == 1
    for row in rows:
        assert len(row["times_plain_of_seeds"]) == 2
        assert row["times_plain"] == pytest.approx(sum(row["times_plain_of_seeds"]) / 2)
        assert row["peak_mib"] > 1
    assert (tmp_path / "cost_age_cpu.png").stat().st_size > 5000


def test_a_frozen_network_needs_less_memory_than_one_that_is_trained(tmp_path):
    options = ["--of", "age", "--device", "cpu", "--batch-size", 8, "--repeats", 1]
    head, whole = (
        bench("bench_training_cost", tmp_path / trained, *options, "--trained", trained)[0]
        for trained in ("head", "all")
    )
    assert head["rows"][0]["peak_mib"] < 0.7 * whole["rows"][0]["peak_mib"]


def test_the_peak_is_what_a_run_makes_and_holds_at_once():
    def run():
        torch.zeros(2**19)  # 2 MiB, gone before the next
        first = torch.zeros(2**18)
        return first + torch.zeros(2**18)  # three of 1 MiB each at once

    kept = []

    def replace():
        kept.clear()  # what was there before does not count when it is freed
        kept.append(torch.zeros(2**20))

    assert peak_mib(run, "cpu") == 3
    replace()
    assert [peak_mib(replace, "cpu") for _ in range(3)] == [4, 4, 4]

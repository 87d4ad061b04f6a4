"""The benchmark of the losses."""

import json
import math
import runpy

import torch

from depthbal.priors import GaussianMixture
from tests import reference
from tests.test_tools import tool
from tests.training.helpers import TOOLS


def test_the_losses_are_measured_against_the_published_formulas(tmp_path, capsys):
    options = ["--quick", "--repeats", "2", "--memory-gib", "0.01"]
    options += ["--out", tmp_path, "--device", "cpu"]
    assert tool("bench_losses.py", *options) == 0
    result = json.loads((tmp_path / "losses_cpu.json").read_text())
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
    page = (tmp_path / "losses_cpu.md").read_text()
    assert "| cpu | 1,000 | BMCLoss |" in page
    capsys.readouterr()
    assert tool("bench_losses.py", *options) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_the_formulas_of_the_benchmark_are_the_slow_twins():
    bench = runpy.run_path(str(TOOLS / "bench_losses.py"))
    preds, target = bench["labels"](507, 0)
    prior = GaussianMixture([0.7, 0.3], [2.0, 6.0], [0.5, 0.0])
    parts = (part.float() for part in (prior.weights, prior.means, prior.variances))
    sigma = torch.tensor(1.0)
    torch.testing.assert_close(
        bench["published_mixture"](prior, "cpu")(preds, target),
        reference.balanced_mse(preds, target, *parts, sigma),
    )
    constant = 2 * math.log(507)
    torch.testing.assert_close(
        bench["published_bmc"](preds, target) - constant,
        reference.batch_monte_carlo(preds, target, sigma),
    )

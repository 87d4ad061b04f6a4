"""The depth task: what counts, what a loss gets, groups of parameters, compiling."""

import copy
import functools
import math
import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from depthbal.errors import ConfigError, DataError
from depthbal.evaluation import LABEL_TERMS, LabelBins, Scores
from depthbal.losses import BMCLoss, BNILoss, GAILoss, MSELoss, SILogLoss
from depthbal.losses.posthoc import BalanceMap
from depthbal.priors import Histogram
from depthbal.training import DepthTask, Task
from depthbal.training.task import __file__ as task_file
from tests.training.helpers import DropoutNet, fit_prior, loss_of

HISTOGRAM = Histogram([1.0, 2.0, 3.0, 4.0], [6, 3, 1])


def batch(depth: torch.Tensor) -> dict:
    return {"image": torch.ones(len(depth), 3, *depth.shape[-2:]), "depth": depth}


def constant_network(value: float) -> nn.Module:
    network = nn.Conv2d(3, 1, 1)
    nn.init.zeros_(network.weight)
    nn.init.constant_(network.bias, value)
    return network


@pytest.mark.parametrize("criterion", [MSELoss, nn.L1Loss, GAILoss, BMCLoss, BNILoss])
def test_depth_below_the_limit_counts_for_no_loss(criterion):
    task = DepthTask(constant_network(2.0), criterion())
    task.take_range((0.7, 10.0))
    fit_prior(task, HISTOGRAM)
    valid = torch.tensor([[[[1.0, 2.0, 3.5]]]])
    beside = torch.tensor([[[[1.0, 2.0, 3.5, 0.0, 0.69, 0.1]]]])
    torch.testing.assert_close(loss_of(task, batch(beside)), loss_of(task, batch(valid)))


@pytest.mark.parametrize("criterion", [MSELoss(), nn.SmoothL1Loss()])
def test_a_batch_without_valid_depth_has_loss_zero_and_a_gradient(criterion):
    task = DepthTask(constant_network(2.0), criterion)
    loss = loss_of(task, batch(torch.zeros(1, 1, 2, 2)))
    loss.backward()
    assert loss.item() == 0
    assert task.model.bias.grad.item() == 0


def test_predictions_of_another_size_are_an_error_or_brought_to_the_targets():
    task = DepthTask(nn.Conv2d(3, 1, 2, stride=2), MSELoss(), resize=None)
    with pytest.raises(ConfigError, match=r"\(1, 1, 4, 4\) and target \(1, 1, 8, 8\).*resize"):
        loss_of(task, batch(torch.ones(1, 1, 8, 8)))
    task = DepthTask(constant_network(0.0), MSELoss(), resize="target")
    task.take_range((-1.0, 10.0))
    raw = torch.tensor([[[[0.0, 1.0, 2.0]]]])
    truth = torch.tensor([[[[0.0, 0.5, 1.0, 1.5, 2.0]]]])  # linear: corners stay corners
    assert task.training_loss(raw, batch(truth)).item() == pytest.approx(0.0, abs=1e-12)


def test_the_bias_starts_at_the_mean_depth_and_a_given_prior_is_kept():
    for criterion in (MSELoss(), GAILoss(n_components=2)):
        task = DepthTask(DropoutNet(), criterion)
        fit_prior(task, HISTOGRAM)
        expected = (6 * 1.5 + 3 * 2.5 + 1 * 3.5) / 10
        assert task.model.layers[-1].bias.item() == pytest.approx(expected)
    task = DepthTask(DropoutNet(), BNILoss(Histogram([1.0, 2.0, 3.0], [1, 1])))
    fit_prior(task, HISTOGRAM)
    assert task.criterion.prior.weights.tolist() == [0.5, 0.5]


def test_the_selection_metric_is_the_mean_over_half_metre_bins_of_rmse():
    generator = torch.Generator().manual_seed(0)
    target = 10 * torch.rand(3, 1, 6, 7, generator=generator)
    preds = target + torch.randn(3, 1, 6, 7, generator=generator)
    task = DepthTask(DropoutNet(), MSELoss())
    task.take_range((0.7, 10.0))
    data = SimpleNamespace(bin_spacing="uniform", zero_is_label=False)
    scores = task.make_scores(data, "val")
    scores.update({task.readout: preds}, target, target >= 0.7)
    errors: dict[int, list[float]] = {}
    for p, y in zip(preds.flatten().tolist(), target.flatten().tolist(), strict=True):
        if y >= 0.7:
            errors.setdefault(int(y / 0.5), []).append((p - y) ** 2)
    expected = sum(math.sqrt(sum(e) / len(e)) for e in errors.values()) / len(errors)
    found = task.validation_metrics(scores.compute())
    assert found["val/rmse_bins"] == pytest.approx(expected, rel=1e-6)
    assert set(found) == {"val/rmse_bins", "val/rmse", "val/abs_rel", "val/delta1"}


class Spoilt(nn.Module):
    """Labels of images, the second of them NaN."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.tensor([2.0, math.nan])


@pytest.mark.parametrize("posthoc", [None, BalanceMap(HISTOGRAM, 0.5, (1.0, 4.0))])
def test_a_prediction_of_a_label_that_is_not_finite_names_its_image(posthoc):
    task = Task(Spoilt(), MSELoss())
    task.posthoc = posthoc
    batch = {"image": torch.zeros(2, 3, 4, 4), "label": torch.ones(2), "name": ["fine", "spoilt"]}
    with pytest.raises(DataError, match="spoilt"):
        task.score(batch, Scores(LabelBins([0, 2, 4], ["many", "few"]), terms=LABEL_TERMS))


def test_logarithms_want_a_range_above_0_and_a_loss_of_errors():
    task = DepthTask(DropoutNet(), MSELoss(), label_transform="log")
    with pytest.raises(ConfigError, match="label_range above 0"):
        task.take_range((0.0, 60.0))
    with pytest.raises(ConfigError, match=r"label_transform log: .*got SILogLoss"):
        DepthTask(DropoutNet(), SILogLoss(), label_transform="log")


def test_the_engine_knows_no_depth():
    folder = Path(task_file).parent
    for name in ("task", "evaluate", "train", "runs", "resuming", "settings", "tuning"):
        text = (folder / f"{name}.py").read_text(encoding="utf-8")
        assert not re.findall(r"(?i)\b\w*depth(?!bal)\w*|eigen|whole_images", text), name


# ---- compiling changes nothing but the speed, failing to compile nothing at all ----


@pytest.fixture
def graphs(monkeypatch):
    """Compile into graphs that run as they are, and count them."""
    compiled = []

    def backend(graph, inputs):
        if os.environ.get("NO_COMPILER"):
            raise RuntimeError("no compiler on this machine\nand more")
        compiled.append(graph)
        return graph.forward

    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    yield compiled
    torch.compiler.reset()


def loss_and_gradients(task: DepthTask) -> tuple[torch.Tensor, list[torch.Tensor]]:
    torch.manual_seed(1)
    depth = 1 + 8 * torch.rand(2, 1, 4, 4)
    loss = loss_of(task, {"image": torch.randn(2, 3, 8, 8), "depth": depth})
    loss.backward()
    return loss.detach(), [parameter.grad for parameter in task.parameters()]


def test_the_compiled_network_is_the_plain_one(graphs):
    network = DropoutNet()
    plain = DepthTask(copy.deepcopy(network), MSELoss())
    expected = loss_and_gradients(plain)
    assert not graphs  # nothing is compiled unless asked
    task = DepthTask(network, MSELoss(), compile=True)
    torch.testing.assert_close(loss_and_gradients(task), expected)
    assert len(graphs) > 0
    assert list(task.state_dict()) == list(plain.state_dict())


def test_without_a_compiler_a_step_is_the_plain_one_and_says_why_once(graphs, monkeypatch, caplog):
    monkeypatch.setenv("NO_COMPILER", "1")
    network = DropoutNet()
    expected = loss_and_gradients(DepthTask(copy.deepcopy(network), MSELoss()))
    task = DepthTask(network, MSELoss(), compile=True)
    for _ in range(2):
        task.zero_grad()
        torch.testing.assert_close(loss_and_gradients(task), expected, rtol=0, atol=0)
    (said,) = [r.getMessage() for r in caplog.records if "could not be compiled" in r.message]
    assert "no compiler on this machine" in said
    assert "\n" not in said


def test_neither_the_networks_error_nor_too_little_memory_is_the_compilers(graphs, caplog):
    task = DepthTask(nn.Conv2d(3, 1, 1), MSELoss(), compile=True)
    with pytest.raises(RuntimeError, match="channels"):
        task.predict({"image": torch.zeros(1, 2, 4, 4)})

    def full(images):
        raise torch.OutOfMemoryError("the GPU is full")

    task._compiled = full
    with pytest.raises(torch.OutOfMemoryError):
        task.predict({"image": torch.zeros(1, 3, 4, 4)})
    assert task.compile_network
    assert "compiled" not in caplog.text

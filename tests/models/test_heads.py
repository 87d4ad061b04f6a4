"""What the last layer's numbers mean, in every network of ours."""

import math

import pytest
import torch
from torch import nn

from depthbal.errors import ConfigError
from depthbal.losses import BinsLoss, MSELoss
from depthbal.models import Head, ResNetMFF, SmpDepth
from depthbal.priors import Histogram
from depthbal.training import DepthTask

SMALL = {"encoder": "mobilenet_v2", "arch_args": {"decoder_channels": [16, 8, 8, 8, 8]}}
BOUNDED = {"kind": "bounded", "label_range": (0.7, 10.0)}


@pytest.mark.parametrize(
    ("arguments", "formula"),
    [
        ({}, lambda x: x),
        (BOUNDED, lambda x: 0.7 + 9.3 / (1 + math.exp(-x))),
        ({"kind": "log"}, lambda x: math.exp(x) if x < 7 else math.exp(7) * (x - 6)),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_values_and_gradients_are_those_of_the_formula(arguments, formula, dtype):
    x = torch.tensor([-20.0, -3.0, 0.0, 2.5, 6.75, 8.0, 200.0], dtype=dtype)
    head, outputs = Head(**arguments), x.double().requires_grad_()
    expected = torch.tensor([formula(one) for one in x.tolist()], dtype=torch.float64)
    assert torch.isfinite(head(x)).all()
    torch.testing.assert_close(head(x).double(), expected, rtol=1e-6, atol=1e-9)
    assert torch.autograd.gradcheck(head, outputs)


@pytest.mark.parametrize("network", [lambda head: SmpDepth(**SMALL, head=head), ResNetMFF])
@pytest.mark.parametrize("head", [None, BOUNDED, {"kind": "log"}])
def test_an_untrained_network_predicts_about_the_mean(network, head):
    torch.manual_seed(0)
    model = network(head=head).eval()
    assert model.init_args["head"] == head
    model.initialise_bias(3.0)
    images = 0.1 * torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        depth = model(images)
        assert depth.shape == (1, 1, 32, 32)
        assert depth.mean().item() == pytest.approx(3.0, abs=0.5)
        model.initialise_bias(5.75)
        if head is None:
            torch.testing.assert_close(model(images), depth + 2.75, rtol=1e-4, atol=1e-4)


def test_a_head_of_bins_starts_at_the_training_labels_distribution():
    loss = BinsLoss(Histogram([0.7, 2.0, 5.0, 10.0], [8, 1, 1]), n_bins=9, tau=0.0)
    model = SmpDepth(**SMALL, head={"kind": "bins", "bins": 9}).eval()
    model.initialise_bias(loss.initial_logits)
    with torch.no_grad():
        logits = model(torch.zeros(1, 3, 32, 32))
    assert logits.shape == (1, 9, 16, 16)
    expected = 0.8 * 1.35 + 0.1 * 3.5 + 0.1 * 7.5
    assert loss.readout(logits).mean().item() == pytest.approx(expected, abs=0.3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Head("sigmoid"), "expected a head of kind"),
        (lambda: Head("bounded")(torch.zeros(1)), "needs label_range"),
        (lambda: Head("bins", bins=1), "at least 2"),
        (lambda: task({"kind": "bins", "bins": 8}, MSELoss()), "use --model.criterion BinsLoss"),
        (lambda: task(None, BinsLoss(n_bins=8)), "kind: bins, bins: 8"),
        (lambda: task({"kind": "bins", "bins": 9}, BinsLoss(n_bins=8)), "gives 9"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(call, message):
    with pytest.raises(ConfigError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def task(head: dict | None, criterion: nn.Module) -> DepthTask:
    return DepthTask(SmpDepth(**SMALL, head=head), criterion)

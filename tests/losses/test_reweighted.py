"""Re-weighted errors."""

import pickle

import numpy as np
import pytest
import torch

from depthbal.losses import ReweightedLoss
from depthbal.priors import GaussianMixture, Histogram
from tests.reference import plain_label_weights

COUNTS = [500.0, 220.0, 90.0, 0.0, 12.0, 3.0]
HISTOGRAM = Histogram(np.linspace(0.0, 6.0, 7), COUNTS)
LDS = {"weighting": "sqrt_inverse", "smoothing": "gaussian", "kernel_size": 3, "kernel_sigma": 1.0}


def batch(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    preds, target = 7 * torch.rand(2, 3, 1, 7, 5, generator=generator, dtype=torch.float64) - 0.5
    return preds.to(dtype), target.to(dtype), torch.rand(target.shape, generator=generator) < 0.6


@pytest.mark.parametrize("error", ["squared", "absolute"])
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_equals_plain_python(error, dtype, rtol):
    preds, target, mask = batch(dtype)
    side = np.exp(-0.5)
    kernel = [side / (1 + 2 * side), 1 / (1 + 2 * side), side / (1 + 2 * side)]
    weights = plain_label_weights(COUNTS, "sqrt_inverse", None, kernel)
    total = 0.0
    for p, t in zip(preds[mask].tolist(), target[mask].tolist(), strict=True):
        weight = weights[min(max(int(np.floor(t)), 0), 5)]
        total += weight * (abs(p - t) if error == "absolute" else (p - t) ** 2)
    value = ReweightedLoss(HISTOGRAM, error=error, **LDS)(preds, target, mask)
    assert value.dtype == dtype
    assert value.item() == pytest.approx(total / int(mask.sum()), rel=rtol)


@pytest.mark.parametrize("change", [lambda loss: loss, torch.nn.Module.half, torch.nn.Module.float])
def test_it_is_restored_from_the_state_dict_in_any_precision_and_from_files(change, tmp_path):
    preds, target, mask = batch()
    HISTOGRAM.save(tmp_path / "histogram.json")
    loss = ReweightedLoss(str(tmp_path / "histogram.json"), error="absolute", **LDS)
    expected = ReweightedLoss(HISTOGRAM, error="absolute", **LDS)(preds, target, mask).item()
    torch.save(change(loss).state_dict(), tmp_path / "state.pt")
    fresh = ReweightedLoss(**loss.init_args)
    fresh.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert not fresh.needs_prior
    assert fresh(preds, target, mask).item() == expected
    assert pickle.loads(pickle.dumps(loss))(preds, target, mask).item() == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"error": "huber"}, "squared or absolute"),
        ({"smoothing": "gaussian", "kernel_size": 2}, "odd kernel_size"),
        ({"prior": GaussianMixture([1.0], [0.0], [1.0])}, "expected a Histogram"),
    ],
)
def test_wrong_arguments_are_errors_before_a_histogram_is_there(options, message):
    with pytest.raises(ValueError, match=message):
        ReweightedLoss(**options)

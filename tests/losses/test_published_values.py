"""The losses equal the published formulas on stored inputs, in value and gradient."""

import math

import numpy as np
import pytest
import torch

from depthbal.losses import BMCLoss, BNILoss, GAILoss
from depthbal.losses.balanced import BalancedMSELoss
from depthbal.priors import GaussianMixture
from tests.shared import SHARED, needs_shared

pytestmark = needs_shared
SIGMAS = (0.2, 1.0, 3.0)


@pytest.fixture(scope="module")
def golden():
    with np.load(SHARED / "golden" / "published_losses.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


def make_loss(name: str, sigma: float, golden) -> BalancedMSELoss:
    if name == "gai":
        prior = GaussianMixture(golden["gmm_weights"], golden["gmm_means"], golden["gmm_variances"])
        return GAILoss(prior, init_noise_sigma=sigma, noise="learned")
    if name == "bni":
        centers = golden["bin_centers"]
        prior = GaussianMixture(golden["bin_weights"], centers, torch.zeros_like(centers))
        return BNILoss(prior, init_noise_sigma=sigma, noise="learned")
    return BMCLoss(init_noise_sigma=sigma, noise="learned")


def published(name: str, sigma: float, golden) -> tuple[float, torch.Tensor, float]:
    """The stored value and gradients, moved to the constants of this package."""
    value = golden[f"{name}_sigma{sigma}_loss"].item()
    if name == "bmc":
        value -= 2 * sigma**2 * math.log(golden["pred"].numel())
    if name == "bni":  # its weights enter unnormalised
        value -= 2 * sigma**2 * golden["bin_weights"].sum().log().item()
    return (
        value,
        golden[f"{name}_sigma{sigma}_grad_pred"],
        golden[f"{name}_sigma{sigma}_grad_sigma"].item(),
    )


def evaluate(loss: BalancedMSELoss, golden, dtype: torch.dtype):
    loss = loss.to(dtype)
    preds = golden["pred"].to(dtype, copy=True).requires_grad_()
    value = loss(preds, golden["target"].to(dtype))
    value.backward()
    sigma = loss.noise_sigma.double().item()
    return value.double().item(), preds.grad.double(), loss.noise.log_sigma.grad.item() / sigma


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("name", ["gai", "bmc", "bni"])
def test_float64_equals_the_published_formula_to_1e_10_and_float32_to_1e_5(
    name, sigma, golden, dtype
):
    loss = make_loss(name, sigma, golden).to(dtype)
    with torch.no_grad():
        loss.noise.log_sigma.fill_(math.log(sigma))
    value, by_preds, by_sigma = evaluate(loss, golden, dtype)
    expected, expected_by_preds, expected_by_sigma = published(name, sigma, golden)
    single = dtype == torch.float32
    rel = 1e-5 if single else 1e-10
    assert value == pytest.approx(expected, rel=rel)
    allowed = 1e-5 * abs(expected) if single else 0.0
    assert by_sigma == pytest.approx(expected_by_sigma, rel=rel, abs=allowed)
    largest = expected_by_preds.abs().max().item()
    tolerance = {"rtol": 0, "atol": 1e-5 * largest} if single else {"rtol": 1e-10, "atol": 1e-13}
    torch.testing.assert_close(by_preds, expected_by_preds, **tolerance)


@pytest.mark.parametrize("sigma", [0.3, 1.0])
@pytest.mark.parametrize("name", ["gai", "bmc"])
def test_vectors_equal_the_published_formula_to_1e_10(name, sigma, golden):
    preds = golden["md_pred"].clone().requires_grad_()
    options = {"event_dim": 1, "noise": "learned", "init_noise_sigma": sigma}
    if name == "gai":
        parts = (golden[f"md_gmm_{part}"] for part in ("weights", "means", "covariances"))
        loss = GAILoss(GaussianMixture(*parts), **options).double()
    else:
        loss = BMCLoss(**options).double()
    with torch.no_grad():
        loss.noise.log_sigma.fill_(math.log(sigma))
    value = loss(preds, golden["md_target"])
    value.backward()
    offset = 2 * sigma**2 * math.log(len(preds)) if name == "bmc" else 0.0
    stored = {part: golden[f"md_{name}_sigma{sigma}_{part}"] for part in ("loss", "grad_sigma")}
    assert value.item() == pytest.approx(stored["loss"].item() - offset, rel=1e-10)
    by_preds = golden[f"md_{name}_sigma{sigma}_grad_pred"]
    torch.testing.assert_close(preds.grad, by_preds, rtol=1e-10, atol=1e-13)
    by_sigma = loss.noise.log_sigma.grad.item() / sigma
    # BMC's constant cross entropy has no log sigma, whose derivatives cancel in the whole
    assert by_sigma == pytest.approx(stored["grad_sigma"].item(), rel=1e-10)

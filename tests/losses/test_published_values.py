"""The losses equal the published formulas on stored inputs, in value and gradient."""

import itertools
import math

import numpy as np
import pytest
import torch

from depthbal.losses import BMCLoss, BNILoss, GAILoss
from depthbal.priors import GaussianMixture
from tests.shared import SHARED, needs_shared

pytestmark = needs_shared
CASES = [
    *itertools.product([""], ["gai", "bmc", "bni"], [0.2, 1.0, 3.0]),
    *itertools.product(["md_"], ["gai", "bmc"], [0.3, 1.0]),  # vectors
]


@pytest.fixture(scope="module")
def golden():
    with np.load(SHARED / "golden" / "published_losses.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


def make_loss(vectors: str, name: str, golden, **options):
    if name == "bmc":
        return BMCLoss(**options)
    if name == "gai":
        spread = "covariances" if vectors else "variances"
        parts = (golden[f"{vectors}gmm_{part}"] for part in ("weights", "means", spread))
        return GAILoss(GaussianMixture(*parts), **options)
    centers = golden["bin_centers"]
    prior = GaussianMixture(golden["bin_weights"], centers, torch.zeros_like(centers))
    return BNILoss(prior, **options)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("vectors", "name", "sigma"), CASES)
def test_float64_equals_the_published_formula_to_1e_10_and_float32_to_1e_5(
    vectors, name, sigma, golden, dtype
):
    options = {"init_noise_sigma": sigma, "noise": "learned", "event_dim": int(vectors == "md_")}
    loss = make_loss(vectors, name, golden, **options).to(dtype)
    with torch.no_grad():
        loss.noise.log_sigma.fill_(math.log(sigma))
    preds = golden[f"{vectors}pred"].to(dtype, copy=True).requires_grad_()
    value = loss(preds, golden[f"{vectors}target"].to(dtype))
    value.backward()
    stored = (golden[f"{vectors}{name}_sigma{sigma}_{part}"] for part in ("loss", "grad_sigma"))
    expected, expected_by_sigma = (part.item() for part in stored)
    # moved to the constants of this package
    if name == "bmc":
        expected -= 2 * sigma**2 * math.log(len(preds))
    if name == "bni":  # its weights enter unnormalised
        expected -= 2 * sigma**2 * golden["bin_weights"].sum().log().item()
    single = dtype == torch.float32
    rel, allowed = (1e-5, 1e-5 * abs(expected)) if single else (1e-10, 0.0)
    assert value.item() == pytest.approx(expected, rel=rel)
    by_sigma = loss.noise.log_sigma.grad.item() / loss.noise_sigma.item()
    assert by_sigma == pytest.approx(expected_by_sigma, rel=rel, abs=allowed)
    by_preds = golden[f"{vectors}{name}_sigma{sigma}_grad_pred"]
    largest = by_preds.abs().max().item()
    tolerance = {"rtol": 0, "atol": 1e-5 * largest} if single else {"rtol": 1e-10, "atol": 1e-13}
    torch.testing.assert_close(preds.grad.double(), by_preds, **tolerance)

"""Losses over ranks: one process with the joined batch is the truth."""

import pytest
import torch
import torch.distributed as dist

from depthbal.losses import BMCLoss, GAILoss, SILogLoss
from depthbal.priors import GaussianMixture
from tests.losses.checks import on_two_ranks

COUNT = 1500
SHARDS = (slice(0, 400), slice(400, COUNT))
PRIOR = GaussianMixture([0.7, 0.3], [4.0, 8.0], [1.0, 2.0])
CASES = [
    ("gai", torch.float64, 1.0, {}),
    ("silog", torch.float64, 1.0, {}),
    ("auto", torch.float64, 1.0, {}),
    ("auto", torch.float32, 1.0, {}),
    ("exact", torch.float64, 0.3, {}),
    ("grouped", torch.float64, 0.3, {"levels": 40}),
    ("binned", torch.float64, 0.5, {}),
    ("binned", torch.float64, 0.02, {"far": 5000.0}),  # too many cells to count them one by one
    ("binned", torch.float64, 0.5, {"hidden": SHARDS[0]}),
    ("grouped", torch.float64, 0.5, {"hidden": SHARDS[0]}),
    ("exact", torch.float64, 0.5, {"vectors": True}),
    ("grouped", torch.float64, 0.5, {"vectors": True, "hidden": SHARDS[1]}),
    ("auto", torch.float64, 0.5, {"memory": 2}),
]


def build(method, sigma, options):
    """Return a loss: BMC by one of its methods, or another one that is a mean over labels."""
    if method == "silog":
        return SILogLoss(0.8)
    learned = {"noise": "learned", "init_noise_sigma": sigma}
    if method == "gai":
        return GAILoss(PRIOR, **learned)
    if "memory" in options:
        learned |= {"memory": options["memory"], "label_range": (0.0, 10.0)}
    return BMCLoss(method=method, event_dim=int("vectors" in options), **learned)


def gradients(case, rows):
    """Value of the loss and gradients of a linear model and log sigma, on rows of the batch."""
    method, dtype, sigma, options = case
    generator = torch.Generator().manual_seed(0)
    shape = (COUNT, 2) if "vectors" in options else (COUNT,)
    feature = torch.randn(shape, generator=generator, dtype=torch.float64)
    target = 0.7 + 9.3 * torch.rand(shape, generator=generator, dtype=torch.float64) ** 2
    if "levels" in options:
        target = (target * options["levels"] / 10).round() * 10 / options["levels"]
    if "far" in options:
        target[700] = options["far"]
    mask = torch.rand(COUNT, generator=generator) < 0.8
    if "hidden" in options:
        mask[options["hidden"]] = False
    loss = build(method, sigma, options).to(dtype)
    leaves = (torch.tensor(1.3, dtype=dtype, requires_grad=True), *loss.parameters())
    feature, target, mask = feature[rows].to(dtype), target[rows].to(dtype), mask[rows]
    found = torch.zeros(3, dtype=torch.float64)
    for _ in range(2):  # the second step sees what a memory has kept of the first
        value = loss(target + leaves[0] * feature, target, mask)
        for i, part in enumerate((value.detach(), *torch.autograd.grad(value, leaves))):
            found[i] = part
    return found


def run_rank(rank):
    mean = torch.stack([gradients(case, SHARDS[rank]) for case in CASES])
    if rank == 0:  # no gradients: the other rank may have run out of batches
        with torch.no_grad():
            BMCLoss()(torch.zeros(5), torch.arange(5.0))
    preds, target = torch.arange(5.0) + rank, torch.arange(5.0) + 10 * rank
    alone = BMCLoss(gather=False, reduction="none")(preds.requires_grad_(), target)
    assert torch.isfinite(alone).all()
    dist.barrier()
    return mean


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return on_two_ranks(run_rank, tmp_path_factory.mktemp("ranks"), len(CASES), 3)


@pytest.mark.parametrize("index", range(len(CASES)))
def test_two_unequal_ranks_equal_one_process_with_the_joined_batch(results, index):
    expected = gradients(CASES[index], slice(None))
    tolerance = 1e-5 if CASES[index][1] == torch.float32 else 1e-9
    for rank in range(2):
        torch.testing.assert_close(results[rank, index], expected, rtol=tolerance, atol=tolerance)

"""Losses over ranks: one process with the joined batch is the truth."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from depthbal.losses import BMCLoss, GAILoss, GradientLoss, SILogLoss
from depthbal.priors import GaussianMixture, Histogram

COUNT = 1500
SHARDS = (slice(0, 400), slice(400, COUNT))
PRIOR = GaussianMixture([0.7, 0.3], [4.0, 8.0], [1.0, 2.0])
CASES = [
    ("gai", torch.float64, 1.0, {}),
    ("gai", torch.float64, 1.0, {"beyond": Histogram([0.7, 5.0, 10.0], [3, 1], beyond=2)}),
    ("silog", torch.float64, 1.0, {}),
    ("gradient", torch.float64, 1.0, {"maps": True}),
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
    if method in ("silog", "gradient"):
        return SILogLoss(0.8) if method == "silog" else GradientLoss((1, 2), space="label")
    learned = {"noise": "learned", "init_noise_sigma": sigma}
    if method == "gai":
        loss = GAILoss(PRIOR, label_range=(0.7, 10.0), **learned)
        if "beyond" in options:
            loss.set_beyond(options["beyond"])
        return loss
    if "memory" in options:
        learned |= {"memory": options["memory"], "label_range": (0.0, 10.0)}
    return BMCLoss(method=method, event_dim=int("vectors" in options), **learned)


def gradients(case, rows):
    """Value of the loss and gradients of a linear model and log sigma, on rows of the batch."""
    method, dtype, sigma, options = case
    generator = torch.Generator().manual_seed(0)
    shape = (COUNT, 2) if "vectors" in options else (COUNT, 3, 4) if "maps" in options else (COUNT,)
    feature = torch.randn(shape, generator=generator, dtype=torch.float64)
    target = 0.7 + 9.3 * torch.rand(shape, generator=generator, dtype=torch.float64) ** 2
    if "levels" in options:
        target = (target * options["levels"] / 10).round() * 10 / options["levels"]
    if "far" in options:
        target[700] = options["far"]
    chance = torch.rand(shape if "maps" in options else (COUNT,), generator=generator)
    mask, beyond = chance < 0.8, (chance > 0.9)[rows] if "beyond" in options else None
    if "hidden" in options:
        mask[options["hidden"]] = False
    loss = build(method, sigma, options).to(dtype)
    leaves = (torch.tensor(1.3, dtype=dtype, requires_grad=True), *loss.parameters())
    feature, target, mask = feature[rows].to(dtype), target[rows].to(dtype), mask[rows]
    found = torch.zeros(3, dtype=torch.float64)
    for _ in range(2):  # the second step sees what a memory has kept of the first
        value = loss(target + leaves[0] * feature, target, mask, beyond)
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


def start_rank(rank, init_file, results):
    dist.init_process_group("gloo", init_method=f"file://{init_file}", rank=rank, world_size=2)
    mean = run_rank(rank)
    dist.all_reduce(mean)
    results[rank] = mean / 2
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The mean over two processes as each of them has it."""
    results = torch.zeros(2, len(CASES), 3, dtype=torch.float64).share_memory_()
    given = str(tmp_path_factory.mktemp("ranks") / "rendezvous"), results
    mp.start_processes(start_rank, given, nprocs=2, start_method="fork")  # spawn imports all anew
    return results


@pytest.mark.parametrize("index", range(len(CASES)))
def test_two_unequal_ranks_equal_one_process_with_the_joined_batch(results, index):
    expected = gradients(CASES[index], slice(None))
    tolerance = 1e-5 if CASES[index][1] == torch.float32 else 1e-9
    for rank in range(2):
        torch.testing.assert_close(results[rank, index], expected, rtol=tolerance, atol=tolerance)

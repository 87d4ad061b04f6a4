"""BMC over ranks: one process with the joined batch is the truth."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from depthbal.losses import BMCLoss

COUNT = 1500
SHARDS = (slice(0, 400), slice(400, COUNT))
NONE_ON_THE_FIRST = "nothing counts on the first rank"
CASES = [
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


def gradients(case, rows):
    """Gradients of a linear model, log sigma, and the prior's size, on some rows of the batch."""
    method, dtype, sigma, options = case
    generator = torch.Generator().manual_seed(0)
    size = 2 if options.get("vectors") else 1
    feature = torch.randn(COUNT, size, generator=generator, dtype=torch.float64)
    target = 0.7 + 9.3 * torch.rand(COUNT, size, generator=generator, dtype=torch.float64) ** 2
    if "levels" in options:
        target = (target * options["levels"] / 10).round() * 10 / options["levels"]
    if "far" in options:
        target[700] = options["far"]
    mask = torch.rand(COUNT, generator=generator) < 0.8
    if "hidden" in options:
        mask[options["hidden"]] = False
    if size == 1:
        feature, target = feature[:, 0], target[:, 0]
    memory = (
        {"memory": options["memory"], "label_range": (0.0, 10.0)} if "memory" in options else {}
    )
    loss = BMCLoss(
        method=method, init_noise_sigma=sigma, noise="learned", event_dim=size - 1, **memory
    ).to(dtype)
    weight = torch.tensor(1.3, dtype=dtype, requires_grad=True)
    feature, target, mask = feature[rows].to(dtype), target[rows].to(dtype), mask[rows]
    for _ in range(2):  # the second step sees what a memory has kept of the first
        weight.grad = loss.noise.log_sigma.grad = None
        value = loss(target + weight * feature, target, mask)
        value.backward()
    return torch.stack([value.detach(), weight.grad, loss.noise.log_sigma.grad]).double()


def run_rank(rank, init_file, results):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{init_file}", rank=rank, world_size=2)
    for case, result in zip(CASES, results[:, rank], strict=True):
        mean = gradients(case, SHARDS[rank])
        dist.all_reduce(mean)
        result.copy_(mean / 2)
    if rank == 0:  # no gradients: the other rank may have run out of batches
        with torch.no_grad():
            BMCLoss()(torch.zeros(5), torch.arange(5.0))
    preds, target = torch.arange(5.0) + rank, torch.arange(5.0) + 10 * rank
    alone = BMCLoss(gather=False, reduction="none")(preds.requires_grad_(), target)
    results[0, rank, 0] += torch.zeros(()).where(torch.isfinite(alone).all(), torch.tensor(1e9))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    shared = torch.zeros(len(CASES), 2, 3, dtype=torch.float64).share_memory_()
    init_file = tmp_path_factory.mktemp("ranks") / "rendezvous"
    mp.spawn(run_rank, args=(str(init_file), shared), nprocs=2)
    return shared


@pytest.mark.parametrize("index", range(len(CASES)))
def test_two_unequal_ranks_equal_one_process_with_the_joined_batch(results, index):
    expected = gradients(CASES[index], slice(None))
    tolerance = 1e-5 if CASES[index][1] == torch.float32 else 1e-9
    for rank in range(2):
        torch.testing.assert_close(results[index, rank], expected, rtol=tolerance, atol=tolerance)

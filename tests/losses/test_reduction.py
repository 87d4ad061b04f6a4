"""Masked means over ranks."""

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from depthbal.losses import GAILoss
from depthbal.priors import GaussianMixture

SHARDS = ((0, 5), (5, 40))


def problem():
    generator = torch.Generator().manual_seed(0)
    feature = torch.randn(40, 3, generator=generator, dtype=torch.float64)
    target = 5 + 2 * torch.randn(40, generator=generator, dtype=torch.float64)
    mask = torch.rand(40, generator=generator) < 0.7
    weight = torch.tensor([1.0, -1.0, 0.5], dtype=torch.float64, requires_grad=True)
    loss = GAILoss(GaussianMixture([0.7, 0.3], [4.0, 8.0], [1.0, 2.0]), noise="learned").double()
    return feature, target, mask, weight, loss


def gradients(rows: slice) -> torch.Tensor:
    feature, target, mask, weight, loss = problem()
    loss(feature[rows] @ weight, target[rows], mask[rows]).backward()
    return torch.cat([weight.grad, loss.noise.log_sigma.grad[None]])


def rank_gradients(rank: int, init_file: str, results) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{init_file}", rank=rank, world_size=2)
    mean = gradients(slice(*SHARDS[rank]))
    dist.all_reduce(mean)
    results[rank] = mean / 2
    dist.destroy_process_group()


def test_gradients_averaged_over_two_unequal_ranks_equal_those_of_the_joint_batch(tmp_path):
    results = torch.zeros(2, 4, dtype=torch.float64).share_memory_()
    mp.spawn(rank_gradients, args=(str(tmp_path / "rendezvous"), results), nprocs=2)
    expected = gradients(slice(0, 40))
    torch.testing.assert_close(results[0], expected)
    torch.testing.assert_close(results[1], expected)

"""Two processes train one step to the same parameters as one on the joined batch."""

import os
from pathlib import Path

import pytorch_lightning as pl
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from depthbal.training.random_states import RandomStates
from lightning_fabric.plugins.environments.lightning import find_free_network_port
from torch import nn
from torch.utils.data import DataLoader, Dataset

from depthbal.losses import GAILoss
from depthbal.priors import GaussianMixture
from depthbal.training.task import DepthTask

IMAGES = 4


class Sgd:
    """A large step, so that a wrong weight between the processes would show."""

    def __call__(self, parameters) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=0.1)


class UnequalMasks(Dataset):
    """Images whose share of valid pixels grows from 1/8 to all."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randn(IMAGES, 3, 8, 8, generator=generator)
        self.depth = 1 + 8 * torch.rand(IMAGES, 1, 8, 8, generator=generator)
        for index, rows in enumerate((1, 3, 5, 8)):
            self.depth[index, :, rows:] = 0

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, index: int) -> dict:
        return {"image": self.images[index], "depth": self.depth[index]}


def fresh_task() -> DepthTask:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 1))
    prior = GaussianMixture([0.7, 0.3], [2.0, 6.0], [0.5, 2.0])
    return DepthTask(network, GAILoss(prior, noise="learned"), optimizer=Sgd())


def train_one_step(devices: int = 1) -> dict[str, torch.Tensor]:
    task = fresh_task()
    loader = DataLoader(UnequalMasks(), batch_size=IMAGES // devices)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        max_steps=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[RandomStates()],
    )
    trainer.fit(task, loader)
    return {name: value.detach().clone() for name, value in task.named_parameters()}


def train_rank(rank: int, port: int, out: str) -> None:
    """One of two processes that a launcher such as torchrun has started."""
    torch.set_num_threads(1)
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ.update(address | ranks | {"TORCHELASTIC_RUN_ID": "test"})
    parameters = train_one_step(devices=2)
    if rank == 0:
        torch.save(parameters, out)
    # gloo's threads abort an interpreter that ends while they still wait for the other process
    dist.barrier()
    dist.destroy_process_group()


def train_together(out: Path) -> dict[str, torch.Tensor]:
    mp.spawn(train_rank, args=(find_free_network_port(), str(out)), nprocs=2)
    return torch.load(out, weights_only=True)


def naive_step() -> dict[str, torch.Tensor]:
    """The step of the mean over processes of each one's own masked mean: what must not happen."""
    task, data = fresh_task(), UnequalMasks()
    for rank in (0, 1):  # a distributed sampler deals the images out in turn
        batch = {"image": data.images[rank::2], "depth": data.depth[rank::2]}
        (task.compute_loss(batch) / 2).backward()
    task.configure_optimizers().step()
    return dict(task.named_parameters())


def test_two_processes_equal_one_on_the_joined_batch(tmp_path):
    alone, together, naive = train_one_step(), train_together(tmp_path / "rank0.pt"), naive_step()
    assert "criterion.noise.log_sigma" in alone
    assert alone.keys() == together.keys()
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, rtol=1e-5, atol=1e-6, msg=name)
    assert not torch.allclose(naive["model.0.weight"], alone["model.0.weight"], atol=1e-4)

"""Two processes collect the statistics that one collects over all images."""

import os

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from lightning_fabric.plugins.environments.lightning import find_free_network_port
from torch import nn
from torch.utils.data import DataLoader

from depthbal.training import FeatureSmoothing
from tests.training.test_feature_smoothing import EDGES, Depths, depth_task, fit


def statistics(devices: int = 1) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 1))
    fds = FeatureSmoothing(edges=EDGES)
    loader = DataLoader(Depths(), batch_size=6 // devices)
    strategy = "ddp" if devices > 1 else "auto"
    fit(depth_task(net), fds, loader=loader, epochs=2, devices=devices, strategy=strategy)
    return fds.state_dict()


def one_rank(rank: int, port: int, out: str) -> None:
    torch.set_num_threads(1)
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ.update(address | ranks | {"TORCHELASTIC_RUN_ID": "test"})
    torch.save(statistics(devices=2), f"{out}.{rank}")
    dist.barrier()
    dist.destroy_process_group()


def test_two_processes_have_the_statistics_of_one_on_all_images(tmp_path):
    alone, out = statistics(), str(tmp_path / "state")
    mp.spawn(one_rank, args=(find_free_network_port(), out), nprocs=2)
    for rank in (0, 1):
        together = torch.load(f"{out}.{rank}", weights_only=True)
        assert together.keys() == alone.keys()
        for name, value in alone.items():
            torch.testing.assert_close(together[name], value, rtol=1e-5, atol=1e-6, msg=name)

"""Trainings by two processes, as a launcher such as torchrun starts them."""

import os

import torch.multiprocessing as mp
from lightning_fabric.plugins.environments.lightning import find_free_network_port
from lightning_utilities.core.rank_zero import rank_zero_only


def in_two_processes(train, *arguments):
    """Call a function of a module with these arguments and those of `--trainer` for two ranks."""
    given = find_free_network_port(), train, arguments
    mp.start_processes(_one_rank, given, nprocs=2, start_method="fork")  # spawn imports all anew


def _one_rank(rank, port, train, arguments):
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ.update(address | ranks | {"TORCHELASTIC_RUN_ID": "test"})
    rank_zero_only.rank = rank  # torchrun sets RANK before the import that reads it
    train(*arguments, "--trainer.devices=2", "--trainer.strategy=ddp")

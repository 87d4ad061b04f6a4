"""Two processes train together; what they report is what one process finds in their checkpoint."""

import json
import os
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from lightning_fabric.plugins.environments.lightning import find_free_network_port
from pytorch_lightning.utilities import rank_zero_only

from depthbal.adapters.hmr.datamodule import HmrDataModule
from depthbal.adapters.hmr.evaluation import evaluate_network
from depthbal.adapters.hmr.network import SpinNetwork
from depthbal.adapters.hmr.synthetic import write_synthetic
from depthbal.training.runs import RunFolder
from depthbal.training.tool import run_tool
from tests.training.helpers import checkpoint_of
from tools.train_hmr import CONFIGS, main


def train_rank(rank: int, ports: SimpleQueue[int], line: list[str]) -> None:
    """One of two processes that a launcher such as torchrun has started."""
    torch.set_num_threads(1)
    # chosen here, after the seconds that imports take, so that nobody takes it before it is used
    port = ports.get() if rank else find_free_network_port()
    if rank == 0:
        ports.put(port)
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ.update(address | ranks | {"TORCHELASTIC_RUN_ID": "test"})
    rank_zero_only.rank = rank  # torchrun sets RANK before the import that reads it
    assert run_tool(main, line) == 0


def about(content: Any) -> Any:
    """Return what equals nested results whose floats differ in the sixth digit."""
    if isinstance(content, dict):
        return {key: about(part) for key, part in content.items()}
    if isinstance(content, list):
        return [about(part) for part in content]
    return pytest.approx(content, rel=1e-5) if isinstance(content, float) else content


def numbers(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return the results without what says how they came about."""
    return {key: content for key, content in metrics.items() if key != "protocol"}


def test_two_processes_train_and_report_what_one_finds_in_their_checkpoint(tmp_path: Path) -> None:
    root = write_synthetic(tmp_path / "data", rows={"lsp": 31, "mpi_inf_3dhp": 41}, test_rows=21)
    run = RunFolder(tmp_path / "run")
    line = ["--config", str(CONFIGS / "paper.yaml"), "--data.root", str(root)]
    line += ["--model.model.init_args.features=64", "--model.prior_rows=200"]
    line += ["--data.batch_size=8", "--data.num_workers=0", "--trainer.max_epochs=1"]
    line += ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp"]
    ports = mp.get_context("spawn").SimpleQueue()
    mp.spawn(train_rank, args=(ports, [*line, "--out", str(run.path)]), nprocs=2)

    together = json.loads(run.metrics().read_text())
    assert together["overall"]["count"] == 21  # nobody twice, nobody left out
    weights = checkpoint_of(run.path)["state_dict"]
    network = SpinNetwork(features=64)
    parts = {name.removeprefix("model."): value for name, value in weights.items()}
    network.load_state_dict({name: parts[name] for name in network.state_dict()})
    data = HmrDataModule(str(root), batch_size=8, num_workers=0, mixing="published")
    data.setup("test")
    data.use_backbone(None)
    alone = evaluate_network(run, network, data, {"name": "3dpw"})
    # of other batches, on other threads: sums differ in the last digit
    assert numbers(alone) == about(numbers(together))

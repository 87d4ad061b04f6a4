"""Two processes train, validate and re-train ages; what they leave scores the same in one."""

import csv
import json
import os
from multiprocessing import forkserver
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from lightning_fabric.plugins.environments.lightning import find_free_network_port
from lightning_utilities.core.rank_zero import rank_zero_only

from depthbal.training.runs import open_run
from depthbal.training.train import train
from tests.adapters.age.helpers import NETWORK, OddAges, tiny_config, weights_of


def one_rank(rank: int, port: int, folder: Path, out: Path, arguments: list[str]) -> None:
    """One of two processes that a launcher such as torchrun has started."""
    torch.set_num_threads(1)
    rank_zero_only.rank = rank  # what Lightning reads from the launcher when it is imported
    ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test"}
    os.environ.update({**ranks, **address, "XDG_CACHE_HOME": str(folder / "cache")})
    train([*arguments, "--trainer.devices=2", "--trainer.strategy=ddp"], out=str(out))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A plain training over two processes, and a re-training of its head over two."""
    folder = tmp_path_factory.mktemp("ddp")
    runs = {name: folder / name for name in ("vanilla", "gai")}
    config = tiny_config(folder / "tiny.yaml", class_path="tests.adapters.age.helpers.OddAges")
    more = [*NETWORK, "--trainer.max_epochs=1", "--trainer.accelerator=cpu"]
    more += ["--data=tests.adapters.age.helpers.OddAges", "--trainer.precision=32-true"]
    again = ["--config", "age/rrt_gai", f"--model.weights_from={runs['vanilla']}", *more]
    forkserver._forkserver._stop()
    mp.set_forkserver_preload([__name__])  # imported once: most of the time is for imports
    try:
        for name, line in (("vanilla", ["--config", str(config)]), ("gai", again)):
            rest = (find_free_network_port(), folder, runs[name], line)
            mp.start_processes(one_rank, args=rest, nprocs=2, start_method="forkserver")
    finally:  # later tests start a server of their own
        forkserver._forkserver._stop()
        mp.set_forkserver_preload(["__main__"])
    return runs


@pytest.mark.parametrize("name", ["vanilla", "gai"])
def test_validation_and_test_of_two_processes_are_those_of_one(name, runs):
    task, data = open_run(runs[name]).task(), OddAges()
    data.setup()
    for split, loader in (("val", data.val_dataloader()), ("test", data.test_dataloader())):
        scores = task.make_scores(data, split)
        with torch.no_grad():
            for batch in loader:
                task.score(batch, scores)
        result = scores.compute()
        assert result["overall"]["count"] == 39
        if split == "val":
            with (runs[name] / "metrics.csv").open() as file:
                (row,) = (row for row in csv.DictReader(file) if row["val/bmae"])
            for metric, value in task.validation_metrics(result).items():
                assert float(row[metric]) == pytest.approx(value, rel=1e-5)
        else:
            stored = json.loads((runs[name] / "metrics.json").read_text())
            for group in ("overall", "medium", "few"):
                assert stored[group] == pytest.approx(result[group], rel=1e-5)


def test_the_backbone_that_two_processes_share_stays_bit_identical(runs):
    mine, theirs = weights_of(runs["gai"]), weights_of(runs["vanilla"])
    shared = [name for name in mine if name.startswith("model.backbone.")]
    assert any("running_var" in name for name in shared)
    assert all(torch.equal(mine[name], theirs[name]) for name in shared)
    assert not torch.equal(mine["model.head.weight"], theirs["model.head.weight"])

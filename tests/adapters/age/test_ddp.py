"""Two processes train, validate and re-train ages; what they leave scores the same in one."""

import csv
import json
import os
import shutil
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from lightning_fabric.plugins.environments.lightning import find_free_network_port
from lightning_utilities.core.rank_zero import rank_zero_only
from numpy.typing import NDArray

from depthbal import load_predictor
from depthbal.adapters.age import evaluate_age
from depthbal.adapters.age.command import run as command
from depthbal.adapters.age.data import SplitName
from depthbal.adapters.age.task import AgeValidation
from tests.adapters.age.helpers import CONFIGS, GreyAges, tiny_config, weights_of


class OddAges(GreyAges):
    """As many validation images as two processes cannot share evenly: one batch is padded."""

    def labels(self, split: SplitName) -> NDArray[np.float64]:
        labels = super().labels(split)
        return labels if split == "train" else labels[:-1]


def one_rank(rank: int, port: int, folder: Path, arguments: list[str]) -> None:
    """One of two processes that a launcher such as torchrun has started."""
    torch.set_num_threads(1)
    rank_zero_only.rank = rank  # what Lightning reads from the launcher when it is imported
    ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test"}
    os.environ.update({**ranks, **address, "XDG_CACHE_HOME": str(folder / "cache")})
    os.environ.pop("DEPTHBAL_RUN", None)
    more = ["--trainer.max_epochs=1", "--trainer.devices=2", "--trainer.strategy=ddp"]
    command([*arguments, *more], CONFIGS / "unused.py", CONFIGS)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A plain training over two processes, and a re-training of its head over two."""
    folder = tmp_path_factory.mktemp("ddp")
    runs = {name: folder / name for name in ("vanilla", "gai")}
    config = tiny_config(folder / "tiny.yaml", data={"class_path": f"{__name__}.OddAges"})
    base = ["--config", CONFIGS / "rrt_gai.yaml", "--base", runs["vanilla"]]
    forkserver._forkserver._stop()
    mp.set_forkserver_preload([__name__])  # imported once: most of the time is for imports
    try:
        for name, start in (("vanilla", ["--config", config]), ("gai", base)):
            line = [str(part) for part in (*start, "--out", runs[name])]
            rest = (find_free_network_port(), folder, line)
            mp.start_processes(one_rank, args=rest, nprocs=2, start_method="forkserver")
    finally:  # later tests start a server of their own
        forkserver._forkserver._stop()
        mp.set_forkserver_preload(["__main__"])
    return runs


def flat(content: Any, rough: bool, name: str = "") -> dict[str, Any]:
    """Return every value of a JSON file by its place, numbers to be compared exactly or roughly."""
    if isinstance(content, dict | list):
        items = content.items() if isinstance(content, dict) else enumerate(content)
        parts = (flat(value, rough, f"{name}/{key}") for key, value in items)
        return {place: value for part in parts for place, value in part.items()}
    if rough and isinstance(content, float):
        content = pytest.approx(content, rel=1e-5, abs=1e-5)
    return {name: content}


@pytest.mark.parametrize("name", ["vanilla", "gai"])
def test_the_evaluation_after_two_processes_is_that_of_one(name, runs, tmp_path):
    copy = shutil.copytree(runs[name], tmp_path / "run")
    alone = evaluate_age(copy, OddAges())
    assert alone["overall"]["count"] == 39
    here, there = (np.load(run / "per_image.npz") for run in (copy, runs[name]))
    assert here.files == there.files
    # this process computes with as many threads as it likes, each of the two did with one
    mine = json.loads((copy / "metrics.json").read_text())
    theirs = json.loads((runs[name] / "metrics.json").read_text())
    assert flat(mine, rough=False) == flat(theirs, rough=True)


@pytest.mark.parametrize("name", ["vanilla", "gai"])
def test_the_validation_of_two_processes_is_that_of_one(name, runs):
    data = OddAges()
    data.setup()
    predictor, validation = load_predictor(runs[name]), AgeValidation(data.bins())
    for batch in data.val_dataloader():
        with torch.no_grad():
            read = predictor(batch["image"])
        validation.update(read["mean"], batch["label"])
    with (runs[name] / "metrics.csv").open() as file:
        (row,) = (row for row in csv.DictReader(file) if row["val/bmae"])
    for metric, value in validation.compute().items():
        assert float(row[metric]) == pytest.approx(value, rel=1e-5)


def test_the_backbone_that_two_processes_share_stays_bit_identical(runs):
    mine, theirs = weights_of(runs["gai"]), weights_of(runs["vanilla"])
    shared = [name for name in mine if name.startswith("model.backbone.")]
    assert any("running_var" in name for name in shared)
    assert all(torch.equal(mine[name], theirs[name]) for name in shared)
    assert not torch.equal(mine["model.head.weight"], theirs["model.head.weight"])

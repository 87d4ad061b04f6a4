"""Heights of roofs from pictures: an application that depthbal knows nothing of, in sixty lines.

Dense maps of metres from 0 to 60, where 0 is a height like any other and -1 means unknown.
"""

import inspect
import json

import cv2
import numpy as np
import pytest
import torch
import yaml

from depthbal import load_predictor
from depthbal.data.dataset import SeededDataset
from depthbal.data.label_data import LabelData
from depthbal.data.loader import PADDING
from depthbal.evaluation import Label, LabelBins, Scores
from depthbal.training import Task, open_run
from tests.training.helpers import command, logged

# ---- the application ----


class Roofs(SeededDataset):
    """Pictures of roofs on the ground, the brighter the higher."""

    def __init__(self, number: int, first: int) -> None:
        super().__init__()
        self.number, self.first = number, first

    def __len__(self) -> int:
        return self.number

    def sample(self, index: int, seed: int) -> dict:
        rng = np.random.default_rng(self.first + index)
        height = np.zeros((24, 32), np.float32)
        for _ in range(6):
            top, left = rng.integers(0, 20), rng.integers(0, 26)
            height[top : top + 8, left : left + 8] = min(rng.exponential(15), 60)
        image = height[None].repeat(3, 0) / 60 + rng.normal(0, 0.05, (3, 24, 32))
        height[:2] = -1  # the satellite has not seen it
        return {
            "image": torch.from_numpy(image.astype(np.float32)),
            "height": torch.from_numpy(height)[None],
            "index": index,
            "name": f"tile {self.first + index}",
            "group": f"city {index % 2}",
        }

    def padding(self) -> dict:
        return {**self[0], "index": PADDING}


class Cities(LabelData):
    """Tiles of cities, drawn."""

    label = Label("height", "m", (0.0, 60.0))

    def __init__(self, tiles: int = 12, batch_size: int = 4, num_workers: int = 0, seed: int = 0):
        super().__init__(batch_size, num_workers, seed)
        self.tiles = tiles

    def dataset(self, split):
        return Roofs(self.tiles, 1000 * ("train", "val", "test").index(split))

    def labels(self, split):
        maps = (self.dataset(split)[index]["height"] for index in range(self.tiles))
        return (height[height >= 0] for height in maps)

    def bins(self):
        counts = self.train_histogram().counts.reshape(-1, 5).sum(1)
        return LabelBins(np.arange(0, 61, 3), np.where(counts > 300, "many", "few").tolist())


class HeightTask(Task):
    """Two methods."""

    def predict(self, batch):
        return self.model(batch["image"])

    def target(self, batch):
        return batch["height"], batch["height"] >= 0


# ---- what it gets for them ----


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("heights")
    network = {"class_path": "torch.nn.Conv2d"}
    network["init_args"] = {"in_channels": 3, "out_channels": 1, "kernel_size": 1}
    loss = {"class_path": "depthbal.losses.GAILoss"}
    loss["init_args"] = {"n_components": 2, "noise": "learned", "label_range": [0.0, 60.0]}
    optimizer = {"class_path": "torch.optim.Adam", "init_args": {"lr": 1.0}}
    task = {"model": network, "criterion": loss, "optimizer": optimizer}
    config = {
        "trainer": {"max_epochs": 3, "accelerator": "cpu", "devices": 1, "log_every_n_steps": 1},
        "model": {"class_path": f"{__name__}.HeightTask", "init_args": task},
        "data": {"class_path": f"{__name__}.Cities"},
    }
    (folder / "heights.yaml").write_text(yaml.safe_dump(config))
    line = ["--config", folder / "heights.yaml", "--out", folder / "run"]
    assert command("train", *line) == 0
    return folder / "run"


def test_the_application_is_less_than_sixty_lines():
    parts = (Roofs, Cities, HeightTask)
    assert sum(len(inspect.getsourcelines(part)[0]) for part in parts) < 60


def by_hand(run):
    """Raw predictions and heights of all test pixels that are known."""
    network = open_run(run).task().model
    samples = [Roofs(12, 2000)[index] for index in range(12)]
    with torch.no_grad():
        preds = torch.stack([network(sample["image"][None])[0] for sample in samples])
    height = torch.stack([sample["height"] for sample in samples])
    return preds[height >= 0].double().numpy(), height[height >= 0].double().numpy()


def test_it_is_trained_and_scored_per_bin_with_zero_as_a_height(run, capsys):
    metrics = json.loads((run / "metrics.json").read_text())
    preds, height = by_hand(run)
    assert (height == 0).any()
    raw = metrics["readout"]["raw"]
    assert raw["overall"]["count"] == len(height) == 12 * 22 * 32
    assert raw["overall"]["mae"] == pytest.approx(np.abs(preds - height).mean(), rel=1e-5)
    ground = metrics["bins"][0]
    assert (ground["from"], ground["to"], ground["shot"]) == (0.0, 3.0, "many")
    assert ground["count"] == (height < 3).sum()
    assert metrics["few"]["count"] > 0
    protocol = metrics["protocol"]
    assert protocol["label"] == {"name": "height", "unit": "m", "range": [0.0, 60.0]}
    assert protocol["data"]["class"] == "Cities"
    assert metrics["calibration"]["all"]["overall"]["count"] == len(height)
    losses = [float(row["train/loss_epoch"]) for row in logged(run) if row["train/loss_epoch"]]
    assert losses[-1] < losses[0]
    scores = Scores.load(run)
    assert scores.names[3] == "tile 2003"
    assert set(scores.groups) == {"city 0", "city 1"}
    assert open_run(run).histogram().total == 12 * 22 * 32  # zeros are counted


def test_it_is_evaluated_reported_and_predicted(run, tmp_path, capsys):
    assert command("evaluate", run, "--checkpoint", "best", "--device", "cpu") == 0
    assert "Height in m, read-out mean" in capsys.readouterr().out
    assert (run / "eval" / "best" / "metrics.json").is_file()
    assert command("evaluate", run, "--protocol", "eigen") == 2
    assert "scored by default" in capsys.readouterr().err
    assert command("report", run, run / "eval" / "best", "--out", tmp_path / "both.html") == 0
    assert "height" in (tmp_path / "both.html").read_text(encoding="utf-8").lower()
    picture = np.full((30, 40, 3), 128, np.uint8)
    cv2.imwrite(str(tmp_path / "tile.png"), picture)
    arguments = [tmp_path / "tile.png", "--out", tmp_path, "--device", "cpu"]
    assert command("predict", run, *arguments) == 0
    written = cv2.imread(str(tmp_path / "tile_height.png"), cv2.IMREAD_UNCHANGED) / 1000
    predictor = load_predictor(run)  # all of it is torch's and depthbal's
    assert (predictor.label.name, predictor.label.unit) == ("height", "m")
    np.testing.assert_allclose(written, predictor.predict(picture), atol=6e-4)
    assert 0 <= written.min() <= written.max() <= 60

"""Heights of roofs from pictures: an application that depthbal knows nothing of, in sixty lines.

Dense maps of metres from 0 to 60, where 0 is a height like any other and -1 means unknown: the code
of docs/howto/own_task.md.
"""

import inspect
import json
import sys

import cv2
import numpy as np
import pytest
import torch

from depthbal import load_predictor
from depthbal.evaluation import Scores
from depthbal.training import open_run
from tests.documents import command_lines, write_files
from tests.training.helpers import command, logged

PAGE = "docs/howto/own_task.md"
PICTURE = np.full((30, 40, 3), 128, np.uint8)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Train as the page says, and predict a picture."""
    folder = tmp_path_factory.mktemp("heights")
    with pytest.MonkeyPatch.context() as patch:
        write_files(PAGE, folder, patch)
        cv2.imwrite("roofs.png", PICTURE)
        train, predict = command_lines(PAGE)
        cpu = ["--trainer.accelerator=cpu", "--trainer.devices=1"]
        assert command(*train, *cpu, "--data.tiles=12") == 0
        assert command(*predict, "--device", "cpu") == 0
        yield folder / "runs" / "heights"


def test_the_application_is_less_than_sixty_lines(run):
    heights = sys.modules["heights"]
    parts = (heights.Roofs, heights.Cities, heights.HeightTask)
    assert sum(len(inspect.getsourcelines(part)[0]) for part in parts) < 60


def by_hand(run):
    """Raw predictions and heights of all test pixels that are known."""
    network = open_run(run).task().model
    samples = [sys.modules["heights"].Roofs(12, 2000)[index] for index in range(12)]
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
    written = cv2.imread(str(run.parents[1] / "roofs_height.png"), cv2.IMREAD_UNCHANGED) / 1000
    predictor = load_predictor(run)  # all of it is torch's and depthbal's
    assert (predictor.label.name, predictor.label.unit) == ("height", "m")
    np.testing.assert_allclose(written, predictor.predict(PICTURE), atol=6e-4)
    assert 0 <= written.min() <= written.max() <= 60

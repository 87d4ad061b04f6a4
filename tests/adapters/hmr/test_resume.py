"""A training that was interrupted and goes on ends where the uninterrupted one does."""

from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from depthbal.adapters.hmr.synthetic import write_synthetic
from depthbal.adapters.hmr.task import HmrTask
from depthbal.training.tool import run_tool
from tests.training.helpers import checkpoint_of, same_weights
from tools.train_hmr import CONFIGS, main

STEP = HmrTask.training_step


def step_or_ctrl_c(task: HmrTask, batch: Any, batch_idx: int) -> Tensor:
    if (task.current_epoch, batch_idx) == (1, 1):
        raise KeyboardInterrupt
    return STEP(task, batch, batch_idx)


def test_an_interrupted_training_resumes_to_the_weights_of_the_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_synthetic(tmp_path / "data", rows={"lsp": 30, "coco": 40}, test_rows=20)
    line = ["--config", str(CONFIGS / "paper.yaml"), "--data.root", str(root)]
    line += ["--model.model.init_args.features=64", "--model.prior_rows=200"]
    line += ["--data.batch_size=8", "--data.num_workers=0", "--trainer.max_epochs=2"]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert run_tool(main, [*line, "--out", str(whole)]) == 0, capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setattr(HmrTask, "training_step", step_or_ctrl_c)
        assert run_tool(main, [*line, "--out", str(stopped)]) == 130
    assert f"tools/train_hmr.py --resume {stopped}" in capsys.readouterr().err
    assert checkpoint_of(stopped)["epoch"] == 0
    assert run_tool(main, ["--resume", str(stopped)]) == 0, capsys.readouterr().err
    assert checkpoint_of(stopped)["epoch"] == 1
    assert same_weights(whole, stopped)
    results = [(run / "metrics.json").read_text() for run in (whole, stopped)]
    assert results[0] == results[1]

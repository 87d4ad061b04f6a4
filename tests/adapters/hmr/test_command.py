"""The command from beginning to end, on little data and one epoch."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from depthbal.adapters.hmr import comparison
from depthbal.adapters.hmr.smpl_files import synthetic_smpl
from depthbal.adapters.hmr.synthetic import write_synthetic
from depthbal.training.tool import run_tool
from depthbal.training.train import train
from tools.train_hmr import CONFIGS, main

ROWS = {"coco": 64}


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the comparison's trainings a second long."""
    less = {"--trainer.max_epochs": "1", "--model.prior_rows": "300"}
    monkeypatch.setattr(comparison, "SYNTHETIC", comparison.SYNTHETIC | less)
    monkeypatch.setattr(
        comparison, "write_synthetic", lambda root, seed: write_synthetic(root, seed, ROWS, 60)
    )


@pytest.mark.usefixtures("little")
def test_the_default_command_leaves_data_two_runs_a_table_and_a_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run_tool(main, ["--out", str(out)]) == 0, capsys.readouterr().err
    names = {"data", "mse", "gai", "table.json", "report.html", "report.md"}
    assert {path.name for path in out.iterdir()} == names
    table = json.loads((out / "table.json").read_text())
    assert list(table) == ["mse", "gai"]
    for row in (table["mse"], table["gai"]):
        for name in ("mpjpe", "pa_mpjpe", "mpvpe"):
            assert row[name] > 0
            assert set(row[f"b{name}"]) == {"all", "tail10", "tail5"}
    report = (out / "report.html").read_text()
    assert "distance to the mean pose" in report
    for run in ("mse", "gai"):
        metrics = json.loads((out / run / "metrics.json").read_text())
        assert metrics["overall"]["mpjpe"] == table[run]["mpjpe"]
    assert json.loads((out / "gai" / "prior.json").read_text())["kind"] == "GaussianMixture"
    shown = capsys.readouterr().out
    assert "tail 10 %" in shown
    assert run_tool(main, ["--out", str(out)]) == 2
    assert "exists and is not empty" in capsys.readouterr().err


@pytest.mark.usefixtures("little")
def test_several_seeds_leave_their_medians_and_go_on_after_an_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["--seeds", "0", "3", "--out", str(out)]
    trained = []

    def train_and_stop(*arguments: Any) -> None:
        if len(trained) == 3:
            raise KeyboardInterrupt
        trained.append(train(*arguments))

    with monkeypatch.context() as patch:
        patch.setattr(comparison, "train", train_and_stop)
        assert run_tool(main, command) == 130
    before = (out / "gai-0" / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    assert not (out / "table.json").exists()
    assert not (out / "gai-3").exists()
    assert run_tool(main, command) == 0, capsys.readouterr().err
    assert (out / "gai-0" / "checkpoints" / "last.ckpt").stat().st_mtime_ns == before
    table, *single = (
        json.loads((out / f"table{seed}.json").read_text()) for seed in ("", "-0", "-3")
    )
    assert single[0] != single[1]
    for run in ("mse", "gai"):
        tails = [found[run]["bmpvpe"]["tail10"] for found in single]
        assert table[run]["bmpvpe"]["tail10"] == pytest.approx(sum(tails) / 2)
        assert table[run]["pa_mpjpe"] == pytest.approx(sum(f[run]["pa_mpjpe"] for f in single) / 2)
    shown = capsys.readouterr().out
    lower = sum(f["gai"]["bmpjpe"]["tail10"] < f["mse"]["bmpjpe"]["tail10"] for f in single)
    assert f"\nMPJPE of the farthest 10 %: gai is below mse in {lower} of 2 seeds" in shown
    report = (out / "report.md").read_text()
    assert all(f"{run}-{seed}" in report for run in ("mse", "gai") for seed in (0, 3))
    comparison.SYNTHETIC["--trainer.max_epochs"] = "2"
    assert run_tool(main, command) == 2
    assert "trained with other settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("mode", "unused"),
    [
        (["--seeds", "0", "1"], ["--trainer.max_epochs", "1"]),
        (["--check", "."], ["--nonsense"]),
        (["--check", "."], ["--out", "elsewhere"]),
        (["--check", "."], ["--density", "d.png"]),
        (["--check", "."], ["--seed", "0"]),
        (["--density", "d.png"], ["--out", "elsewhere.png"]),
        (["--density", "d.png"], ["--seeds", "0"]),
        (["--density", "d.png", "--data.root", "."], ["--seed", "1"]),
    ],
)
def test_what_a_mode_would_not_use_is_refused(
    capsys: pytest.CaptureFixture[str], mode: list[str], unused: list[str]
) -> None:
    assert run_tool(main, [*mode, *unused]) == 2
    assert f"{mode[0]} does not use {unused[0]}" in capsys.readouterr().err


@pytest.mark.parametrize("preset", ["published"])
def test_a_preset_trains_on_a_folder_of_spins_files(tmp_path: Path, preset: str) -> None:
    root = write_synthetic(tmp_path / "data", rows={"lsp": 40, "coco": 40}, test_rows=20)
    arguments = ["--config", str(CONFIGS / f"{preset}.yaml"), "--out", str(tmp_path / "run")]
    arguments += ["--data.root", str(root), "--model.model.init_args.features", "64"]
    arguments += ["--data.num_workers", "0", "--trainer.max_epochs", "1"]
    assert run_tool(main, arguments) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["overall"]["count"] == 20
    assert not (tmp_path / "run" / "checkpoints" / "best.ckpt").exists()  # nothing is held out
    versions = json.loads((tmp_path / "run" / "versions.json").read_text())
    assert versions["data"]["mixing"] == {"lsp": 1 / 3, "coco": 2 / 3}
    assert "mixing" not in metrics["protocol"]["data"]  # of the test split, scored again or not


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: (root / "smpl" / "SMPL_MALE.npz").unlink(), r"no .*SMPL_MALE"),
        (lambda root: (root / "J_regressor_h36m.npy").unlink(), r"no .*J_regressor_h36m"),
        (
            lambda root: np.savez(root / "smpl" / "SMPL_MALE.npz", **synthetic_smpl(70)),
            r"number of vertices, v_template: .*'MALE': 70",
        ),
    ],
)
def test_what_only_the_evaluation_reads_is_refused_before_there_is_a_run(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], Any],
    message: str,
) -> None:
    root = write_synthetic(tmp_path / "data", rows={"coco": 20}, test_rows=10)
    damage(root)
    arguments = ["--config", str(CONFIGS / "mse.yaml"), "--data.root", str(root)]
    arguments += ["--out", str(tmp_path / "run"), "--data.num_workers", "0"]
    assert run_tool(main, [*arguments, "--model.model.init_args.features", "64"]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "run").exists()


def test_the_density_is_drawn_of_a_folder_of_a_config_or_of_synthetic_people(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_synthetic(tmp_path / "data", rows={"coco": 40}, test_rows=20)
    config = tmp_path / "mine.yaml"
    config.write_text(f"base: {CONFIGS / 'mse.yaml'}\ndata: {{init_args: {{root: {root}}}}}\n")
    drawn: dict[str, float] = {}
    monkeypatch.setattr(
        "depthbal.adapters.hmr.command.save_density",
        lambda density, path: drawn.setdefault(path.stem, density.total),
    )
    settings = {"folder": ["--data.root", str(root)], "config": ["--config", str(config)]}
    for name, given in {**settings, "nobody": []}.items():
        assert run_tool(main, ["--density", f"{name}.png", *given]) == 0, capsys.readouterr().err
    # the presets hold nothing out; COCO's fits all count, as do those of 3DHP
    assert drawn == {"folder": 40, "config": 40, "nobody": 2000}
    assert run_tool(main, ["--density", str(root)]) == 2
    assert "expected a picture" in capsys.readouterr().err


def test_a_training_without_data_says_which_setting_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_tool(main, ["--trainer.max_epochs", "1", "--out", str(tmp_path / "run")]) == 2
    assert "root" in capsys.readouterr().err

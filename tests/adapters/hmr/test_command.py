"""The command from beginning to end, on little data and one epoch."""

import json
from pathlib import Path

import pytest

from depthbal.adapters.hmr import command
from depthbal.adapters.hmr.synthetic import write_synthetic
from depthbal.training.tool import run_tool
from tools.train_hmr import main


def test_the_default_command_leaves_data_two_runs_a_table_and_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    less = {"--trainer.max_epochs": "1", "--model.prior_rows": "300"}
    monkeypatch.setattr(command, "SYNTHETIC", command.SYNTHETIC | less)
    monkeypatch.setattr(
        "depthbal.adapters.hmr.synthetic.write_synthetic",
        lambda root, seed: write_synthetic(root, seed, {"coco": 64}, 60),
    )
    out = tmp_path / "out"
    assert run_tool(main, ["--out", str(out)]) == 0, capsys.readouterr().err
    table = json.loads((out / "table.json").read_text())
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


@pytest.mark.parametrize("preset", ["published"])
def test_a_preset_trains_on_a_folder_of_spins_files(tmp_path: Path, preset: str) -> None:
    root = write_synthetic(tmp_path / "data", rows={"lsp": 40, "coco": 40}, test_rows=20)
    config = Path(__file__).resolve().parents[3] / "configs" / "hmr" / f"{preset}.yaml"
    arguments = ["--config", str(config), "--out", str(tmp_path / "run")]
    arguments += ["--data.root", str(root), "--model.model.init_args.features", "64"]
    arguments += ["--data.num_workers", "0", "--trainer.max_epochs", "1"]
    assert run_tool(main, arguments) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["overall"]["count"] == 20
    assert metrics["protocol"]["data"]["mixing"] == {"lsp": 1 / 3, "coco": 2 / 3}


def test_the_density_is_drawn_by_one_command(tmp_path: Path) -> None:
    root = write_synthetic(tmp_path / "data", rows={"coco": 40}, test_rows=20)
    figure = tmp_path / "density.svg"
    assert run_tool(main, ["--density", str(root), "--out", str(figure)]) == 0
    assert "100 regions" in figure.read_text() or figure.stat().st_size > 5000


def test_a_training_without_data_says_which_setting_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_tool(main, ["--trainer.max_epochs", "1", "--out", str(tmp_path / "run")]) == 2
    assert "root" in capsys.readouterr().err

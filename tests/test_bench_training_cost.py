"""The benchmark of training costs measures every loss on the same step."""

import json
import runpy
import sys

import pytest

from tests.training.helpers import TOOLS


def bench(monkeypatch, *arguments) -> int:
    monkeypatch.setattr(sys, "argv", ["bench_training_cost.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(TOOLS / "bench_training_cost.py"), run_name="__main__")
    return end.value.code


@pytest.mark.parametrize(("of", "plain"), [("depth", "MSELoss"), ("age", "L1Loss")])
def test_every_loss_has_a_row_of_time_and_memory(of, plain, tmp_path, monkeypatch):
    arguments = ["--of", of, "--device", "cpu", "--batch-size", 2, "--repeats", 1]
    arguments += ["--seeds", 0, 1]
    assert bench(monkeypatch, *arguments, "--out", tmp_path) == 0
    result = json.loads((tmp_path / f"cost_{of}_cpu.json").read_text())
    names = [row["loss"] for row in result["rows"]]
    assert names[0].startswith(plain)
    for expected in ("LDS", "Focal-R", "GAI, K = 2", "GAI, K = 512", "BNI", "BMC"):
        assert expected in names
    assert result["rows"][0]["times_plain"] == 1
    for row in result["rows"]:
        assert len(row["times_plain_of_seeds"]) == 2
        assert row["times_plain"] == pytest.approx(sum(row["times_plain_of_seeds"]) / 2)
        assert row["peak_mib"] > 1
    assert (tmp_path / f"cost_{of}_cpu.png").stat().st_size > 5000
    assert bench(monkeypatch, *arguments, "--out", tmp_path) == 2  # the table is there


def test_a_frozen_network_needs_less_memory_than_one_that_is_trained(tmp_path, monkeypatch):
    peaks = []
    for trained in ("head", "all"):
        arguments = ["--of", "age", "--device", "cpu", "--batch-size", 8, "--repeats", 1]
        folder = tmp_path / trained
        assert bench(monkeypatch, *arguments, "--trained", trained, "--out", folder) == 0
        peaks.append(json.loads((folder / "cost_age_cpu.json").read_text())["rows"][0]["peak_mib"])
    assert peaks[0] < 0.7 * peaks[1]


def test_nonsense_is_refused(tmp_path, monkeypatch, capsys):
    assert bench(monkeypatch, "--repeats", 0, "--out", tmp_path) == 2
    assert "at least 1" in capsys.readouterr().err

"""The benchmark's table, its tool, and bad input."""

import json
import statistics

import cv2
import pytest
from synthetic_figures import draw_sigma, draw_sweeps

from depthbal.synthetic import COLUMNS, TABLE_1, TABLE_METHODS, Settings, run_benchmark
from tests.test_tools import tool


def test_the_tool_writes_the_table_in_the_agreed_form(tmp_path, capsys):
    columns = ["normal_high", "mvn_low"]
    options = ["--seeds", "3", "--out", tmp_path, "--no-figures", "--workers", "1"]
    options += ["--columns", *columns, "--methods", "vanilla", "gai_learned", "posthoc"]
    assert tool("synthetic_benchmark.py", *options) == 0
    table = json.loads((tmp_path / "table.json").read_text())
    assert list(table) == columns
    assert list(table["normal_high"]) == ["vanilla", "gai_learned", "posthoc"]
    entry = table["normal_high"]["vanilla"]
    assert set(entry) == {"median", "q1", "q3", "values"}
    assert entry["median"] == statistics.median(entry["values"])
    assert entry["q1"] <= entry["median"] <= entry["q3"]
    printed = capsys.readouterr().out
    assert "5.52" in printed  # the paper's
    assert "posthoc" not in table["mvn_low"]
    assert "scalar labels only" in printed
    details = json.loads((tmp_path / "details.json").read_text())
    assert details["seeds"] == [0, 1, 2]
    assert len(details["columns"]["mvn_low"]["gai_learned"]["noise_sigma"]["values"]) == 3
    assert "| Vanilla, paper | 5.52 | 2.57 |" in (tmp_path / "table.md").read_text()
    assert list(TABLE_1) == list(TABLE_METHODS)
    assert all(list(row) == COLUMNS for row in TABLE_1.values())


def test_processes_share_the_columns_without_changing_anything():
    columns = ["normal_low", "mvn_low"]  # the second begins first
    alone = list(run_benchmark(columns, ["vanilla"], [0, 1]))
    shared = list(run_benchmark(columns, ["vanilla"], [0, 1], workers=2))
    assert [(c.column, c.method) for c in shared] == [(c.column, c.method) for c in alone]
    for one, other in zip(shared, alone, strict=True):
        assert one.errors == pytest.approx(other.errors, rel=1e-9)


def test_figures_are_pictures(tmp_path):
    cells = list(run_benchmark(["normal_low"], ["gai_learned"], [0, 1, 2]))
    cases = {n: ("normal_low", Settings(n_components=n)) for n in (1, 2)}
    sweep = "normal_low", "components", ("gai", "gai_learned"), cases
    for name, figure in (("sigma", draw_sigma(cells)), ("sweeps", draw_sweeps([0, 1], [sweep]))):
        figure.savefig(tmp_path / f"{name}.png")
        assert cv2.imread(str(tmp_path / f"{name}.png")).std() > 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--columns", "cauchy_high"], "cauchy_high"),
        (["--columns", "normal_-1"], "normal_-1"),
        (["--columns", "exponential_1e-6"], "labels in"),
        (["--methods", "magic"], "magic"),
        (["--methods", "gai", "gai"], "none twice"),
        (["--seeds", "0"], "seed"),
        (["--batch-size", "1"], "batch"),
    ],
)
def test_bad_input_is_one_line(options, message, tmp_path, capsys):
    base = ["--seeds", "1", "--columns", "normal_low", "--methods", "vanilla", "--workers", "1"]
    assert tool("synthetic_benchmark.py", *base, *options, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()

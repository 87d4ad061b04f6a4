"""The benchmark of FDS measures both ways of both pieces of work."""

import json
import runpy
import sys

import pytest

from tests.training.helpers import TOOLS


def test_the_benchmark_writes_a_ratio_for_statistics_and_calibration(tmp_path, monkeypatch):
    arguments = ["--quick", "--images", "2", "--repeats", "1", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["bench_fds.py", *arguments])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(TOOLS / "bench_fds.py"), run_name="__main__")
    assert end.value.code == 0
    result = json.loads((tmp_path / "fds_cpu.json").read_text())
    assert [row["work"] for row in result["rows"]] == ["statistics", "calibration"]
    for row in result["rows"]:
        ratio = row["loop_ms_per_image"] / row["ms_per_image"]
        assert row["times_as_fast"] == pytest.approx(ratio)
    assert "Statistics of the 600 images" in (tmp_path / "fds_cpu.md").read_text()

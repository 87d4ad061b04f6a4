"""Results on the terminal."""

import io

import pytest
from rich.console import Console

from depthbal.evaluation import GROUPS
from depthbal.training.tables import COLUMNS, print_metrics


def printed(metrics):
    console = Console(width=80, file=io.StringIO())
    print_metrics(console, metrics)
    return console.file.getvalue()


def test_headings_and_numbers_stay_whole_on_a_terminal_of_80_columns():
    row = {**dict.fromkeys(COLUMNS, 12.3456), "bias": -12.3456, "count": 888_888_888}
    shots = dict.fromkeys(GROUPS, row)
    protocol = {"name": "nyud2_dir", "readout": "clamped", "posthoc": {"noise_sigma": 0.873}}
    lines = printed({**shots, "all_pixels": shots, "protocol": protocol}).splitlines()
    assert max(map(len, lines)) <= 80
    words = " ".join(lines).split()
    for whole in (*COLUMNS, *GROUPS, "888,888,888", "12.346", "-12.346"):
        assert words.count(whole) >= 2


@pytest.mark.parametrize(("balanced", "times"), [(False, 2), (True, 0)])
def test_the_mean_of_a_loss_without_noise_is_called_the_raw_output(balanced, times):
    row = {**dict.fromkeys(COLUMNS, 1.0), "count": 1}
    shots = dict.fromkeys(GROUPS, row)
    readout = {"raw": shots, "mean": {**shots, "few": {**row, "rmse": 0.5}} if balanced else shots}
    protocol = {"name": "nyud2_dir", "readout": "mean"}
    text = printed({**shots, "all_pixels": shots, "readout": readout, "protocol": protocol})
    assert text.count("read-out mean") == 2
    assert text.count("read-out mean (the raw output)") == times

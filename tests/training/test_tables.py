"""Results on the terminal."""

import io

from rich.console import Console

from depthbal.evaluation import GROUPS
from depthbal.training.tables import COLUMNS, print_metrics


def test_headings_and_numbers_stay_whole_on_a_terminal_of_80_columns():
    row = {**dict.fromkeys(COLUMNS, 12.3456), "bias": -12.3456, "count": 888_888_888}
    shots = dict.fromkeys(GROUPS, row)
    protocol = {"name": "nyud2_dir", "readout": "clamped", "posthoc": {"noise_sigma": 0.873}}
    console = Console(width=80, file=io.StringIO())
    print_metrics(console, {**shots, "all_pixels": shots, "protocol": protocol})
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    words = " ".join(lines).split()
    for whole in (*COLUMNS, *GROUPS, "888,888,888", "12.346", "-12.346"):
        assert words.count(whole) >= 2

"""Medians over seeds, also where a seed has no number."""

import io
from typing import Any

import pytest
from rich.console import Console

from depthbal.adapters.hmr.evaluation import ERRORS
from depthbal.adapters.hmr.table import medians, print_medians


def row(tail: float | None) -> dict[str, Any]:
    """Return a run's row of table.json; nobody may be in the tail."""
    balanced = {"all": 50.0, "tail10": tail, "tail5": tail}
    return dict.fromkeys(ERRORS, 40.0) | {f"b{name}": balanced for name in ERRORS}


@pytest.mark.parametrize("tails", [(None, 3.0), (3.0, None)])
def test_a_number_that_one_seed_lacks_has_no_median(tails: tuple[float | None, ...]) -> None:
    assert medians([{"mpjpe": {"all": 1.0, "tail5": tail}} for tail in tails]) == {
        "mpjpe": {"all": 1.0, "tail5": None}
    }


def test_seeds_without_a_tail_are_shown_as_a_dash_and_not_compared() -> None:
    tables = [
        {"mse": row(90.0), "gai": row(80.0)},
        {"mse": row(90.0), "gai": row(95.0)},
        {"mse": row(90.0), "gai": row(None)},
    ]
    text = io.StringIO()
    print_medians(Console(file=text, width=100), tables)
    lines = {line.split()[0]: line.split() for line in text.getvalue().splitlines() if line.strip()}
    assert lines["gai"][-4:] == ["40.0", "50.0", "-", "-"]
    assert lines["mse"][-4:] == ["40.0", "50.0", "90.0", "90.0"]
    assert "MPJPE of the farthest 10 %: gai is below mse in 1 of 2 seeds" in text.getvalue()

"""Tables: empty shots are a dash, medians are over seeds, changes are against the first method."""

import io

from rich.console import Console

from depthbal.adapters.age.table import print_result, print_runs
from depthbal.evaluation import GROUPS

FEW = ["4.00", "2.00"]


def result(few, **values):
    row = {"mae": 4.0, "gm": 2.0, "bmae": 8.0, "mse": 20.0, "bmse": 90.0, "count": 7} | values
    rows = {group: dict(row) for group in GROUPS}
    rows["few"] = dict.fromkeys(row) | {"count": 0} if few is None else row | {"bmae": few}
    protocol = {"label": {"name": "age", "unit": "years"}, "readout": "mean"}
    return {**rows, "protocol": protocol}


def printed(function, *arguments):
    console = Console(file=io.StringIO(), width=160)
    function(console, *arguments)
    return console.file.getvalue()


def line(text, start):
    return next(row.split() for row in text.splitlines() if row.strip().startswith(start))


def test_a_shot_without_images_is_a_dash():
    text = printed(print_result, result(None))
    assert line(text, "few") == ["few", "-", "-", "-", "-", "-", "0"]
    assert line(text, "many") == ["many", "4.00", "2.00", "8.00", "20.00", "90.00", "7"]


def test_methods_are_medians_over_seeds_and_compared_with_the_first():
    vanilla = [result(30.0), result(10.0), result(20.0)]
    gai = [result(16.0), result(15.0), result(99.0)]
    rows = printed(print_runs, {"vanilla": vanilla, "rrt_gai": gai}).splitlines()
    assert "Medians of 3 seeds, changes against vanilla" in rows[0]
    assert next(row for row in rows if "few" in row).split() == ["few", "vanilla", *FEW, "20.00"]
    last = [row.strip() for row in rows if row.strip()][-1]
    assert last.endswith("16.00 (-20 %)")


def test_there_is_no_change_from_nothing():
    text = printed(print_runs, {"vanilla": [result(None)], "rrt_gai": [result(5.0)]})
    assert line(text, "few") == ["few", "vanilla", "-", "-", "-"]
    assert text.rstrip().endswith("5.00")


def test_the_comparison_fits_a_terminal_of_80_characters():
    runs = {name: [result(123.456)] for name in ("vanilla", "rrt_sqrt_inverse")}
    console = Console(file=io.StringIO(), width=80)
    print_runs(console, runs)
    assert "…" not in console.file.getvalue()

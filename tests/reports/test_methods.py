import numpy as np
import pytest

from depthbal.evaluation import LabelBins
from depthbal.reports.methods import common_name, methods_of, run_names, seed_of
from tests.reports.in_memory import result_of


def runs(*named):
    sums = np.ones((3, 2, 2))
    bins = LabelBins([0.0, 1.0, 2.0])
    return [result_of(sums, bins, name=name, method=m, seed=s) for name, m, s in named]


def test_methods_come_in_the_order_of_their_first_runs_with_seeds_in_order():
    found = methods_of(runs(("b-2", "b", 2), ("a", "a", 0), ("b-1", "b", 1)))
    assert [(m.name, m.runs, m.seeds) for m in found] == [("b", (2, 0), (1, 2)), ("a", (1,), (0,))]


def test_methods_never_share_a_name():
    named = ("gai-0", "a", 0), ("gai-1", "a", 1), ("gai-2", "b", 2), ("gai-3", "b", 3)
    assert [m.name for m in methods_of(runs(*named))] == ["gai-0; gai-1", "gai-2; gai-3"]
    named = ("gai-0", "a", 0), ("gai-1", "a", 1), ("gai", "b", 0)
    assert [m.name for m in methods_of(runs(*named))] == ["gai-0; gai-1", "gai"]


def test_runs_of_unknown_or_equal_seed_stay_apart():
    assert len(methods_of(runs(("a", "m", None), ("b", "m", 1)))) == 2
    assert len(methods_of(runs(("a", "m", 1), ("b", "m", 1), ("c", "m", 2)))) == 3


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["gai-0", "gai-1"], "gai"),
        (["gai-9", "gai-10"], "gai"),
        (["gai_s1.5-0", "gai_s1.5-1"], "gai_s1.5"),
        (["0/gai", "1/gai"], "gai"),
        (["x", "y"], "x"),
    ],
)
def test_the_common_name_leaves_out_what_tells_seeds_apart(names, expected):
    assert common_name(names) == expected


def test_names_take_as_many_parents_as_they_need(tmp_path):
    paths = [tmp_path / part for part in ("x/1/gai", "y/1/gai", "y/2/gai", "mse")]
    assert run_names(paths) == ["x/1/gai", "y/1/gai", "2/gai", "mse"]


def test_a_drawn_seed_is_that_of_versions_json():
    assert seed_of({"seed_everything": True}, {"seed": 77}) == 77
    assert seed_of({"seed_everything": 0}, {"seed": 77}) == 0
    assert seed_of({"seed_everything": False}, {}) is None

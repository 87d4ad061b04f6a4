import bisect
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from depthbal.errors import DataError
from depthbal.evaluation import DepthBins, LabelBins
from depthbal.evaluation.bins import NYUD2_PIXELS
from depthbal.priors import Histogram
from tests.reference import plain_depth_bin
from tests.shared import SHARED, needs_shared

MEDIUM = {7, 8, 46, 48, *range(50, 57), 58, 60, 61, 63}
FEW = {57, 59, 62, *range(64, 100)}


def test_nyud2_has_the_official_shots():
    shots = DepthBins.nyud2().shots
    assert {b for b, shot in enumerate(shots) if shot == "medium"} == MEDIUM
    assert {b for b, shot in enumerate(shots) if shot == "few"} == FEW
    assert [shots.count(s) for s in ("many", "medium", "few", None)] == [39, 15, 39, 7]
    assert "min(int(label * 10), 99)" in DepthBins.nyud2().describe()["rule"]


@needs_shared
def test_the_embedded_counts_are_the_published_ones():
    published = json.loads((SHARED / "facts/nyud2_train_pixel_counts.json").read_text())
    assert list(NYUD2_PIXELS) == published["counts"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_millimetre_level_lands_in_its_decimetre(dtype):
    millimetres = torch.arange(12_000)
    index = DepthBins.nyud2().index(millimetres.to(dtype) / 1000)
    expected = (millimetres // 100).clamp(max=99)
    expected[millimetres < 700] = -1
    assert torch.equal(index, expected)


@given(st.lists(st.floats(0, 30, width=32), min_size=1))
def test_any_depth_lands_where_the_benchmark_puts_it(depths):
    expected = [plain_depth_bin(d) if plain_depth_bin(d) >= 7 else -1 for d in depths]
    assert DepthBins.nyud2().index(torch.tensor(depths)).tolist() == expected


@given(
    st.lists(st.floats(-5, 40, width=32), min_size=2, max_size=9, unique=True),
    st.lists(st.floats(-10, 50, width=32), min_size=1),
)
def test_labels_lie_at_or_above_their_lower_edge(edges, labels):
    edges = sorted(edges)
    expected = [min(bisect.bisect_right(edges, x) - 1, len(edges) - 2) for x in labels]
    assert LabelBins(edges).index(torch.tensor(labels)).tolist() == expected


@pytest.mark.parametrize(
    "bins", [DepthBins.nyud2(), DepthBins.uniform(0.5), LabelBins([0, 1, 2], ["many", "few"])]
)
def test_values_that_are_no_label_have_no_bin(bins):
    assert bins.index(torch.tensor([float("nan"), float("inf"), -float("inf"), -0.05])).eq(-1).all()


def test_a_depth_of_zero_has_no_bin_even_where_the_first_bin_is_scored():
    assert DepthBins.uniform(0.5).index(torch.tensor([0.0, 0.01])).tolist() == [-1, 0]
    assert LabelBins([0, 1]).index(torch.tensor([0.0])).tolist() == [0]


def test_the_index_keeps_the_shape_and_takes_low_precision():
    depth = torch.tensor([[1.0, 2.5], [9.5, 0.5]])
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        index = DepthBins.nyud2().index(depth.to(dtype))
        assert index.tolist() == [[10, 25], [95, -1]]
        assert index.dtype == torch.int64


def test_ages_get_their_shots_from_counts():
    counts = [100] * 60 + [101] * 30 + [19] * 20 + [20] * 11
    bins = LabelBins.from_counts(np.arange(122), counts, many_above=100, few_below=20)
    assert [bins.shots[age] for age in (0, 60, 95, 120)] == ["medium", "many", "few", "medium"]
    assert bins.index(torch.tensor([0, 60, 120, 130])).tolist() == [0, 60, 120, 120]


def test_a_histogram_gives_the_shots_and_bins_keep_the_benchmarks_numbers():
    histogram = Histogram(np.linspace(0.7, 10.0, 94), NYUD2_PIXELS[7:])
    bins = DepthBins.from_histogram(histogram)
    assert bins.shots == DepthBins.nyud2().shots
    assert bins.scored.tolist() == [False] * 7 + [True] * 93
    assert len(DepthBins.from_histogram(Histogram([0.0, 1.0, 2.0], [1.0, 2.0]))) == 2  # from zero
    levels = torch.arange(1, 1200) / 100
    assert torch.equal(bins.index(levels), DepthBins.nyud2().index(levels))


@pytest.mark.parametrize("width", [0.02, 0.1, 0.5, 1.0, 3.1])
def test_shots_do_not_depend_on_the_width_of_the_bins(width):
    edges = np.linspace(0.7, 10.0, round(9.3 / width) + 1)
    even, middles = np.ones(len(edges) - 1), (edges[1:] + edges[:-1]) / 2
    shots = DepthBins.from_histogram(Histogram(edges, even)).shots[-len(even) :]
    assert set(shots) == {"many"}  # equally common depths
    rising = DepthBins.from_histogram(Histogram(edges, middles - 0.7)).shots[-len(even) :]
    density = 2 * (middles - 0.7) / 9.3  # 1 in the middle
    expected = ["many" if d > 0.688 else "few" if d < 0.265 else "medium" for d in density]
    assert list(rising) == expected


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LabelBins([0, 1, 1]), "increasing"),
        (lambda: LabelBins([0]), "increasing"),
        (lambda: LabelBins([0, float("nan"), 2]), "increasing"),
        (lambda: LabelBins([0, 1, 2], ["many"]), "expected one shot per bin, 2 of them, got 1"),
        (lambda: LabelBins([0, 1, 2], ["many", "rare"]), r"got \['rare'\]"),
        (lambda: LabelBins([0, 1, 2], per_unit=10), "edges at 0, 0.1"),
        (lambda: DepthBins.from_histogram(Histogram([0.0, 1.0, 2.0])), "holds no pixels"),
    ],
)
def test_wrong_bins_are_refused(make, message):
    with pytest.raises(DataError, match=message):
        make()

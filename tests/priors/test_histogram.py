from itertools import pairwise

import numpy as np
import pytest
import torch

from depthbal.evaluation import LabelBins
from depthbal.priors import Histogram

EDGES = np.linspace(0.7, 10.0, 94)
clips = pytest.mark.filterwarnings("ignore:.*outside the histogram")


@clips
@pytest.mark.parametrize("quantum", [None, 10 / 255])
def test_streaming_in_pieces_equals_one_pass(quantum):
    values = np.random.default_rng(0).gamma(3.0, 1.0, 10_007)
    whole = Histogram(EDGES, quantum=quantum).update(values)
    pieces = Histogram(EDGES, quantum=quantum)
    for piece in np.array_split(values, 13):
        pieces.update(torch.from_numpy(piece))
    np.testing.assert_allclose(pieces.counts, whole.counts, rtol=1e-9)
    assert whole.total == pytest.approx(values.size)
    if quantum is None:
        expected, _ = np.histogram(np.clip(values, 0.7, 10.0), EDGES)
        np.testing.assert_array_equal(whole.counts, expected)


def test_labels_outside_the_edges_are_warned_of_once_with_their_number_and_range(recwarn):
    histogram = Histogram([1.0, 2.0, 4.0])
    histogram.update([1.0, 1.5, 4.0])
    assert not recwarn.list
    for _ in range(3):
        histogram.update([0.25, 1.5, 3.0, 9.0, 7.5])
    (only,) = recwarn.list
    text = str(only.message)
    assert "3 of 5 labels lie outside the histogram's edges 1 to 4" in text
    assert "from 0.25 to 9)" in text
    assert "leave out" in text
    assert only.filename == __file__


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_rounding_at_the_edges_is_not_warned_of(dtype, recwarn):
    Histogram(EDGES).update(torch.tensor([0.7, 10.0], dtype=dtype))
    Histogram([1.0, 2.0], quantum=0.5).update([0.8, 2.2])  # levels that reach over an edge
    assert not recwarn.list


@clips
def test_spreading_equals_the_overlap_computed_bin_by_bin():
    quantum, values = 0.35, np.array([0.9, 0.9, 2.0, 3.3, 9.95, 20.0])
    expected = np.zeros(len(EDGES) - 1)
    for value in values:
        low, high = value - quantum / 2, value + quantum / 2
        for index, (left, right) in enumerate(pairwise(EDGES)):
            left = -np.inf if index == 0 else left
            right = np.inf if index == len(expected) - 1 else right
            expected[index] += max(0.0, min(high, right) - max(low, left)) / quantum
    got = Histogram(EDGES, quantum=quantum).update(values).counts
    np.testing.assert_allclose(got, expected, atol=1e-12)


@clips
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64])
def test_numpy_and_torch_of_any_type_count_alike(dtype):
    edges, counts = torch.tensor([0.0, 1.0, 2.0, 4.0]), torch.tensor([1, 0, 2])
    values = torch.tensor([[0, 1], [3, 9]], dtype=dtype, requires_grad=dtype.is_floating_point)
    made = Histogram(edges, counts).update(values)
    expected = Histogram(edges.numpy(), counts.numpy()).update([[0, 1], [3, 9]])
    np.testing.assert_array_equal(made.counts, expected.counts)
    assert made.counts.tolist() == [2, 1, 4]


def test_save_and_load_round_trip_and_a_failed_save_leaves_the_old_file(tmp_path):
    path = tmp_path / "new" / "histogram.json"
    histogram = Histogram(EDGES, quantum=0.1).update([1.0, 2.0])
    histogram.save(path)
    assert Histogram.load(path).to_dict() == histogram.to_dict()
    before = path.read_text()
    histogram.counts[0] = np.nan
    with pytest.raises(ValueError, match="not JSON compliant"):
        histogram.save(path)
    assert path.read_text() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("digits", [1, 2, 3])
def test_labels_on_edges_count_in_the_bin_above_as_evaluation_has_it(dtype, digits):
    """Equally common labels once counted 0 to 2 times in bins as wide as their steps."""
    labels = (torch.arange(93 * 10 ** (digits - 1), dtype=torch.float64) / 10**digits + 0.7).to(
        dtype
    )
    counts = Histogram.regular(0.7, 10.0, 0.1).update(labels).counts
    assert set(counts) == {10 ** (digits - 1)}
    bins = LabelBins(EDGES)
    assert np.array_equal(counts, np.bincount(bins.index(labels), minlength=93))


def test_a_label_of_0_on_an_edge_that_rounding_moves_counts_in_the_bin_above():
    labels = np.arange(-33, 72) / 10
    assert set(Histogram.regular(-3.3, 7.2, 0.1).update(labels).counts) == {1}


def test_places_are_even_of_one_ratio_or_of_as_many_labels():
    histogram = Histogram([1.0, 2.0, 4.0, 16.0], [6, 2, 0], beyond=3)
    assert histogram.places(4).tolist() == [1.0, 6.0, 11.0, 16.0]
    assert histogram.places(5, "log") == pytest.approx([1, 2, 4, 8, 16])
    assert histogram.places(4, "log", (2.0, 16.0)) == pytest.approx([2, 4, 8, 16])
    assert histogram.places(5, "quantile") == pytest.approx([1, 4 / 3, 5 / 3, 2, 16])


def test_other_bins_and_logarithms_hold_the_same_labels():
    histogram = Histogram([1.0, 2.0, 4.0, 16.0], [6, 2, 3], beyond=5)
    coarse = histogram.rebinned([1.0, 1.5, 3.0, 16.0])
    assert coarse.counts == pytest.approx([3, 4, 4])
    logs = histogram.logarithms()
    assert (coarse.beyond, logs.beyond, logs.total) == pytest.approx((5, 5, 11))
    assert np.ptp(logs.widths) < 1e-12
    below = logs.counts[logs.edges[1:] <= np.log(2.0) + 1e-9].sum()
    assert below == pytest.approx(6)
    drawn = np.random.default_rng(0).uniform(2.0, 4.0, 100_000)  # even in labels, not in logs
    middle = (logs.edges[1:] > np.log(2.0) + 1e-9) & (logs.edges[1:] <= np.log(4.0) + 1e-9)
    mean = logs.counts[middle] @ logs.centers[middle] / 2
    assert mean == pytest.approx(np.log(drawn).mean(), abs=3e-3)


def test_labels_that_are_only_known_to_lie_beyond_are_counted_apart(tmp_path):
    histogram = Histogram([0.0, 1.0, 3.0])
    histogram.update([0.5, np.inf, 2.0]).update(torch.full((4,), torch.inf))
    plain = Histogram([0.0, 1.0, 3.0]).update([0.5, 2.0])
    assert histogram.beyond == 5
    assert histogram.densities.tolist() == plain.densities.tolist() == [0.5, 0.25]
    assert histogram.density_below(3.0, 2.0) == 0.25
    assert histogram.density_below(3.0, 2.5) == pytest.approx(0.75 / 2.5)
    histogram.save(tmp_path / "prior.json")
    assert Histogram.load(tmp_path / "prior.json").beyond == 5
    before = plain.to_dict()
    del before["beyond"]  # of a file of an earlier version
    assert Histogram.from_dict(before).beyond == 0

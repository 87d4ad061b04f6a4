import numpy as np
import pytest

from depthbal.evaluation import DepthBins, Label, LabelBins, metrics_of
from depthbal.reports.comparing import binnings, nice_width
from tests.reports.made import result_of


def result(bins, label, terms=("count", "squared", "relative"), images=50, seed=0):
    rng = np.random.default_rng(seed)
    present = rng.random((images, len(bins))) < 0.3
    sums = rng.random((images, len(bins), len(terms))) * present[..., None]
    sums[..., 0] = rng.integers(1, 9, present.shape) * present
    sums[:, ~bins.scored] = 0
    main = metrics_of(terms)[0]
    return result_of(sums, bins, terms, label=label, main_metric=main)


DEPTH = result(DepthBins.nyud2(), Label("depth", "m"))
AGES = result(LabelBins(np.arange(0.0, 102.0)), Label("age", "years"), ("count", "absolute"))


def test_depth_has_fine_half_metre_and_log_spaced_bins():
    fine, half, log = binnings(DEPTH)
    assert (fine.name, half.name) == ("0.1 m", "0.5 m")
    assert log.name == "log-spaced (edges on 0.1 m)"
    assert len(fine.low) == 93
    assert half.low == pytest.approx([0.7, *np.arange(1.0, 10.0, 0.5)])
    assert half.high == pytest.approx(np.arange(1.0, 10.5, 0.5))
    assert (log.low[0], log.high[-1]) == pytest.approx((0.7, 10))
    ratios = np.log(log.high / log.low)
    assert ratios[4:] == pytest.approx(np.full(8, np.log(10 / 0.7) / 12), rel=0.25)


def test_other_labels_have_bins_of_round_widths():
    found = binnings(AGES)
    assert [binning.name for binning in found] == ["1 year", "5 years", "10 years"]
    assert found[1].low[:3].tolist() == [0, 5, 10]
    assert found[2].high[-2:].tolist() == [100, 101]
    millimetres = LabelBins(np.arange(0.0, 405.0, 5.0))
    found = binnings(result(millimetres, Label("distance", "mm"), ("count", "epe")))
    assert [binning.name for binning in found] == ["5 mm", "20 mm", "50 mm"]
    coarse = LabelBins(np.arange(0.0, 11.0, 2.0))  # nothing is repeated
    found = binnings(result(coarse, Label("x", "m"), ("count", "absolute")))
    assert [binning.name for binning in found] == ["2 m"]
    assert [nice_width(width) for width in (0.465, 6.0, 12.0, 38.0)] == [0.5, 5.0, 10.0, 50.0]


@pytest.mark.parametrize("run", [DEPTH, AGES], ids=["depth", "age"])
def test_every_scored_bin_belongs_to_one_coarse_bin_next_to_its_neighbours(run):
    for binning in binnings(run):
        assert binning.members.sum(0).tolist() == run.bins.scored.astype(float).tolist()
        for row, low, high in zip(binning.members, binning.low, binning.high, strict=True):
            fine = np.flatnonzero(row)
            assert np.diff(fine).tolist() == [1] * (len(fine) - 1)
            assert (low, high) == (run.bins.edges[fine[0]], run.bins.edges[fine[-1] + 1])
        assert (binning.high[:-1] == binning.low[1:]).all()

import numpy as np
import pytest

from depthbal.data.cache import cache_file, cached
from depthbal.priors import Histogram
from tests.data.make_files import ArrayDataModule, ArraySource, array_source, grey_image

UNCUT = {"short_side": None, "crop_size": None, "depth_size": None}


def module_of(source, **settings):
    module = ArrayDataModule(source, **settings)
    module.setup("fit")
    return module


def constant_source(depth, count=1):
    return ArraySource([(grey_image(*depth.shape), depth)] * count)


def counts_of(module):
    return module.train_histogram().counts


@pytest.mark.parametrize("workers", [0, 2])
def test_counts_equal_a_plain_histogram_of_the_cropped_depth(workers):
    source = array_source(21)
    module = module_of(source, num_workers=workers, depth_size=None)
    histogram = module.train_histogram()
    crops = np.stack([depth[2:22, 2:30] for _, depth in source.pairs]).astype(np.float64)
    edges = np.arange(7, 101) / 10
    valid = crops[crops >= np.float32(0.7)]
    expected = np.histogram(np.minimum(valid, 9.99), bins=edges)[0]
    np.testing.assert_allclose(histogram.edges, edges, atol=1e-12)
    assert histogram.counts.sum() == valid.size
    # depths that lie on an edge as float32 may fall to either side
    on_an_edge = np.sum(np.abs(valid[:, None] - edges).min(1) < 1e-6)
    assert np.abs(histogram.counts - expected).sum() <= 2 * on_an_edge


def test_pixels_without_depth_or_nearer_than_the_least_depth_do_not_count():
    depth = np.full((24, 32), 2.05, dtype=np.float32)
    depth[:, :8] = 0
    depth[:, 8:12] = 0.5
    counts = counts_of(module_of(constant_source(depth, 2), crop_size=None, depth_size=None))
    assert counts.nonzero()[0].tolist() == [13]
    assert counts.sum() == 2 * 24 * 20


@pytest.mark.parametrize("damage", [None, "", "{", '{"edges": [0]}', "[]", "\x00\x01"])
def test_a_fresh_module_reads_the_cache_and_rebuilds_a_damaged_file(own_cache, damage, monkeypatch):
    source, loads = array_source(9), []
    monkeypatch.setattr(ArraySource, "load", lambda self, at: loads.append(at) or self.pairs[at])
    first = module_of(source).train_histogram()
    module = module_of(source)
    path = own_cache / f"{module.fingerprint()}.json"
    assert list(own_cache.iterdir()) == [path]
    intact = path.read_text()
    if damage is not None:
        path.write_text(damage)
    loads.clear()
    second = module.train_histogram()
    assert len(loads) == (0 if damage is None else 9)
    assert second.counts.tolist() == first.counts.tolist()
    assert second.edges.tolist() == first.edges.tolist()
    assert path.read_text() == intact


def test_a_cache_that_cannot_be_written_costs_time_only(own_cache, tmp_path, monkeypatch):
    def disk_full(*_):
        raise OSError("No space left on device")

    def kept():
        made = Histogram([0.0, 1.0], [3.0])
        file = cache_file("histograms", "abc.json")
        return cached(file, Histogram.load, lambda: made, lambda to, one: one.save(to))

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", disk_full)
        assert kept().total == 3
    assert list(own_cache.iterdir()) == []
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert kept().total == 3


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"crop_size": (18, 28)}, False),
        ({"depth_range": (0.7, 9.0)}, False),
        ({"val_fraction": 0.3, "seed": 1}, False),
        ({"jitter": 0.0, "batch_size": 2}, True),
    ],
)
def test_the_fingerprint_follows_what_the_counts_depend_on_and_nothing_else(change, same):
    source = array_source(9)
    base = module_of(source, **({"val_fraction": 0.3} if "seed" in change else {}))
    assert (base.fingerprint() == module_of(source, **change).fingerprint()) == same


def test_coarse_levels_are_spread_over_their_own_width():
    # 8-bit levels of a uniform distribution: every bin holds the same mass, although 2 or 3
    # levels fall into it
    levels = np.tile(np.arange(13, 256, dtype=np.float32) * np.float32(10 / 255), (24, 1))
    module = ArrayDataModule(constant_source(levels), **UNCUT)
    module.quantum = 10 / 255
    module.setup("fit")
    counts = counts_of(module)
    assert np.ptp(counts[1:-1]) < 0.02 * counts.mean()


@pytest.mark.parametrize(
    ("value", "odd", "beyond"),
    [(value, odd, False) for value in (12.5, 1e10, 0.3) for odd in (5, 4)] + [(12.5, 5, True)],
)
def test_what_lies_outside_the_range_counts_nowhere_and_more_than_1_percent_is_said(
    caplog, recwarn, value, odd, beyond
):
    warned = odd == 5 and not beyond
    depth = np.full((10, 50), 10.0, dtype=np.float32)  # at the limit is not beyond it
    depth[:, :10] = 0
    depth[:odd, 11] = value  # of 400 pixels with depth
    with caplog.at_level("WARNING", logger="depthbal"):
        source = constant_source(depth, 40)
        counts = counts_of(module_of(source, measured_beyond=beyond, **UNCUT))
    assert counts.tolist() == [0.0] * 92 + [40.0 * (400 - odd)]
    assert not recwarn.list
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2 * warned  # the training and the test split
    for message in messages:
        assert "1.2% " in message
        assert "--data.depth_range" in message


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({"bin_spacing": "log"}, 65),  # ln 80 / ln 1.07
        ({"bin_spacing": "log", "bin_count": 12}, 12),
        ({"bin_spacing": "quantile", "bin_count": 10}, 10),
        ({"bin_count": 79}, 79),
    ],
)
def test_bins_of_a_long_range_are_those_that_were_asked_for(settings, count):
    rng = np.random.default_rng(0)
    depth = np.minimum(1 + rng.exponential(12, (60, 80)), 79.9).astype(np.float32)
    module = module_of(constant_source(depth, 4), depth_range=(1.0, 80.0), **UNCUT, **settings)
    bins, labels = module.bins(), depth.astype(np.float64).ravel()
    edges = bins.edges[bins.edges >= 1 - 1e-9]
    assert (bins.scored.sum(), bins.ends) == (count, (1.0, 80.0))
    if "bin_spacing" not in settings:
        assert edges == pytest.approx(np.arange(1, 81))
    elif settings["bin_spacing"] == "log":
        assert edges[1:] / edges[:-1] == pytest.approx(80 ** (1 / count))
    else:
        assert np.histogram(labels, edges)[0] / labels.size == pytest.approx(0.1, abs=0.01)
    # shots by the density per metre, of pixels that are counted in bins of 0.1 m
    density = np.histogram(labels, edges)[0] / np.diff(edges) * 79 / labels.size
    clear = np.abs(density - 0.688) > 0.2
    many = np.array([shot == "many" for shot in bins.shots])[bins.scored]
    assert (many == (density > 0.688))[clear].all()
    assert module.describe()["bin_count"] == count

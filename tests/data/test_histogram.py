import numpy as np
import pytest

from depthbal.data.datamodule import DepthDataModule
from depthbal.data.histogram import cached_histogram
from depthbal.errors import DataError
from depthbal.priors import Histogram
from tests.data.make_files import SMALL, ArraySource, array_source, grey_image


class ArrayDataModule(DepthDataModule):
    """A data module over pairs in memory that counts how often depth was loaded."""

    def __init__(self, source, test=None, **kwargs):
        super().__init__(**{**SMALL, "val_fraction": 0.0, **kwargs})
        self.source = source
        self.test = test or source

    def train_source(self):
        return self.source

    def test_source(self):
        return self.test


class CountingSource(ArraySource):
    loads = 0

    def load(self, index):
        self.loads += 1
        return super().load(index)


def counting_source(count=9):
    return CountingSource(array_source(count).pairs)


@pytest.mark.parametrize("workers", [0, 2])
def test_counts_equal_a_plain_histogram_of_the_cropped_depth(workers):
    source = array_source(21)
    module = ArrayDataModule(source, num_workers=workers, depth_size=None)
    module.setup("fit")
    histogram = module.train_histogram(progress=False)
    crops = np.stack([depth[2:22, 2:30] for _, depth in source.pairs]).astype(np.float64)
    edges = np.arange(7, 101) / 10
    valid = crops[crops >= np.float32(0.7)]
    expected = np.histogram(np.minimum(valid, 9.99), bins=edges)[0]
    np.testing.assert_allclose(histogram.edges, edges, atol=1e-12)
    assert histogram.counts.sum() == valid.size
    # depths that lie on an edge as float32 may fall to either side
    assert np.abs(histogram.counts - expected).sum() <= 2 * np.sum(
        np.abs(valid[:, None] - edges).min(1) < 1e-6
    )


def test_pixels_without_depth_or_nearer_than_the_least_depth_do_not_count():
    depth = np.full((24, 32), 2.05, dtype=np.float32)
    depth[:, :8] = 0
    depth[:, 8:12] = 0.5
    module = ArrayDataModule(
        ArraySource([(grey_image(24, 32), depth)] * 2), crop_size=None, depth_size=None
    )
    module.setup("fit")
    histogram = module.train_histogram(progress=False)
    assert histogram.counts.nonzero()[0].tolist() == [13]
    assert histogram.total == 2 * 24 * 20


def test_the_second_call_reads_the_cache_in_a_fresh_module_too(own_cache):
    source = counting_source()
    module = ArrayDataModule(source)
    module.setup("fit")
    before = source.loads
    first = module.train_histogram(progress=False)
    assert source.loads == before + 9
    assert [path.name for path in own_cache.iterdir()] == [f"{module.fingerprint()}.json"]
    other = ArrayDataModule(source)
    other.setup("fit")
    loads = source.loads
    second = other.train_histogram(progress=False)
    assert source.loads == loads
    assert second.counts.tolist() == first.counts.tolist()
    assert second.edges.tolist() == first.edges.tolist()


@pytest.mark.parametrize("damage", ["", "{", '{"edges": [0]}', "[]", "\x00\x01"])
def test_a_damaged_cache_file_is_rebuilt(own_cache, damage):
    source = counting_source()
    module = ArrayDataModule(source)
    module.setup("fit")
    first = module.train_histogram(progress=False)
    path = own_cache / f"{module.fingerprint()}.json"
    intact = path.read_text()
    path.write_text(damage)
    loads, module.histogram = source.loads, None
    assert module.train_histogram(progress=False).counts.tolist() == first.counts.tolist()
    assert source.loads == loads + 9
    assert path.read_text() == intact


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    for _ in range(2):
        assert cached_histogram("abc", lambda: Histogram([0.0, 1.0], [3.0])).total == 3


def test_a_cache_write_that_fails_half_way_leaves_nothing(own_cache, monkeypatch):
    def disk_full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("os.replace", disk_full)
    assert cached_histogram("abc", lambda: Histogram([0.0, 1.0], [3.0])).total == 3
    assert list(own_cache.iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [
        {"short_side": 22},
        {"crop_size": (18, 28)},
        {"depth_size": (20, 28)},
        {"min_depth": 0.8},
        {"max_depth": 9.0},
        {"bin_width": 0.05},
        {"val_fraction": 0.3},
        {"val_fraction": 0.3, "seed": 1},
    ],
)
def test_the_fingerprint_follows_everything_the_counts_depend_on(change):
    source = array_source(9)
    base, changed = ArrayDataModule(source), ArrayDataModule(source, **change)
    for module in (base, changed):
        module.setup("fit")
    assert base.fingerprint() != changed.fingerprint()


def test_the_fingerprint_ignores_what_the_counts_do_not_depend_on():
    source = array_source(9)
    base, changed = ArrayDataModule(source), ArrayDataModule(source, jitter=0.0, batch_size=2)
    for module in (base, changed):
        module.setup("fit")
    assert base.fingerprint() == changed.fingerprint()


def test_a_nan_in_any_training_depth_is_found_by_the_count_and_named():
    source = array_source(60)
    bad = source.pairs[7][1].copy()
    bad[5, 5] = np.nan
    source.pairs[7] = (source.pairs[7][0], bad)
    module = ArrayDataModule(source, test=array_source(2))
    module.setup("fit")  # sample 7 is none of the probes
    with pytest.raises(DataError, match="array 7: 1 of 768 depth values are NaN"):
        module.train_histogram(progress=False)


def test_coarse_levels_are_spread_over_their_own_width():
    # 8-bit levels of a uniform distribution: every bin holds the same mass, although 2 or 3
    # levels fall into it
    levels = np.tile(np.arange(13, 256, dtype=np.float32) * np.float32(10 / 255), (24, 1))
    module = ArrayDataModule(
        ArraySource([(grey_image(*levels.shape), levels)]),
        short_side=None,
        crop_size=None,
        depth_size=None,
    )
    module.quantum = 10 / 255
    module.setup("fit")
    counts = module.train_histogram(progress=False).counts
    assert np.ptp(counts[1:-1]) < 0.02 * counts.mean()


@pytest.mark.parametrize(("far", "warned"), [(5, True), (4, False)])
def test_more_than_1_percent_of_pixels_beyond_the_greatest_depth_is_warned_of_once(
    caplog, recwarn, far, warned
):
    depth = np.full((10, 50), 10.0, dtype=np.float32)  # at the limit is not beyond it
    depth[:, :10] = 0
    depth[:far, 11] = 12.5  # of 400 pixels with depth
    module = ArrayDataModule(
        ArraySource([(grey_image(10, 50), depth)] * 40),
        short_side=None,
        crop_size=None,
        depth_size=None,
    )
    module.setup("fit")
    with caplog.at_level("WARNING", logger="depthbal"):
        counted = module.train_histogram(progress=False)
    assert counted.counts.tolist() == [0.0] * 92 + [16_000.0]  # 40 x 400, all in the last bin
    assert not recwarn.list  # the histogram's own warning would be a second one
    messages = [record.getMessage() for record in caplog.records if record.name == "depthbal"]
    assert len(messages) == int(warned)
    if warned:
        assert "1.2 % of the training pixels with depth lie beyond 10 m" in messages[0]
        for name in ("--data.max_depth", "--model.max_depth", "label_range"):
            assert name in messages[0]

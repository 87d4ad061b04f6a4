import csv
import warnings

import cv2
import numpy as np
import pytest
import torch

from depthbal.errors import DataError
from depthbal.evaluation import DepthBins, LabelBins, balanced_mask, load_balanced_mask
from tests.shared import SHARED, needs_shared

BINS = DepthBins.nyud2()
pytestmark = pytest.mark.filterwarnings("ignore:balanced mask")


def depth_maps(images=6, shape=(40, 50), seed=0):
    rng = np.random.default_rng(seed)
    depths = rng.uniform(0.3, 10.5, size=(images, *shape))
    depths[rng.random(depths.shape) < 0.1] = 0
    return depths.astype(np.float32)


def bin_counts(depths, masks=None):
    index = BINS.index(torch.from_numpy(np.asarray(depths))).numpy()
    chosen = index >= 0 if masks is None else (index >= 0) & np.stack(list(masks))
    return np.bincount(index[chosen], minlength=100)


@pytest.mark.filterwarnings("error")  # plenty of pixels everywhere is silent
def test_every_bin_gives_as_many_pixels_as_the_smallest_has():
    depths = depth_maps(images=12)
    # a channel of one makes no difference
    balanced = balanced_mask([torch.from_numpy(d)[None] for d in depths], BINS, seed=1)
    counts = bin_counts(depths)
    assert balanced.per_bin == counts[7:].min() > 0
    assert bin_counts(depths, balanced.mask)[7:].tolist() == [balanced.per_bin] * 93
    assert sum(int(m.sum()) for m in balanced.mask) == 93 * balanced.per_bin
    assert balanced.empty_bins == []


def test_the_seed_decides_and_only_the_seed():
    depths = depth_maps()
    first, again, other = (balanced_mask(list(depths), BINS, seed=s) for s in (0, 0, 1))
    assert np.array_equal(np.stack(list(first.mask)), np.stack(list(again.mask)))
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()


@pytest.mark.parametrize("ends", [range(1, 240), [8, 16, 100], []])
def test_how_the_pixels_are_cut_into_maps_changes_nothing(ends):
    depths = depth_maps()
    whole = np.stack(list(balanced_mask(list(depths), BINS).mask)).reshape(-1, 50)
    cut = np.split(depths.reshape(-1, 50), ends)  # into maps of any size
    assert np.array_equal(np.concatenate(list(balanced_mask(cut, BINS).mask)), whole)


def test_every_pixel_of_a_bin_is_equally_likely():
    depths = [np.array([[0.5, 0.5, 1.5, 1.5]]), np.array([[0.5, 1.5, 0.5, 0.5]])]
    bins = LabelBins([0, 1, 2], ["many", "few"])
    draws = 1000
    times = sum(
        np.concatenate(list(balanced_mask(depths, bins, seed=s).mask)) for s in range(draws)
    )
    index = np.concatenate(depths) > 1
    assert (times[index] == draws).all()  # the smallest bin is taken whole
    # 3 of 5: binomial with standard deviation 15; five deviations
    assert np.abs(times[~index] - draws * 3 / 5).max() < 5 * (draws * 0.6 * 0.4) ** 0.5


def test_empty_and_thin_bins_are_named_in_one_warning():
    depths = [np.concatenate([np.full(150, b / 10 + 0.05) for b in range(7, 98)])[None]]
    depths[0] = np.append(depths[0], [[9.85] * 30], axis=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        balanced = balanced_mask(depths, BINS)
    assert len(caught) == 1
    assert str(caught[0].message).startswith(
        "balanced mask: fewer than 100 pixels in 1 of 93 bins, 30 in the thinnest (9.8 to 9.9), "
        "no pixel in 1 of 93 bins: "
    )
    assert balanced.empty_bins == [99]
    assert balanced.per_bin == 30


class Augmented:
    """Other depths at every iteration."""

    passes = 0

    def __iter__(self):
        self.passes += 1
        return iter(depth_maps(seed=self.passes))


@pytest.mark.parametrize(
    ("depths", "message"),
    [
        ([], "has a pixel in a scored bin"),
        ([np.zeros((3, 4))], "has a pixel in a scored bin"),
        ([np.full((3, 4), 0.3)], "has a pixel in a scored bin"),
        ((d for d in depth_maps()), "read twice"),
        (Augmented(), "changed between"),
    ],
)
def test_what_cannot_be_drawn_from_is_an_error(depths, message):
    with pytest.raises(DataError, match=message):
        balanced_mask(depths, BINS)


def test_a_published_mask_is_read_and_described(tmp_path):
    depths = depth_maps()
    drawn = balanced_mask(list(depths), BINS)
    np.save(tmp_path / "test_balanced_mask.npy", np.stack(list(drawn.mask)).astype(np.uint8))
    given = load_balanced_mask(tmp_path / "test_balanced_mask.npy", list(depths), BINS)
    assert np.array_equal(np.stack(list(given.mask)), np.stack(list(drawn.mask)))
    assert given.per_bin == drawn.per_bin
    assert given.describe()["source"] == "test_balanced_mask.npy"
    assert given.describe()["seed"] is None
    assert given.fingerprint() == drawn.fingerprint()


def test_a_mask_of_another_test_set_is_refused(tmp_path):
    path = tmp_path / "mask.npy"
    np.save(path, np.ones((6, 40, 51), dtype=bool))
    with pytest.raises(DataError, match=r"\(6, 40, 51\) for 6 depth maps of \[\(40, 50\)\]"):
        load_balanced_mask(path, list(depth_maps()), BINS)
    path.write_bytes(b"no array")
    with pytest.raises(DataError, match="not a readable npy file"):
        load_balanced_mask(path, list(depth_maps()), BINS)
    np.save(path, np.zeros((6, 40, 50), dtype=bool))
    with pytest.raises(DataError, match="no pixel"):
        load_balanced_mask(path, list(depth_maps()), BINS)


@needs_shared
def test_the_real_test_set_has_the_known_support_in_its_last_bins():
    root = SHARED / "nyuv2"
    with (root / "data/nyu2_test.csv").open() as file:
        paths = [row[1] for row in csv.reader(file)]
    pngs = (cv2.imread(str(root / path), cv2.IMREAD_UNCHANGED) for path in paths)
    depths = [png[6:234, 8:312].astype(np.float32) / 1000 for png in pngs]
    balanced = balanced_mask(depths, BINS)
    index = [BINS.index(torch.from_numpy(depth)).flatten() for depth in depths]
    counts = np.stack([torch.bincount(i[i >= 0], minlength=100).numpy() for i in index])
    images = (counts[:, 90:] > 0).sum(0)
    assert (len(depths), images.min(), images.max()) == (654, 39, 67)
    assert counts[:, 99].max() / counts[:, 99].sum() == pytest.approx(0.37, abs=0.005)
    assert balanced.per_bin == counts.sum(0)[7:].min()
    assert sum(len(pixels) for pixels in balanced.mask.pixels) == 93 * balanced.per_bin
    assert balanced.empty_bins == []

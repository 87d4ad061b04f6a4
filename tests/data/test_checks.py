import numpy as np
import pytest

from depthbal.data import DepthDataset, EvalTransform
from depthbal.data.checks import check_pair, check_split
from depthbal.errors import DataError
from tests.data.make_files import array_source, grey_image, ramp_depth


def test_a_sound_pair_passes_even_without_any_depth():
    check_pair(grey_image(4, 6), ramp_depth(4, 6), "a")
    check_pair(grey_image(4, 6), np.zeros((4, 6), dtype=np.float32), "a")


@pytest.mark.parametrize(
    ("depth", "words"),
    [
        (np.ones((6, 4), np.float32), "depth map is 6 x 4 but its image 4 x 6"),
        (np.ones((4, 6), np.float64), "expected depth as float32 metres, got float64"),
        (np.full((4, 6), np.nan, np.float32), "24 of 24 depth values are NaN or infinite"),
        (np.full((4, 6), np.inf, np.float32), "24 of 24 depth values are NaN or infinite"),
        (np.full((4, 6), -1, np.float32), "smallest depth is -1 m"),
    ],
)
def test_what_is_wrong_is_said_with_the_name_of_the_pair(depth, words):
    with pytest.raises(DataError, match=f"pair 7: .*{words}"):
        check_pair(grey_image(4, 6), depth, "pair 7")


def test_a_single_nan_among_good_values_is_found():
    depth = ramp_depth(4, 6).copy()
    depth[2, 3] = np.nan
    with pytest.raises(DataError, match="1 of 24 depth values are NaN"):
        check_pair(grey_image(4, 6), depth, "a")


@pytest.mark.parametrize("image", [np.zeros((4, 6), np.uint8), np.zeros((4, 6, 3), np.float32)])
def test_an_image_of_another_kind_is_refused(image):
    with pytest.raises(DataError, match=r"a: expected an image uint8 \(H, W, 3\)"):
        check_pair(image, ramp_depth(4, 6), "a")


@pytest.mark.parametrize(("factor", "advice"), [(1000, "0.001"), (100, "0.01"), (0.001, "1000")])
def test_a_wrong_unit_is_named_with_the_scale_that_mends_it(factor, advice):
    depth = np.full((4, 6), 2.1 * factor, dtype=np.float32)
    depth[0] = 0
    with pytest.raises(DataError, match=f"unit is wrong; set scale to {advice} times"):
        check_pair(grey_image(4, 6), depth, "a")


def test_one_plausible_pixel_or_a_few_odd_ones_do_not_accuse_the_unit():
    far = np.full((20, 20), 5000, dtype=np.float32)
    far[3, 3] = 50
    check_pair(grey_image(20, 20), far, "a")
    covered = np.zeros((20, 20), dtype=np.float32)
    covered[0, :3] = 0.05
    check_pair(grey_image(20, 20), covered, "a")


def test_a_split_is_judged_by_pairs_spread_over_it_and_the_others_when_they_are_loaded():
    source = array_source(100)
    split = DepthDataset(source, EvalTransform(24, (20, 28)))
    check_split(split, 0.7, "test")
    image, depth = source.pairs[50]
    source.pairs[50] = (image, -depth)
    check_split(split, 0.7, "test")  # none of the pairs that are looked at
    with pytest.raises(DataError, match="array 50: smallest depth is"):
        split[50]
    source.pairs[40:60] = [source.pairs[50]] * 20
    with pytest.raises(DataError, match=r"array 4\d: smallest depth is"):
        check_split(split, 0.7, "test")


def test_a_split_whose_only_valid_pixel_is_in_a_pair_not_looked_at_is_not_accused():
    source = array_source(100)
    blank = np.zeros((24, 32), np.float32)
    pairs = [(image, blank) for image, _ in source.pairs]
    pairs[50] = source.pairs[50]
    source.pairs = pairs
    check_split(DepthDataset(source, EvalTransform(24, (20, 28))), 0.7, "test")
    source.pairs[50] = pairs[0]
    with pytest.raises(DataError, match="the test split has no pixel with depth"):
        check_split(DepthDataset(source, EvalTransform(24, (20, 28))), 0.7, "test")

import tracemalloc

import numpy as np
import pytest
from scipy import stats

from depthbal.reports.resampling import (
    image_weights,
    resampled_sums,
    seed_weights,
    units_of,
)


def all_weights(units, resamples=400, seed=0):
    return np.concatenate(list(image_weights(units, resamples, seed)))


def test_scenes_are_drawn_whole_in_number_and_their_images_within_them():
    groups = ["a"] * 3 + ["b"] * 2 + ["a"] + ["c"]
    weights = all_weights(units_of(groups))
    of_scene = {name: [i for i, g in enumerate(groups) if g == name] for name in "abc"}
    drawn = np.stack([weights[:, images].sum(1) / len(images) for images in of_scene.values()], 1)
    assert (drawn == drawn.round()).all()  # a scene of 4 images comes as 0, 4, 8, ... images
    assert (drawn.sum(1) == 3).all()  # as many scenes as there are
    assert (weights[:, of_scene["a"]] != weights[:, [0]]).any()  # images vary within a scene


def test_every_image_is_expected_once():
    weights = all_weights(units_of(["a", "a", "b", "c", "c", "c", "d", "e"]), 20000)
    assert weights.mean(0) == pytest.approx(np.ones(8), abs=0.05)  # 0.05 is more than 4 sd


def test_a_scene_seen_or_not_moves_all_its_images_together():
    # of n scenes of m images: var(w) = (1 - 1/n) for the scene, plus m (1/m)(1 - 1/m) within it
    n, m = 10, 4
    weights = all_weights(units_of([str(i // m) for i in range(n * m)]), 40000)
    together = np.cov(weights[:, 0], weights[:, 1])[0, 1]
    apart = np.cov(weights[:, 0], weights[:, m])[0, 1]
    # given k draws of the scene: E = k, cov within = -k/m; var(k) = 1 - 1/n, cov of two = -1/n
    assert weights[:, 0].var() == pytest.approx((1 - 1 / n) + (1 - 1 / m), rel=0.05)
    assert together == pytest.approx((1 - 1 / n) - 1 / m, rel=0.05)
    assert apart == pytest.approx(-1 / n, abs=0.03)


def test_unknown_scenes_become_blocks_of_16_consecutive_images():
    units = units_of([""] * 333)
    assert units.count == 21
    assert units.of_image.tolist() == [i // 16 for i in range(333)]
    assert "21 blocks of 16 consecutive images" in units.text


def test_one_scene_for_all_is_no_scene():
    assert units_of(["the test set"] * 320).count == 20


def test_blocks_of_one_image_are_called_images():
    assert units_of([""] * 15).text == "15 test images"
    assert units_of([""]).text == "1 test image"


def test_known_scenes_stand_beside_blocks_of_the_unknown():
    units = units_of(["x", "", "x", "", "y"] * 64)
    assert units.count == 2 + 128 // 16
    assert len({units.of_image[i] for i in range(320) if i % 5 in (0, 2)}) == 1


def test_resampled_sums_are_those_of_the_repeated_images():
    rng = np.random.default_rng(3)
    units = units_of([str(i // 3) for i in range(31)])
    arrays = [rng.normal(size=(31, 4, 2)), rng.normal(size=(31, 5))]
    found = resampled_sums(arrays, units, 130, seed=7)
    for r, counts in enumerate(all_weights(units, 130, seed=7)):
        repeated = np.repeat(np.arange(31), counts.astype(int))
        for array, out in zip(arrays, found, strict=True):
            assert out[r] == pytest.approx(array[repeated].sum(0), abs=1e-12)


def test_a_seed_gives_the_same_resamples_and_more_of_them_begin_alike():
    units = units_of([""] * 100)
    few, many = all_weights(units, 100, seed=5), all_weights(units, 250, seed=5)
    assert np.array_equal(few, many[:100])
    assert not np.array_equal(few, all_weights(units, 100, seed=6))


def test_memory_does_not_hold_all_weights():
    units, sums = units_of([""] * 4000), np.ones((4000, 3))
    tracemalloc.start()
    resampled_sums([sums], units, 2000, seed=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2000 * 4000 * 8 / 4  # a quarter of the whole matrix


@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_mean_over_seeds_follows_students_t(count):
    values = np.random.default_rng(count).normal(2.0, 0.3, count)
    drawn = seed_weights(list(range(count)), 50000, seed=1) @ values
    t = (drawn - values.mean()) / (values.std(ddof=1) / np.sqrt(count))
    assert stats.kstest(t, stats.t(count - 1).cdf).statistic < 0.008  # 5 % point: 0.0061


def test_methods_of_the_same_seeds_share_their_weights():
    one, same = seed_weights([3, 4], 50, 0), seed_weights([3, 4], 50, 0)
    assert np.array_equal(one, same)
    assert not np.array_equal(one, seed_weights([3, 5], 50, 0))
    assert (seed_weights([3], 50, 0) == 1).all()

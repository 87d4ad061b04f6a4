"""What the numbers of depth files mean, and maps of few rays that become smaller."""

import cv2
import numpy as np
import pytest
import skimage.data

from depthbal.data import EvalTransform, FolderDataModule
from depthbal.data.coding import Coding, decoded, ray_to_z
from depthbal.data.images import resize_depth
from depthbal.errors import DataError
from tests.data.make_files import noise_image, pfm, write_file


def test_a_real_pair_of_middlebury_is_read_as_metres(tmp_path):
    picture, _, disparity = skimage.data.stereo_motorcycle()
    scene = tmp_path / "Motorcycle"
    write_file(scene / "im0.png", picture)
    (scene / "disp0.pfm").write_bytes(pfm(disparity, "<", 0.003922))
    (scene / "calib.txt").write_text(
        "cam0=[994.978 0 311.193; 0 994.978 254.877; 0 0 1]\ndoffs=31.086\nbaseline=193.001\n"
    )
    image, depth = FolderDataModule(tmp_path, layout="middlebury").files("whole").load(0)
    assert np.array_equal(image, picture)
    unknown = ~np.isfinite(disparity)
    assert np.array_equal(depth == 0, unknown)
    expected = 0.193001 * 994.978 / (disparity[~unknown].astype(float) + 31.086)
    np.testing.assert_allclose(depth[~unknown], expected, rtol=1e-6)
    assert 1 < expected.min() < expected.max() < 10
    (scene / "calib.txt").unlink()
    with pytest.raises(DataError, match=r"calib\.txt: no calibration with cam0, baseline and doff"):
        FolderDataModule(tmp_path, layout="middlebury").files("whole").load(0)


def test_a_table_of_levels_says_what_the_numbers_alone_say():
    rng = np.random.default_rng(0)
    raw = rng.integers(0, 65536, (40, 50), dtype=np.uint16)
    raw.flat[:6] = [0, 65535, 65534, 7, 1, 40000]
    for coding in (
        Coding(),
        Coding(invalid=(0.0, 7.0)),
        Coding(sky=(65535, 65534)),
        Coding(inverse=True, sky=(0,)),
        Coding(rotate_bits=3),
    ):
        found = decoded(raw, 0.01, coding)
        for number, metres in zip(raw.ravel().tolist(), found.ravel().tolist(), strict=True):
            if coding.rotate_bits:
                number = int(f"{number:016b}"[-3:] + f"{number:016b}"[:-3], 2)
            expected = number / 100
            if number in (0, 65535, *coding.invalid):
                expected = 0.0
            elif coding.inverse:
                expected = 1 / expected
            if number in coding.sky:
                expected = np.inf
            assert metres == pytest.approx(expected, rel=1e-6)
    as_float = raw.astype(np.float64)
    as_float[raw == 65535] = 0
    assert np.array_equal(decoded(as_float, 0.01, Coding()), decoded(raw, 0.01, Coding()))


@pytest.mark.parametrize("sky", [np.nan, np.inf, 1e10, -1.0])
def test_a_renderers_sky_is_known_to_lie_beyond_if_it_is_named(sky):
    raw = np.array([[sky, 2.0, 0.0]], np.float32)
    assert decoded(raw, 1.0, Coding(sky=(sky,))).tolist() == [[np.inf, 2, 0]]
    assert decoded(raw, 1.0, Coding()).tolist() == [[1e10 if sky == 1e10 else 0, 2, 0]]


@pytest.mark.parametrize(("labels", "expected"), [([], [1, 1, 0]), ([23], [0, 1, 0])])
def test_a_mask_of_the_sky_is_a_folder_of_its_own(tmp_path, labels, expected):
    for index in range(3):
        write_file(tmp_path / f"rgb/{index}.png", noise_image(4, 6, index))
        (tmp_path / "depth").mkdir(exist_ok=True)
        np.save(tmp_path / f"depth/{index}.npy", np.full((4, 6), 5.0, np.float32))
        classes = np.zeros((4, 6), np.uint8)
        classes[0], classes[1] = 10, 23
        write_file(tmp_path / f"classes/{index}.png", classes)
    module = FolderDataModule(tmp_path, sky_mask="classes", sky_labels=labels)
    pairs = module.files("whole")
    assert pairs.beyond
    depth = pairs.load_depth(0)
    assert np.array_equal(np.isinf(depth), np.repeat([[*expected, 0]], 6, 0).T.astype(bool))
    assert (depth[~np.isinf(depth)] == 5).all()


def test_the_length_of_a_ray_is_depth_divided_by_the_cosine():
    fx, fy, cx, cy = 30.0, 40.0, 11.5, 7.25
    factor = ray_to_z((16, 24), (fx, fy, cx, cy))
    for row, column in ((0, 0), (7, 11), (15, 23), (3, 20)):
        point = np.array([(column - cx) / fx, (row - cy) / fy, 1.0]) * 3.7  # at a depth of 3.7
        assert factor[row, column] * np.linalg.norm(point) == pytest.approx(3.7, rel=1e-6)


# ---- few rays ----


def rays(share, size=(352, 1216), seed=0):
    rng = np.random.default_rng(seed)
    return np.where(rng.random(size) < share, rng.uniform(2, 80, size), 0).astype(np.float32)


def slow_shrink(depth, size):
    """Every pixel with depth goes where it falls; of several the nearest stays."""
    small = np.zeros(size, np.float32)
    for row, column in zip(*np.nonzero(np.isfinite(depth) & (depth > 0)), strict=True):
        at = row * size[0] // depth.shape[0], column * size[1] // depth.shape[1]
        small[at] = min(small[at] or np.inf, depth[row, column])
    return small


@pytest.mark.parametrize("size", [(30, 40), (25, 33), (7, 60)])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.05, 0.2])
def test_a_smaller_map_of_few_rays_has_all_of_them_where_they_fall(size, share):
    depth = rays(share, (60, 80))
    assert np.array_equal(resize_depth(depth, size), slow_shrink(depth, size))


def test_few_rays_before_a_sky_keep_both():
    depth = rays(0.05, (60, 80))
    depth[:20] = np.inf
    depth[5, 7] = 30  # a wire
    small = resize_depth(depth, (30, 40))
    assert small[2, 3] == 30
    sky = np.isinf(small)
    assert sky[:10].sum() == 399
    assert not sky[10:].any()


@pytest.mark.parametrize(("share", "least", "nearest"), [(0.05, 0.92, 0.26), (0.16, 0.77, 0.26)])
def test_a_lidars_rays_survive_half_the_size(share, least, nearest):
    depth = rays(share)
    kept = EvalTransform(176, None).depth(depth).count_nonzero().item() / np.count_nonzero(depth)
    assert least < kept < 1
    plain = cv2.resize(depth, (608, 176), interpolation=cv2.INTER_NEAREST_EXACT)
    assert np.count_nonzero(plain) / np.count_nonzero(depth) < nearest
    assert np.isin(EvalTransform(176, None).depth(depth).numpy(), depth).all()


def test_a_dense_map_is_sampled_as_ever():
    depth = rays(0.9)
    plain = cv2.resize(depth, (608, 176), interpolation=cv2.INTER_NEAREST_EXACT)
    assert np.array_equal(resize_depth(depth, (176, 608)), plain)

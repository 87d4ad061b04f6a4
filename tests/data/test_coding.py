"""Files of other programs, what their numbers mean, and maps of few rays that become smaller."""

import cv2
import h5py
import imageio.v3 as imageio
import numpy as np
import PIL.Image
import pytest
import skimage.data
import tifffile

from depthbal.data import EvalTransform, FolderDataModule
from depthbal.data.coding import Coding, decoded, ray_to_z
from depthbal.data.images import read_depth, read_image, resize_depth
from depthbal.errors import DataError
from tests.data.make_files import noise_image, write_image

METRES = np.linspace(0.5, 60, 48 * 64).reshape(48, 64).astype(np.float32)
LEVELS = np.rint(METRES * 1000).astype(np.uint16)


def pfm(array, order, scale, kind="Pf"):
    """The bytes of a PFM file as its makers describe them: rows from the lowest to the highest."""
    height, width = array.shape[:2]
    sign = "-" if order == "<" else ""
    header = f"{kind}\n{width} {height}\n{sign}{scale}\n".encode()
    return header + array[::-1].astype(f"{order}f4").tobytes()


def group(path, **arrays):
    with h5py.File(path, "w") as file:
        file["camera/K"] = np.eye(3)
        for name, array in arrays.items():
            file.create_dataset(f"frame/{name}", data=array, compression="gzip")


def exr(path, dtype):
    library = pytest.importorskip("OpenEXR")
    header = {"compression": library.ZIP_COMPRESSION, "type": library.scanlineimage}
    library.File(header, {"View Layer.Depth.Z": METRES.astype(dtype)}).write(str(path))


WRITERS = {
    "imageio.png": lambda path: imageio.imwrite(path, LEVELS),
    "pillow.png": lambda path: PIL.Image.fromarray(LEVELS).save(path),
    "plain.tiff": lambda path: tifffile.imwrite(path, LEVELS),
    "deflated.tif": lambda path: tifffile.imwrite(path, METRES, compression="zlib"),
    "tiles.tif": lambda path: tifffile.imwrite(path, METRES, tile=(16, 16)),
    "lzw.tif": lambda path: PIL.Image.fromarray(METRES).save(path, compression="tiff_lzw"),
    "little.pfm": lambda path: path.write_bytes(pfm(METRES, "<", 1.0)),
    "big.pfm": lambda path: path.write_bytes(pfm(METRES, ">", 1.0)),
    "scaled.pfm": lambda path: path.write_bytes(pfm(METRES, "<", 0.003922)),
    "grey.pfm": lambda path: path.write_bytes(pfm(np.dstack([METRES] * 3), "<", 1.0, "PF")),
    "opencv.pfm": lambda path: cv2.imwrite(str(path), METRES),
    "half.exr": lambda path: exr(path, np.float16),
    "float.exr": lambda path: exr(path, np.float32),
    "opencv.exr": lambda path: cv2.imwrite(str(path), METRES),
    "group.h5": lambda path: group(path, Depth=METRES, mask=METRES > 1),
    "group.hdf5": lambda path: group(path, depth=LEVELS),
    "compressed.npz": lambda path: np.savez_compressed(path, depth=METRES, other=np.ones(3)),
    "half.npy": lambda path: np.save(path, METRES.astype(np.float16)),
    "big.npy": lambda path: np.save(path, LEVELS.astype(">u2")),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_of_every_format_is_read_whoever_wrote_it(tmp_path, name):
    WRITERS[name](tmp_path / name)
    tolerance = {"rtol": 5e-4} if "half" in name else {"rtol": 1e-6, "atol": 5.1e-4}
    np.testing.assert_allclose(read_depth(tmp_path / name), METRES, **tolerance)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.pfm", b"Pf\n4 4\n-1.0\n" + bytes(12), "not a readable .pfm file"),
        ("a.pfm", b"P5\n4 4\n255\n" + bytes(16), "does not begin with Pf"),
        ("a.h5", {"near": METRES, "far": METRES}, "called .depth.: camera/K, frame/far, frame/nea"),
    ],
)
def test_a_file_that_says_no_depth_is_named(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content) if isinstance(content, bytes) else group(path, **content)
    with pytest.raises(DataError, match=rf"a\.\w+: .*{words}"):
        read_depth(path)


def test_a_real_pair_of_middlebury_is_read_as_metres(tmp_path):
    picture, _, disparity = skimage.data.stereo_motorcycle()
    scene = tmp_path / "Motorcycle"
    write_image(scene / "im0.png", picture)
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


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA", "I;16", "1"])
def test_a_camera_picture_of_any_kind_is_8_bit_rgb(tmp_path, mode):
    grey = np.repeat(noise_image(8, 8)[..., :1], 3, 2)
    if mode == "I;16":
        picture = PIL.Image.fromarray(grey[..., 0].astype(np.uint16) * 257)
    else:
        picture = PIL.Image.fromarray(grey).convert("L").convert(mode)
        grey = np.asarray(picture.convert("RGB"))
    picture.save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), grey)


# ---- what numbers mean ----


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
        write_image(tmp_path / f"rgb/{index}.png", noise_image(4, 6, index))
        (tmp_path / "depth").mkdir(exist_ok=True)
        np.save(tmp_path / f"depth/{index}.npy", np.full((4, 6), 5.0, np.float32))
        classes = np.zeros((4, 6), np.uint8)
        classes[0], classes[1] = 10, 23
        write_image(tmp_path / f"classes/{index}.png", classes)
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

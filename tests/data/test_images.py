"""Files of any program: pictures as 8-bit RGB, depth as float32 metres, and what is refused."""

import struct
import zlib

import h5py
import imageio.v3 as imageio
import numpy as np
import PIL.Image
import pytest
import tifffile
import torch
from torchvision.transforms.functional import normalize, to_tensor

from depthbal.data.images import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    normalise,
    read_depth,
    read_image,
    resize_short_side,
    write_depth,
)
from depthbal.errors import DataError
from tests.data.make_files import noise_image, pfm, write_file

METRES = np.linspace(0.5, 60, 48 * 64).reshape(48, 64).astype(np.float32)
LEVELS = np.rint(METRES * 1000).astype(np.uint16)
FLOATS = METRES.copy()
FLOATS[0, :2] = np.nan, np.inf
OPAQUE = np.full_like(LEVELS, 65535)


def group(path, **arrays):
    with h5py.File(path, "w") as file:
        file["camera/K"] = np.eye(3)
        for name, array in arrays.items():
            file.create_dataset(f"frame/{name}", data=array, compression="gzip")


def exr(path, *names, dtype=np.float32):
    library = pytest.importorskip("OpenEXR")
    header = {"compression": library.ZIP_COMPRESSION, "type": library.scanlineimage}
    other = np.full_like(METRES, 0.5)
    depth = {name: FLOATS if "." not in name or "Depth" in name else other for name in names}
    channels = {name: array.astype(dtype) for name, array in depth.items()}
    library.File(header, channels).write(str(path))


WRITERS = {
    "imageio.png": lambda path: imageio.imwrite(path, LEVELS),
    "pillow.png": lambda path: PIL.Image.fromarray(LEVELS).save(path),
    "grey.png": lambda path: write_file(path, np.dstack([LEVELS] * 3)),
    "alpha.png": lambda path: write_file(path, np.dstack([LEVELS] * 3 + [OPAQUE])),
    "a.pgm": lambda path: write_file(path, LEVELS),
    "plain.tiff": lambda path: tifffile.imwrite(path, LEVELS),
    "deflated.tif": lambda path: tifffile.imwrite(path, FLOATS, compression="zlib"),
    "tiles.tif": lambda path: tifffile.imwrite(path, FLOATS, tile=(16, 16)),
    "lzw.tif": lambda path: PIL.Image.fromarray(FLOATS).save(path, compression="tiff_lzw"),
    "opencv.tiff": lambda path: write_file(path, FLOATS),
    "little.pfm": lambda path: path.write_bytes(pfm(FLOATS, "<", 1.0)),
    "big.pfm": lambda path: path.write_bytes(pfm(FLOATS, ">", 1.0)),
    "scaled.pfm": lambda path: path.write_bytes(pfm(FLOATS, "<", 0.003922)),
    "grey.pfm": lambda path: path.write_bytes(pfm(np.dstack([FLOATS] * 3), "<", 1.0, "PF")),
    "opencv.pfm": lambda path: write_file(path, FLOATS),
    "half.exr": lambda path: exr(path, "View Layer.Depth.Z", dtype=np.float16),
    "layers.exr": lambda path: exr(path, "L.Combined.R", "L.Depth.Z", "L.Normal.Z"),
    "z.exr": lambda path: exr(path, "Z"),
    "v.exr": lambda path: exr(path, "V"),
    "rgb.exr": lambda path: exr(path, "R", "G", "B"),
    "opencv.exr": lambda path: write_file(path, FLOATS),
    "grey.exr": lambda path: write_file(path, np.dstack([FLOATS] * 3)),
    "group.h5": lambda path: group(path, Depth=FLOATS, mask=METRES > 1),
    "group.hdf5": lambda path: group(path, depth=LEVELS),
    "plain.h5": lambda path: write_file(path, FLOATS),
    "compressed.npz": lambda path: np.savez_compressed(path, depth=FLOATS, other=np.ones(3)),
    "half.npy": lambda path: np.save(path, FLOATS.astype(np.float16)),
    "big.npy": lambda path: np.save(path, LEVELS.astype(">u2")),
}


@pytest.mark.parametrize("name", WRITERS)
def test_depth_of_every_format_is_read_whoever_wrote_it_nan_and_infinity_included(tmp_path, name):
    WRITERS[name](tmp_path / name)
    found = read_depth(tmp_path / name)
    tolerance = {"rtol": 5e-4} if "half" in name else {"rtol": 1e-6, "atol": 5.1e-4}
    expected = FLOATS if np.isnan(found[0, 0]) else METRES
    np.testing.assert_allclose(found, expected, **tolerance)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA", "I;16", "1"])
def test_a_picture_of_any_kind_is_8_bit_rgb(tmp_path, mode):
    grey = np.repeat(noise_image(8, 8)[..., :1], 3, 2)
    if mode == "I;16":
        picture = PIL.Image.fromarray(grey[..., 0].astype(np.uint16) * 257)
    elif mode == "RGB":
        picture, grey = PIL.Image.fromarray(noise_image(8, 8)), noise_image(8, 8)
    else:
        picture = PIL.Image.fromarray(grey).convert("L").convert(mode)
        grey = np.asarray(picture.convert("RGB"))
    picture.save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.dtype == np.uint8
    assert np.array_equal(image, grey)


@pytest.mark.parametrize(
    ("stored", "suffix", "scale", "expected"),
    [
        (np.array([[0, 51, 255]], dtype=np.uint8), ".png", 10 / 255, [0.0, 2.0, 10.0]),
        (np.array([[0, 700, 65535]], dtype=np.uint16), ".png", None, [0.0, 0.7, 65.535]),
        (np.array([[0, 700, 65000]], dtype=np.uint16), ".tiff", 0.002, [0.0, 1.4, 130.0]),
        (np.array([[0, 0.7, 9.5]], dtype=np.float32), ".npy", None, [0.0, 0.7, 9.5]),
        (np.array([[0, 70, 950]], dtype=np.float64), ".npy", 0.01, [0.0, 0.7, 9.5]),
        (np.array([[0, 7, 95]], dtype=np.int32), ".npy", 0.1, [0.0, 0.7, 9.5]),
        (np.array([[[0], [1], [2]]], dtype=np.float32), ".npy", None, [0.0, 1.0, 2.0]),
        (np.array([[[0, 1, 2]]], dtype=np.float16), ".npy", None, [0.0, 1.0, 2.0]),
        (np.array([[[[0, 700, 30000]]]], dtype=np.int16), ".npy", None, [0.0, 0.7, 30.0]),
        (np.array([[0, 700, 80000]], dtype=np.int64), ".npy", None, [0.0, 0.7, 80.0]),
    ],
)
def test_depth_is_read_as_float32_metres(tmp_path, stored, suffix, scale, expected):
    path = tmp_path / f"depth{suffix}"
    write_file(path, stored)
    depth = read_depth(path, scale)
    assert depth.dtype == np.float32
    assert depth.shape == (1, 3)
    # the float32 nearest to the decimal number, not a neighbour of it
    assert depth.ravel().tolist() == np.array(expected, dtype=np.float32).tolist()


# ---- what is refused ----


def png_of(width, height):
    """A PNG of 8-bit grey with next to nothing inside."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))]
    chunks += [(b"IDAT", zlib.compress(bytes(64))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


HUGE, COLOURS = png_of(40_000, 40_000), PIL.Image.fromarray(noise_image(8, 8))
TOO_LARGE = "OpenCV cannot decode it .*; shrink .* or .*set OPENCV_IO_MAX_IMAGE_PIXELS"
WHITE = "a picture of float32 has no white; convert it to PNG"
ONE = "expected depth with one channel, got shape"


@pytest.mark.parametrize(
    ("read", "name", "content", "words"),
    [
        (read_depth, "a.pfm", b"Pf\n4 4\n-1.0\n" + bytes(12), "not a readable .pfm file"),
        (read_depth, "a.pfm", b"P5\n4 4\n255\n" + bytes(16), "does not begin with Pf"),
        (read_depth, "a.h5", lambda path: group(path, near=METRES, far=METRES), "frame/far, fram"),
        (read_depth, "a.png", np.ones((2, 2), np.uint8), "depth is stored as uint8.*set scale"),
        (read_depth, "a.png", noise_image(4, 4), ONE + r" \(4, 4, 3\)"),
        (read_depth, "a.png", lambda path: COLOURS.convert("P").save(path), ONE),
        (read_depth, "a.npy", np.arange(24).reshape(2, 3, 4), ONE + r" \(2, 3, 4\)"),
        (read_depth, "a.npy", np.array([{"a": 1}], dtype=object), "Python objects"),  # not opened
        (read_depth, "a.npy", b"not an array", "not a readable"),
        (read_depth, "a.png", HUGE, TOO_LARGE),
        (read_image, "a.png", HUGE, TOO_LARGE),
        (read_image, "a.exr", np.ones((4, 4, 3), np.float32), WHITE),
        (read_image, "a.tiff", np.ones((4, 4, 3), np.float32), WHITE),
        (read_image, "a.exr", b"\x76\x2f\x31\x01 cut off", "cannot decode|not a readable image"),
        (read_image, "a.png", None, r"cannot be read \(No such file"),
        *(
            (read, name, content, "not a readable image|truncated at")
            for read in (read_image, read_depth)
            for name in ("a.png", "a.jpg")
            for content in (b"", b"not an image", b"\x89PNG\r\n\x1a\n IEND")
        ),
    ],
)
def test_what_cannot_be_read_is_an_error_that_names_it_and_the_way_out(
    tmp_path, read, name, content, words
):
    if callable(content):
        content(tmp_path / name)
    elif content is not None:
        write_file(tmp_path / name, content)
    with pytest.raises(DataError, match=rf"{name}: .*({words})"):
        read(tmp_path / name)


@pytest.mark.parametrize("share", [0.3, 0.9, 0.99])
@pytest.mark.parametrize(
    ("name", "array", "read"),
    [
        ("cut.jpg", noise_image(64, 64), read_image),
        ("cut.png", noise_image(64, 64), read_image),
        ("cut.png", noise_image(64, 64)[..., 0].astype(np.uint16), read_depth),
        ("cut.npy", noise_image(64, 64)[..., 0].astype(float), read_depth),
    ],
)
def test_a_truncated_file_is_an_error_that_names_it(tmp_path, name, array, read, share):
    write_file(tmp_path / name, array)
    content = (tmp_path / name).read_bytes()
    write_file(tmp_path / name, content[: int(len(content) * share)])
    words = "" if name == "cut.npy" else ": the file is truncated"
    with pytest.raises(DataError, match=name + words):
        read(tmp_path / name)


# ---- writing and resizing ----


def test_depth_is_written_in_rounded_steps_that_reach_all_and_holes_as_zero(tmp_path):
    depth = np.array([[0.0, 1.2344, 1.2346], [-3.0, np.nan, np.inf], [65.535, 8.0, 0.0004]])
    assert write_depth(tmp_path / "a.png", depth) == 0.001
    stored = np.asarray(PIL.Image.open(tmp_path / "a.png"))
    assert stored.tolist() == [[0, 1234, 1235], [0, 0, 0], [65535, 8000, 0]]
    assert write_depth(tmp_path / "a.png", depth[:2], top=65.536) == 0.002
    assert read_depth(tmp_path / "a.png")[0].tolist() == [0, *np.float32([1.234, 1.234])]
    assert read_depth(tmp_path / "a.png", 1.0)[0].tolist() == [0, 617, 617]  # as the user says


def test_normalise_agrees_with_torchvision():
    image = noise_image(7, 9)
    expected = normalize(to_tensor(image), IMAGENET_MEAN, IMAGENET_STD)
    torch.testing.assert_close(normalise(image), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("size", [(480, 640), (640, 480), (241, 323), (100, 133)])
def test_nearest_resizing_agrees_with_pillow(size):
    depth = np.random.default_rng(1).uniform(0.7, 10, size).astype(np.float32)
    resized = resize_short_side(depth, 240, nearest=True)
    height, width = resized.shape
    assert min(height, width) == 240
    expected = np.asarray(
        PIL.Image.fromarray(depth).resize((width, height), PIL.Image.Resampling.NEAREST)
    )
    # where a sample falls on a pixel border the two may round to either side of it
    assert np.mean(resized == expected) > 0.98
    assert np.isin(resized, depth).all()


def test_images_shrink_without_aliasing_and_the_right_size_is_left_alone():
    stripes = np.zeros((400, 400, 3), dtype=np.uint8)
    stripes[:, ::4] = 255  # one bright column in four: grey at a distance
    small = resize_short_side(stripes, 50, nearest=False)
    assert np.abs(small.astype(float) - 63.75).max() < 2
    assert resize_short_side(stripes, 400, nearest=False) is stripes

import struct
import zlib

import cv2
import numpy as np
import PIL.Image
import pytest
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
from tests.data.make_files import noise_image


@pytest.mark.parametrize(
    ("stored", "pixel"),
    [
        (np.full((4, 5, 3), [200, 0, 10], np.uint8), [200, 0, 10]),
        (np.full((4, 5), 77, np.uint8), [77] * 3),
        (np.full((4, 5, 4), 77, np.uint8), [77] * 3),
        (np.full((4, 5), 77 * 256, np.uint16), [77] * 3),
    ],
    ids=["colour", "grey", "transparent", "16 bit"],
)
def test_images_are_read_as_8_bit_rgb(tmp_path, stored, pixel):
    PIL.Image.fromarray(stored).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.dtype == np.uint8
    assert np.array_equal(image, np.full((4, 5, 3), pixel))


def write(path, content):
    """Write bytes as they are and an array as the suffix says; None leaves the file out."""
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif path.suffix == ".npy":
        np.save(path, content)
    elif content is not None:
        assert cv2.imwrite(str(path), content)


@pytest.mark.parametrize(
    ("stored", "suffix", "scale", "expected"),
    [
        (np.array([[0, 51, 255]], dtype=np.uint8), ".png", 10 / 255, [0.0, 2.0, 10.0]),
        (np.array([[0, 700, 65000]], dtype=np.uint16), ".png", None, [0.0, 0.7, 65.0]),
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
    write(path, stored)
    depth = read_depth(path, scale)
    assert depth.dtype == np.float32
    assert depth.shape == (1, 3)
    # the float32 nearest to the decimal number, not a neighbour of it
    assert depth.ravel().tolist() == np.array(expected, dtype=np.float32).tolist()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.png", np.ones((2, 2), np.uint8), r"depth is stored as uint8.*set scale"),
        ("a.png", noise_image(4, 4), r"expected depth with one channel, got .*4, 4, 3"),
        ("a.npy", np.array([{"a": 1}], dtype=object), "Python objects"),  # is never opened
        ("a.npy", b"not an array", "not a readable"),
        ("a.png", None, r"cannot be read \(No such file"),
    ],
)
def test_depth_that_cannot_be_understood_is_an_error_that_names_it(tmp_path, name, content, words):
    write(tmp_path / name, content)
    with pytest.raises(DataError, match=rf"{name}: .*{words}"):
        read_depth(tmp_path / name)


@pytest.mark.parametrize("content", [None, b"", b"not an image", b"\x89PNG\r\n\x1a\n IEND"])
@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_a_file_that_is_missing_or_no_image_is_an_error_that_names_it(tmp_path, name, content):
    write(tmp_path / name, content)
    with pytest.raises(DataError, match=name):
        read_image(tmp_path / name)
    with pytest.raises(DataError, match=name):
        read_depth(tmp_path / name, 1.0)


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
    write(tmp_path / name, array)
    content = (tmp_path / name).read_bytes()
    write(tmp_path / name, content[: int(len(content) * share)])
    words = "" if name == "cut.npy" else ": the file is truncated"
    with pytest.raises(DataError, match=name + words):
        read(tmp_path / name)


def test_depth_is_written_in_rounded_steps_that_reach_all_and_holes_as_zero(tmp_path):
    depth = np.array([[0.0, 1.2344, 1.2346], [-3.0, np.nan, np.inf], [65.535, 8.0, 0.0004]])
    assert write_depth(tmp_path / "a.png", depth) == 0.001
    stored = np.asarray(PIL.Image.open(tmp_path / "a.png"))
    assert stored.tolist() == [[0, 1234, 1235], [0, 0, 0], [65535, 8000, 0]]
    assert write_depth(tmp_path / "a.png", depth[:2], top=65.536) == 0.002
    assert read_depth(tmp_path / "a.png")[0].tolist() == [0, *np.float32([1.234, 1.234])]
    assert read_depth(tmp_path / "a.png", 1.0)[0].tolist() == [0, 617, 617]  # as the user says


def png_of(width, height):
    """A PNG of 8-bit grey with next to nothing inside."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))]
    chunks += [(b"IDAT", zlib.compress(bytes(64))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


@pytest.mark.parametrize("read", [read_image, read_depth])
def test_what_opencv_refuses_is_a_line_with_the_way_out(tmp_path, read):
    (tmp_path / "huge.png").write_bytes(png_of(40_000, 40_000))
    with pytest.raises(DataError, match=r"huge\.png: .*OPENCV_IO_MAX_IMAGE_PIXELS"):
        read(tmp_path / "huge.png")


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

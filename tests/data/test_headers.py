import struct

import cv2
import numpy as np
import PIL.Image
import pytest

from depthbal.data import headers
from depthbal.data.headers import check_files
from depthbal.data.images import read_image
from depthbal.errors import DataError
from tests.data.make_files import noise_image


@pytest.fixture
def unread(monkeypatch):
    """Make reading in full an error: the few bytes must do."""
    for name in ("read_image", "read_raw_depth"):
        monkeypatch.setattr(headers, name, lambda path: pytest.fail(f"{path} was read in full"))


def write(path, array, **kwargs):
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        PIL.Image.fromarray(array).save(path, **kwargs)
    return str(path)


DEPTH = np.full((24, 32), 2000, np.uint16)


@pytest.mark.parametrize("image", ["a.png", "a.jpg", "progressive.jpg", "preview.jpg"])
@pytest.mark.parametrize("depth", ["d.png", "d.npy"])
def test_the_size_is_found_without_reading_the_files(tmp_path, unread, image, depth):
    kwargs = {"progressive": True} if image.startswith("prog") else {}
    if image.startswith("preview"):  # long segments push the size behind the first bytes
        kwargs = {"icc_profile": bytes(100_000), "comment": b"\xff\xd9" * 900}
    image = write(tmp_path / image, noise_image(24, 32), **kwargs)
    assert check_files(image, write(tmp_path / depth, DEPTH), "pair") == (24, 32)


@pytest.mark.parametrize("suffix", [".png", ".npy"])
@pytest.mark.parametrize("shape", [(32, 24), (24, 31), (12, 16)])
def test_depth_of_another_size_than_its_image_is_named(tmp_path, suffix, shape):
    image = write(tmp_path / "a.jpg", noise_image(24, 32))
    depth = write(tmp_path / f"d{suffix}", np.ones(shape, np.uint16))
    words = f"pair 3: the depth map is {shape[0]} x {shape[1]} but its image 24 x 32"
    with pytest.raises(DataError, match=words):
        check_files(image, depth, "pair 3")


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("orientation", [1, 3, 5, 6, 8])
def test_the_size_of_an_image_is_that_after_turning_it_upright(tmp_path, suffix, orientation):
    exif = PIL.Image.Exif()
    exif[0x010F] = "a camera"
    exif[0x0112] = orientation
    stored = (24, 32) if orientation < 5 else (32, 24)
    image = write(tmp_path / f"a{suffix}", noise_image(*stored), exif=exif)
    assert read_image(image).shape[:2] == (24, 32)
    assert check_files(image, write(tmp_path / "d.png", DEPTH), "pair") == (24, 32)
    if suffix == ".jpg":
        with pytest.raises(DataError, match="depth map is 32 x 24 but its image 24 x 32"):
            check_files(image, write(tmp_path / "e.png", DEPTH.T.copy()), "pair")


def test_a_jpegs_exif_tag_is_followed_without_reading_the_image(tmp_path, unread):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    image = write(tmp_path / "a.jpg", noise_image(32, 24), exif=exif)
    assert check_files(image, write(tmp_path / "d.png", DEPTH), "pair") == (24, 32)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "d.png", "d.npy"])
@pytest.mark.parametrize("damage", ["empty", "truncated", "head", "foreign", "archive", "missing"])
def test_a_damaged_file_is_named(tmp_path, name, damage):
    files = {
        "a": write(tmp_path / (name if name[0] == "a" else "a.png"), noise_image(24, 32)),
        "d": write(tmp_path / (name if name[0] == "d" else "d.png"), DEPTH),
    }
    path = tmp_path / name
    content = path.read_bytes()
    contents = {
        "empty": b"",
        "truncated": content[:-20],
        "head": content[:7],
        "foreign": b"<html>404</html>" * 20,
        "archive": b"PK\x03\x04 of an npz file, cut off",
    }
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(contents[damage])
    with pytest.raises(DataError, match=rf"{name}: (the file is|not a|cannot be)"):
        check_files(files["a"], files["d"], "pair")


@pytest.mark.parametrize("place", [0xC0, 0xDA])
def test_a_jpeg_without_a_size_is_named(tmp_path, place):
    path = tmp_path / "a.jpg"
    if place == 0xC0:
        path.write_bytes(b"\xff\xd8\xff\xc0" + struct.pack(">HBHH", 17, 8, 0, 0) + b"\0\0\xff\xd9")
    else:
        path.write_bytes(b"\xff\xd8\xff\xda\x00\x08" + bytes(20) + b"\xff\xd9")
    with pytest.raises(DataError, match=r"a\.jpg: not a readable image"):
        check_files(str(path), write(tmp_path / "d.png", DEPTH), "pair")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colour_coded_depth_is_named(tmp_path, mode):
    image = write(tmp_path / "a.jpg", noise_image(24, 32))
    PIL.Image.fromarray(noise_image(24, 32)).convert(mode).save(tmp_path / "d.png")
    with pytest.raises(DataError, match=r"d\.png: expected depth with one channel"):
        check_files(image, str(tmp_path / "d.png"), "pair")


def test_arrays_with_a_channel_axis_count_as_maps_and_pickles_are_refused(tmp_path):
    image = write(tmp_path / "a.jpg", noise_image(24, 32))
    for shape in ((1, 24, 32), (24, 32, 1)):
        depth = write(tmp_path / "d.npy", np.ones(shape, np.float32))
        assert check_files(image, depth, "pair") == (24, 32)
    np.save(tmp_path / "d.npy", np.array([{}] * 4).reshape(2, 2), allow_pickle=True)
    with pytest.raises(DataError, match=r"d\.npy: not a readable"):
        check_files(image, depth, "pair")


def test_formats_without_a_cheap_size_are_left_to_loading(tmp_path, unread):
    for suffix in (".bmp", ".webp", ".tiff"):
        image, depth = tmp_path / f"a{suffix}", tmp_path / f"d{suffix}"
        for path, array in ((image, noise_image(24, 32)), (depth, DEPTH.astype(np.uint8))):
            assert cv2.imwrite(str(path), array)
        assert check_files(str(image), str(depth), "pair") is None

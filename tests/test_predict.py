"""`depthbal predict` on pictures, folders and videos; what it writes, read by other programs."""

import struct
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest
import tifffile
import torch
from torch import nn

from depthbal import Predictor, load_predictor
from depthbal.data.images import read_depth, read_image, read_video
from depthbal.errors import ConfigError
from depthbal.losses import GAILoss, MSELoss, SILogLoss, truncated_normal_mean
from depthbal.models import SmpDepth
from tests.data.make_files import noise_image, write_file
from tests.test_predictor import MIXTURE, RANGE, UNCHANGED, checkpoint_of
from tests.training.helpers import command

RED = {"in_channels": 3, "out_channels": 1, "kernel_size": 1}


def network_of(path, top=9.0, criterion=None, low=0.5):
    """A checkpoint that sees `low` metres where a picture has no red, `top` where it is red."""
    network = nn.Conv2d(**RED)
    nn.init.zeros_(network.weight)
    network.weight.data[0, 0] = top - low
    nn.init.constant_(network.bias, low)
    described = {"class_path": "torch.nn.Conv2d", "init_args": RED}
    changes = {"model": described, "input": UNCHANGED, "label_range": None}
    torch.save(checkpoint_of(network, criterion or MSELoss(), "raw", **changes), path)
    return path


@pytest.fixture(autouse=True)
def somewhere_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def predict(network, *arguments):
    return command("predict", network, *arguments, "--device", "cpu")


def picture(path, size=(24, 32), seed=0):
    write_file(path, noise_image(*size, seed=seed))
    return path


READERS = {
    "png": lambda path: np.asarray(PIL.Image.open(path)),
    "npy": np.load,
    "tiff": tifffile.imread,
}


@pytest.mark.parametrize(("top", "step"), [(9.0, 0.001), (65.5, 0.001), (80, 0.002), (3e4, 0.458)])
@pytest.mark.parametrize("kind", READERS)
def test_any_range_is_written_so_that_others_and_we_read_it_back(tmp_path, kind, top, step, capsys):
    network = network_of(tmp_path / "net.ckpt", top)
    assert predict(network, picture(tmp_path / "a.png"), "--format", kind) == 0
    said = capsys.readouterr().out
    expected = load_predictor(network).predict(tmp_path / "a.png")
    file = tmp_path / f"a_depth.{kind}"
    stored, tolerance = READERS[kind](file), 0.0
    if kind == "png":
        assert stored.dtype == np.uint16
        written, unit = PIL.Image.open(file).text["depthbal:scale"].split()
        assert (float(written), unit) == (step, "m")
        assert (f"in steps of {step:g} m" in said) == (step != 0.001)
        stored, tolerance = stored * step, step / 2 + top * 1e-7
    np.testing.assert_allclose(stored, expected, rtol=0, atol=tolerance)
    np.testing.assert_allclose(read_depth(file), expected, rtol=0, atol=tolerance)
    assert np.asarray(PIL.Image.open(tmp_path / "a_colour.png")).shape == (24, 32, 4)


def test_all_maps_of_a_network_with_a_range_have_one_scale(tmp_path):
    criterion = GAILoss(MIXTURE, label_range=(0.7, 100.0))
    network = network_of(tmp_path / "net.ckpt", 9.0, criterion)
    content = torch.load(network)
    content["depthbal"]["label_range"] = [0.7, 100.0]
    torch.save(content, network)
    assert predict(network, picture(tmp_path / "a.png"), "--interval") == 0
    texts = {PIL.Image.open(file).text["depthbal:scale"] for file in tmp_path.glob("*depth*.png")}
    assert texts == {"0.002 m"}


@pytest.mark.parametrize("kind", ["png", "npy"])
def test_the_interval_lies_beside_the_depth(tmp_path, kind):
    criterion = GAILoss(MIXTURE, label_range=RANGE, init_noise_sigma=0.8)
    network = network_of(tmp_path / "net.ckpt", 9.0, criterion)
    options = ["--interval", "--format", kind, "--tta", "flip"]  # which sees each pixel alike
    assert predict(network, picture(tmp_path / "a.png"), *options) == 0
    depth, (low, high) = load_predictor(network).predict_with_interval(tmp_path / "a.png")
    for part, expected in (("", depth), ("_low", low), ("_high", high)):
        found = read_depth(tmp_path / f"a_depth{part}.{kind}")
        np.testing.assert_allclose(found, expected, rtol=0, atol=0.0006)
    assert (low < high).all()


class Sided(nn.Module):
    """Metres that depend on the column: of a mirrored image another answer."""

    def forward(self, images):
        return images[:, :1] * torch.linspace(1, 4, images.shape[-1])


def test_flipping_averages_the_raw_output_before_it_is_read_out(tmp_path):
    image = noise_image(6, 8)
    criterion = GAILoss(MIXTURE, label_range=RANGE, init_noise_sigma=2.0)
    predictor = Predictor(Sided(), criterion, UNCHANGED, "mean")
    red, slope = torch.from_numpy(image[..., 0] / 255), torch.linspace(1, 4, 8)
    raw = (red * slope + red * slope.flip(0)) / 2
    expected = truncated_normal_mean(raw, 2.0, RANGE)
    depth, ends = predictor.predict_with_interval(image, flip=True)
    np.testing.assert_allclose(depth, expected, atol=1e-5)
    np.testing.assert_allclose(ends[1], predictor.interval(raw)[1], atol=1e-5)
    views = [truncated_normal_mean(red * s, 2.0, RANGE) for s in (slope, slope.flip(0))]
    assert np.abs(depth - sum(views).numpy() / 2).max() > 0.01  # the other order is another answer


@pytest.mark.filterwarnings("ignore:tiles")
@pytest.mark.parametrize("size", [(50, 70), (16, 16), (9, 100), (33, 16), (64, 17)])
@pytest.mark.parametrize("tile", [16, 23, 1000])
def test_tiles_of_a_network_that_sees_single_pixels_give_what_the_whole_gives(size, tile):
    network = nn.Conv2d(**RED)
    predictor, image = Predictor(network, None, UNCHANGED), noise_image(*size)
    expected = predictor.predict(image)
    np.testing.assert_allclose(predictor.predict(image, tile=tile), expected, rtol=1e-5, atol=1e-5)


class Means(nn.Module):
    """Everywhere the mean of what it sees."""

    def forward(self, images):
        return images[:, :1].mean((-2, -1), keepdim=True).expand(-1, -1, *images.shape[-2:])


@pytest.mark.filterwarnings("ignore:tiles")
def test_tiles_are_blended_without_a_seam():
    image = np.zeros((20, 50, 3), np.uint8)
    image[:, 25:] = 255  # tiles of 20 begin at 0, 15 and 30 and fade over 5
    row = Predictor(Means(), None, UNCHANGED).predict(image, tile=20)[10]
    fade = [0.05, 0.15, 0.25, 0.35, 0.45]
    expected = [0.0] * 15 + fade + [0.5] * 10 + [0.5 + f for f in fade] + [1.0] * 15
    np.testing.assert_allclose(row, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("network", "criterion", "tile", "words"),
    [
        (Means(), SILogLoss(scale_invariance=1.0), 64, "leaves the scale of every tile open"),
        (nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), None, 8, "depth maps"),
        (SmpDepth("fpn"), None, 31, "smaller than the 32 that SmpDepth needs"),
    ],
)
def test_tiles_need_maps_of_metric_depth(network, criterion, tile, words):
    with pytest.raises(ConfigError, match=words):
        Predictor(network, criterion, UNCHANGED).predict(noise_image(9, 9), tile=tile)


def test_tiles_remind_of_what_they_do_not_see_and_of_the_scale_of_the_training():
    predictor = Predictor(Means(), None, {**UNCHANGED, "short_side": 8})
    with pytest.warns(UserWarning, match="see less than the whole picture and 3 times enlarged"):
        predictor.predict(noise_image(24, 30), tile=16)


def read_ply(path):
    """Read a point cloud by its header alone."""
    head, _, body = path.read_bytes().partition(b"end_header\n")
    lines = head.decode().splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    kinds = {"float": "<f4", "uchar": "u1"}
    fields = [line.split()[1:] for line in lines if line.startswith("property")]
    points = np.frombuffer(body, [(name, kinds[kind]) for kind, name in fields])
    assert f"element vertex {len(points)}" in lines
    return points


@pytest.mark.parametrize("camera", [["--intrinsics", "40,50,15,11"], ["--fov", "60"]])
def test_the_points_of_a_cloud_project_onto_their_pixels(tmp_path, camera):
    network = network_of(tmp_path / "net.ckpt", low=-1.0)
    file = picture(tmp_path / "a.png")
    assert predict(network, file, *camera) == 0  # a camera is for the points
    depth, image = load_predictor(network).predict(file), read_image(file)
    points, shown = read_ply(tmp_path / "a.ply"), depth > 0
    assert 0 < shown.sum() < depth.size
    focal = 16 / np.tan(np.pi / 6)
    fx, fy, cx, cy = (40, 50, 15, 11) if "40" in camera[1] else (focal, focal, 15.5, 11.5)
    rows, columns = np.nonzero(shown)
    np.testing.assert_allclose(points["x"] * fx / points["z"] + cx, columns, atol=1e-4)
    np.testing.assert_allclose(points["y"] * fy / points["z"] + cy, rows, atol=1e-4)
    np.testing.assert_array_equal(points["z"], depth[shown])
    colours = np.stack([points[name] for name in ("red", "green", "blue")], axis=1)
    np.testing.assert_array_equal(colours, image[shown])


def video(path, frames, rate=24000 / 1001):
    code = cv2.VideoWriter.fourcc(*("MJPG" if path.suffix == ".avi" else "mp4v"))
    writer = cv2.VideoWriter(str(path), code, rate, frames[0].shape[1::-1])
    for frame in frames:
        writer.write(frame[..., ::-1].copy())
    writer.release()
    return path


def frames_of(path):
    capture, found = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        found.append(read[1][..., ::-1])
    return found, capture.get(cv2.CAP_PROP_FPS)


@pytest.mark.parametrize("name", ["walk.mp4", "walk.avi"])
def test_a_video_gives_a_map_per_frame_and_a_video_of_one_range_of_colours(tmp_path, name, capsys):
    network = network_of(tmp_path / "net.ckpt", 80.0)
    shown = [np.full((48, 64, 3), level, np.uint8) for level in (40, 120, 200)]
    video(tmp_path / name, shown)
    assert predict(network, tmp_path / name, "--out", "seen") == 0
    assert "3 frames" in capsys.readouterr().out
    files = sorted((tmp_path / "seen" / "walk_depth").iterdir())
    assert [file.name for file in files] == [f"{number:06d}.png" for number in range(3)]
    for file, frame in zip(files, frames_of(tmp_path / name)[0], strict=True):
        expected = load_predictor(network).predict(np.ascontiguousarray(frame))
        np.testing.assert_allclose(read_depth(file), expected, atol=0.0011)
    colours, rate = frames_of(tmp_path / "seen" / "walk_colour.mp4")
    assert rate == pytest.approx(23.976, abs=0.001)
    red, green, blue = np.array([frame.mean((0, 1)) for frame in colours]).T
    assert blue[0] > red[0]  # the nearest frame is blue, the farthest red
    assert green.argmax() == 1
    assert red[2] > blue[2]


def test_a_video_of_a_phone_is_turned_upright(tmp_path):
    shown = np.zeros((48, 64, 3), np.uint8)
    shown[:, :32] = 255
    content = bytearray(video(tmp_path / "flat.mp4", [shown]).read_bytes())
    matrix = content.index(b"tkhd") + 44  # a quarter turn, clockwise, as phones write it
    content[matrix : matrix + 36] = struct.pack(
        ">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 48 << 16, 0, 1 << 30
    )
    (tmp_path / "phone.mp4").write_bytes(content)
    (frame,) = read_video(tmp_path / "phone.mp4")
    assert frame.shape == (64, 48, 3)
    assert frame[:28].min() > 200
    assert frame[36:].max() < 50


KINDS = ("depth", "colour")


def sorted_files(folder):
    return sorted(path for path in Path(folder).rglob("*") if path.is_file())


def test_one_bad_picture_among_many_is_named_and_the_others_are_done(tmp_path, capsys):
    network = network_of(tmp_path / "net.ckpt")
    for name in ("a/room.png", "a/room.tif", "b/room.png", "c.png", ".bin/hidden.png"):
        picture(tmp_path / "pics" / name)
    (tmp_path / "pics" / "notes.txt").touch()
    (tmp_path / "pics" / "a" / "torn.jpg").write_bytes(b"no picture")
    (tmp_path / "pics" / "b" / "empty.mp4").write_bytes(b"no video")
    assert predict(network, "pics", "--out", "pics/out") == 2
    message = capsys.readouterr().err
    assert "2 of 6 could not be predicted" in message
    assert "torn.jpg" in message
    assert "empty.mp4: no frame" in message
    written = {path.relative_to("pics/out").as_posix() for path in sorted_files("pics/out")}
    names = ("a/room.png", "a/room.tif", "b/room", "c")  # two of one name keep their endings
    assert written == {f"{n}_{k}.png" for n in names for k in KINDS}


def test_what_is_there_is_skipped_and_what_was_written_is_no_input(tmp_path, capsys):
    network = network_of(tmp_path / "net.ckpt")
    picture(tmp_path / "pics" / "a.png")
    assert predict(network, "pics", "--out", "pics") == 0
    first = {path: path.stat().st_mtime_ns for path in sorted_files("pics")}
    picture(tmp_path / "pics" / "b.png")
    assert predict(network, "pics", "--out", "pics") == 2
    assert "give --skip-existing or --overwrite" in capsys.readouterr().err
    assert predict(network, "pics", "--out", "pics", "--skip-existing") == 0
    assert "1 of 2 have their files already" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in first} == first
    assert predict(network, "pics", "--out", "pics", "--overwrite") == 0
    assert all(path.stat().st_mtime_ns > first[path] for path in first if path.name != "a.png")
    names = {path.name for path in sorted_files("pics")}
    assert names == {"a.png", "b.png", *(f"{n}_{k}.png" for n in "ab" for k in KINDS)}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("a.png --ply", "give --intrinsics FX,FY,CX,CY"),
        ("a.png --ply --fov 180", "below 180"),
        ("a.png --ply --intrinsics 500,500,320,240", "lies outside the picture of 32 x 24"),
        ("a.png --interval", "has no scale of normal noise"),
        ("a.png b/a.png", "several images are named a"),
        ("torn.png", "torn.png"),
        ("empty", "no picture in the folder empty"),
    ],
)
def test_what_cannot_be_done_is_one_line(tmp_path, options, words, capsys):
    network = network_of(tmp_path / "net.ckpt")
    for name in ("a.png", "b/a.png"):
        picture(tmp_path / name)
    (tmp_path / "torn.png").write_bytes(b"no picture")
    (tmp_path / "empty").mkdir()
    assert predict(network, *options.split(), "--out", "none") == 2
    (message,) = capsys.readouterr().err.splitlines()
    assert words in message
    assert not Path("none", "a_colour.png").exists()

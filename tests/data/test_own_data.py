"""What people bring: the files, layouts, units and ranges of published sets and of reports."""

import warnings

import cv2
import numpy as np
import PIL.Image
import pytest
import torch

from depthbal.data import FolderDataModule
from depthbal.data.images import as_scale, read_image
from depthbal.errors import ConfigError, DataError
from tests.data.make_files import metres, noise_image, ramp_depth, write_file, write_folder

PLAIN = {"short_side": None, "num_workers": 0, "batch_size": 4}


def write_pairs(root, depths, suffix=".npy"):
    """Write rgb/N.png and depth/N of several maps."""
    for index, depth in enumerate(depths):
        write_file(root / "rgb" / f"{index}.png", noise_image(*depth.shape[:2], index))
        write_file(root / "depth" / f"{index}{suffix}", depth)
    return root


def ready(root, **settings):
    module = FolderDataModule(root, **{**PLAIN, **settings})
    module.setup("fit")
    return module


# ---- the whole picture ----


@pytest.mark.parametrize(
    ("crop", "share", "words"),
    [(None, 1.0, "100% of each counts;"), ((20, 24), 0.25, "25% of each counts (all of it with")],
)
def test_own_pictures_count_whole_unless_a_crop_is_asked_for_which_is_said(
    tmp_path, caplog, crop, share, words
):
    street = np.full((24, 80), 8.5, np.float32)
    street[:, 25:55] = 3
    write_pairs(tmp_path, [street] * 8)
    with caplog.at_level("INFO"):
        module = ready(tmp_path, crop_size=crop, short_side=24)
    assert words in caplog.text
    assert module.describe()["picture_share"] == pytest.approx(share)
    counts = module.train_histogram().counts
    far = counts[78] / counts.sum()  # the bin from 8.5 m
    assert far == (pytest.approx(50 / 80, abs=0.02) if crop is None else 0)
    assert module.test_set[0]["depth"].shape[1:] == (crop or (24, 80))
    assert module.train_set[0, 0]["depth"].shape[1:] == ((12, 40) if crop is None else (10, 12))


def test_pictures_of_several_sizes_are_batched_without_cutting_any(tmp_path):
    write_folder(tmp_path, 20, metres, sizes=((24, 32), (32, 24), (24, 41)))
    module = ready(tmp_path, flip=0, rotation=0, lighting=0, jitter=0, batch_size=18)
    (batch,) = module.train_dataloader()
    assert batch["image"].shape[-2:] == (32, 41)
    assert batch["depth"].shape[-2:] == (16, 21)
    for name, depth in zip(batch["name"], batch["depth"][:, 0], strict=True):
        index = int(name[4:7])
        height, width = ((12, 16), (16, 12), (12, 21))[index % 3]
        assert (depth[:height, :width] > 0).all()
        assert depth.count_nonzero() == height * width


@pytest.mark.parametrize(
    ("suffix", "code"),
    [(suffix, code) for suffix in (".png", ".jpg", ".webp") for code in range(1, 9)]
    + [(".tiff", code) for code in range(1, 5)],  # OpenCV reads no TIFF that lies on its side
)
@pytest.mark.parametrize("upright", [False, True])
def test_a_depth_map_is_turned_with_its_picture(tmp_path, suffix, code, upright):
    seen = cv2.resize(noise_image(3, 4)[..., 0], (32, 24), interpolation=cv2.INTER_NEAREST)
    exif = PIL.Image.Exif()
    exif[274] = code
    (tmp_path / "rgb").mkdir()
    quality = {"quality": 100} if suffix in (".jpg", ".webp") else {}
    PIL.Image.fromarray(seen).convert("RGB").save(tmp_path / f"rgb/0{suffix}", exif=exif, **quality)
    depth = (seen / 64 + 1).astype(np.float32)
    if upright and code > 4:  # somebody turned the map; otherwise it is as the sensor saw it
        depth = np.rot90(depth)
    write_file(tmp_path / "depth" / "0.npy", depth)
    with warnings.catch_warnings(record=True) as caught:
        source = FolderDataModule(tmp_path).files("whole")
        image, found = source.load(0)
    assert image.shape[:2] == found.shape == ((32, 24) if code > 4 else (24, 32))
    assert np.array_equal(source.load_depth(0), found)
    np.testing.assert_array_equal(image, read_image(tmp_path / f"rgb/0{suffix}"))
    assert sum("EXIF" in str(one.message) for one in caught) == (
        code > 1 and not (upright and code > 4)
    )
    if not (upright and code > 4):
        assert np.abs((found - 1) * 64 - image[..., 0]).mean() < 8


# ---- units and ranges ----

STREET = {"depth_range": (0.7, 80.0)}


def spread_depth(low, high):
    return np.linspace(low, high, 24 * 32, dtype=np.float32).reshape(24, 32)


@pytest.mark.parametrize(
    ("stored", "settings", "words"),
    [
        (spread_depth(400, 8000), STREET, ["1/256 gives 3.04 to 29.7 m, 0.01 gives 7.8 to 76.1 m"]),
        (spread_depth(60, 500), {}, ["100% of the", "at scale 1 ", "0.01 gives 0.82 to 4.77 m"]),
        (spread_depth(800, 9000), {}, ["0.001 gives 1.21 to 8.58 m"]),
        (spread_depth(1024, 20000), {"scale": 256, **STREET}, ["but 1/256 gives 7.7 to 74.3 m"]),
        (spread_depth(2, 9), {"scale": 0.001}, ["100% of the", "1 gives 2.35 to 8.65 m"]),
        (spread_depth(15, 30), {}, ["0.3048 gives 4.8 to 8.9"]),  # feet
        (spread_depth(60, 300), {}, ["0.0254 gives 1.83 to 7.3"]),  # inches
        (spread_depth(20, 80), {"inverse": True}, ["1 / (focal length x baseline)"]),
        (spread_depth(100, 160), {}, ["mostly 103 to 157 m", "--data.depth_range"]),
    ],
)
def test_depth_of_which_most_lies_outside_the_range_is_refused_with_what_would_mend_it(
    tmp_path, stored, settings, words
):
    write_pairs(tmp_path, [stored] * 4)
    with pytest.raises(DataError) as caught:
        ready(tmp_path, **settings)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("low", "high", "width"), [(0.01, 0.11, 0.001), (100.0, 160.0, 1.0), (0.05, 0.25, None)]
)
def test_any_range_that_was_given_is_a_range(tmp_path, low, high, width):
    rng = np.random.default_rng(0)
    depths = [rng.uniform(low, high, (24, 32)).astype(np.float32) for _ in range(6)]
    write_pairs(tmp_path, depths)
    module = ready(tmp_path, depth_range=(low, high), bin_width=width)
    assert (module.train_histogram().counts > 0).mean() > 0.95
    assert 60 <= len(module.train_histogram().counts) <= 100


@pytest.mark.parametrize("value", [np.inf, np.nan, 1e10, 65.0])
@pytest.mark.parametrize("share", [0.01, 0.7])
def test_what_lies_behind_everything_is_neither_trained_on_nor_scored(tmp_path, value, share):
    depth = ramp_depth(24, 32).copy()
    depth.flat[: int(share * depth.size)] = value
    module = ready(write_pairs(tmp_path, [depth] * 6))
    for part in (module.train_set, module.val_set, module.test_set):
        assert part[0]["depth"].max() < 9.5
    assert module.train_histogram().counts[-1] == 0
    (truth,) = (one["depth"] for one in module.whole_images())
    assert truth.max() < 9.5
    assert (truth > 0).float().mean() == pytest.approx(1 - share, abs=0.01)


@pytest.mark.parametrize(
    ("given", "scale"), [("1/256", 1 / 256), ("0.001", 0.001), (2, 2.0), ("10 / 255", 10 / 255)]
)
def test_a_scale_may_be_a_fraction(given, scale):
    assert as_scale(given) == scale
    with pytest.raises(ConfigError, match=r"0\.001 or 1/256.*got '1/0'"):
        as_scale("1/0")


# ---- small sets and other layouts ----

NONE = "errors are those of the train split and say nothing of other pictures"


@pytest.mark.parametrize(
    ("parts", "settings", "sizes", "words"),
    [
        ({"": 1}, {}, (1, None, 1), NONE),
        ({"": 2}, {}, (1, None, 1), ""),
        ({"": 3}, {}, (1, 1, 1), ""),
        ({"": 8}, {"test_fraction": 0}, (7, 1, 1), "errors are those of the val split"),
        ({"": 8}, {"test_fraction": 0, "val_fraction": 0}, (8, None, 8), NONE),
        ({"train": 4, "val": 2}, {}, (4, 2, 2), "errors are those of the val split"),
        ({"Training": 4, "validation": 2}, {}, (4, 2, 2), "errors are those of the val split"),
        ({"train": 8}, {}, (6, 1, 1), ""),
        ({"train": 4, "val": 2, "test/rgb": None}, {}, (4, 2, 2), "errors are those of the val"),
        ({"": 8, "val": None}, {}, (6, 1, 1), ""),
        ({"train": 1, "test": 2}, {}, (1, None, 2), ""),
        ({"train": 6, "val": 2, "test": 3}, {}, (6, 2, 3), ""),
        ({"train": 20, "test": 3}, {"val_fraction": 0.1}, (18, 2, 3), ""),
    ],
)
def test_small_and_incomplete_sets_are_trained_on_and_what_is_not_measured_is_said(
    tmp_path, recwarn, parts, settings, sizes, words
):
    for place, count in parts.items():
        if count is None:
            (tmp_path / place).mkdir(parents=True)
        else:
            write_folder(tmp_path / place, count, metres)
    module = ready(tmp_path, **settings)
    found = [module.train_set, module.val_set, module.test_set]
    assert tuple(part and len(part) for part in found) == sizes
    said = [str(one.message) for one in recwarn if "no test split" in str(one.message)]
    assert len(said) == bool(words)
    assert words in "".join(said)
    assert module.describe()["tested_on"] == (words.split()[5] if words else "test")


def test_validation_and_test_pictures_alone_can_be_evaluated_on(tmp_path):
    write_folder(tmp_path / "val", 3, metres)
    module = FolderDataModule(tmp_path, **PLAIN)
    assert not module.trains()
    module.setup("test")
    assert len(module.test_set) == 3


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("value", [0, 1e4])
def test_a_split_is_drawn_from_pictures_that_have_depth(tmp_path, seed, value):
    some, none = ramp_depth(24, 32), np.full((24, 32), value, np.float32)
    depths = [some if index % 2 else none for index in range(6)]
    module = ready(write_pairs(tmp_path, depths), seed=seed, val_fraction=0.2)
    for part in (module.val_set, module.test_set):
        assert part[0]["depth"].any()


@pytest.mark.parametrize("pattern", ["", "/*.png"])
def test_pictures_and_depth_may_lie_under_two_roots(tmp_path, pattern):
    write_pairs(tmp_path / "a", [ramp_depth(24, 32)] * 4, ".tiff")
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "depth").rename(tmp_path / "b" / "depth")
    rgb = f"{tmp_path}/a/rgb{pattern}"
    module = ready(tmp_path / "b", rgb=rgb)
    assert module.test_set.source.name(0).startswith(f"{tmp_path}/a/rgb/")
    assert len(module.test_set) == 1


@pytest.mark.parametrize(
    "text",
    [
        "c/1.png d/7.png\nc/2.png d/8.png",
        "image,depth\nc/1.png,d/7.png\nc/2.png,d/8.png\n",
        "c/1.png d/7.png 518.8579\nc/3.png None 518.8579\nc/2.png d/8.png 518.8579\n",
        "# time file time file\n1305031.17 c/1.png 1305031.16 d/7.png\n2.5 c/2.png 2.4 d/8.png",
        "c\\1.png;d\\7.png;d\\7.png\nc\\2.png;d\\8.png;d\\8.png",
        "/c/1.png /d/7.png 518.8579\n/c/2.png /d/8.png 518.8579",
    ],
)
def test_a_list_names_pairs_that_have_nothing_in_common(tmp_path, text):
    for image, depth in ("17", "28"):
        write_file(tmp_path / f"c/{image}.png", noise_image(8, 8))
        write_file(tmp_path / f"d/{depth}.png", np.full((8, 8), 2000, np.uint16))
    (tmp_path / "pairs.txt").write_text(text)
    module = FolderDataModule(tmp_path, pairs="pairs.txt")
    assert module.files("whole").pairs == [("c/1.png", "d/7.png"), ("c/2.png", "d/8.png")]
    (tmp_path / "test.txt").write_text(text.splitlines()[-1])
    (tmp_path / "train.txt").write_text(text)
    module = FolderDataModule(tmp_path, pairs="{split}.txt", val_fraction=0)
    assert [len(module.pairs(split)) for split in ("train", "test")] == [2, 1]


# ---- masks, other sizes, inverse depth ----


def test_masks_lie_in_files_of_their_own(tmp_path):
    write_pairs(tmp_path, [ramp_depth(24, 32)] * 4)
    for index in range(4):
        mask = np.ones((24, 32, 1))
        mask[:, :10] = 0
        write_file(tmp_path / "valid" / f"{index}.npy", mask)
    module = ready(tmp_path, mask="valid")
    found = module.train_set.source.load(0)[1]
    assert not found[:, :10].any()
    assert (found[:, 10:] > 0).all()
    write_file(tmp_path / "valid" / "0.npy", np.ones((12, 16)))
    with pytest.raises(DataError, match=r"0\.npy is \(12, 16\), its depth map \(24, 32\)"):
        FolderDataModule(tmp_path, mask="valid").files("whole").load_depth(0)


@pytest.mark.parametrize("size", [(48, 64), (96, 128), (24, 32), (49, 64)])
def test_a_depth_map_of_another_size_brings_its_picture_to_it(tmp_path, size):
    write_file(tmp_path / "rgb" / "0.png", np.full((96, 128, 3), 77, np.uint8))
    write_file(tmp_path / "depth" / "0.npy", ramp_depth(*size))
    image, depth = FolderDataModule(tmp_path).files("whole").load(0)
    assert image.shape == (*size, 3)
    assert (image == 77).all()
    assert np.array_equal(depth, ramp_depth(*size))


def test_a_crop_is_no_other_size(tmp_path):
    write_file(tmp_path / "rgb" / "0.png", noise_image(48, 64))
    write_file(tmp_path / "depth" / "0.npy", ramp_depth(24, 42))
    with pytest.raises(DataError, match="depth map is 24 x 42 of float32 and its image 48 x 64"):
        ready(tmp_path)


def test_inverse_depth_is_turned_into_depth(tmp_path):
    inverse = np.zeros((24, 32), np.uint16)
    inverse[:, 5:] = np.rint(1000 / ramp_depth(24, 32)[:, 5:])
    write_pairs(tmp_path, [inverse] * 4, ".png")
    module = ready(tmp_path, inverse=True)
    found = module.train_set.source.load_depth(0)
    assert not found[:, :5].any()
    np.testing.assert_allclose(found[:, 5:], ramp_depth(24, 32)[:, 5:], rtol=0.01)
    assert module.quantum is None
    assert torch.isfinite(module.test_set[0]["depth"]).all()

"""Trees as published data have them, drawn small: a layout finds pairs, splits and metres."""

import re
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import pytest
from scipy.io import savemat

from depthbal.data import FolderDataModule
from depthbal.data.layouts import LAYOUTS, LayoutName
from depthbal.data.packing import pack
from depthbal.errors import ConfigError, DataError
from tests.data.make_files import noise_image, write_file

SIZE = (24, 32)
METRES = np.linspace(1.5, 7.5, 24 * 32).reshape(SIZE)


def draw(root, rows, stored, size=SIZE):
    """Write pairs of a picture and a depth map."""
    for index, (image, depth) in enumerate(rows):
        write_file(root / image, noise_image(*size, index))
        write_file(root / depth, stored)


def unsigned(per_metre, metres=METRES):
    return np.rint(metres * per_metre).astype(np.uint16)


def kitti(root):
    day, truth = "2011_09_26", "proj_depth/groundtruth"
    splits = {f"{day}_drive_000{n}_sync": "val" if n == 5 else "train" for n in (1, 2, 5)}
    rows = [
        (f"{day}/{drive}/{at}/data/{n:010d}.png", f"{split}/{drive}/{truth}/{at}/{n:010d}.png")
        for drive, split in splits.items()
        for at in ("image_02", "image_03")
        for n in (5, 6)
    ]
    draw(root, rows, unsigned(256))
    return {"train": 8, "val": 4}


def diode(root):
    for split, count in (("train", 2), ("val", 1)):
        for index in range(count):
            stem = f"{split}/indoors/scene_0002{index}/scan_00189/0002{index}_00189_indoors_200_010"
            draw(root, [(f"{stem}.png", f"{stem}_depth.npy")], METRES[..., None].astype(np.float32))
            np.save(root / f"{stem}_depth_mask.npy", np.ones(SIZE))
            np.save(root / f"{stem}_normal.npy", np.ones((*SIZE, 3)))
    return {"train": 2, "val": 1}


def sunrgbd(root):
    cells = {}
    for split, count in (("train", 3), ("test", 2)):
        frames = [f"kv2/kinect2data/{split}{index}_2014" for index in range(count)]
        stored = unsigned(1000)
        stored = stored << 3 | stored >> 13
        draw(
            root / "SUNRGBD",
            [(f"{at}/image/000{i}.jpg", f"{at}/depth/9{i}.png") for i, at in enumerate(frames)],
            stored,
        )
        cells[f"all{split}"] = np.array(
            [[f"/n/fs/sun3d/data/SUNRGBD/{at}" for at in frames]], dtype=object
        )
    (root / "SUNRGBDtoolbox/traintestSUNRGBD").mkdir(parents=True)
    savemat(root / "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat", cells)
    return {"train": 3, "test": 2}


def scannet(root):
    for scene in ("scene0000_00", "scene0000_01", "scene0406_02"):
        rows = [(f"{scene}/color/{n}.jpg", f"{scene}/depth/{n}.png") for n in (0, 100)]
        draw(root, rows, unsigned(1000))
    (root / "scannetv2_train.txt").write_text("scene0000_00\nscene0000_01\n")
    (root / "scannetv2_val.txt").write_text("scene0406_02\n")
    return {"train": 4, "val": 2}


def sevenscenes(root):
    for sequence in ("seq-01", "seq-02", "seq-03"):
        stem = f"chess/{sequence}/frame-00000"
        rows = [(f"{stem}{n}.color.png", f"{stem}{n}.depth.png") for n in range(2)]
        draw(root, rows, unsigned(1000))
    (root / "chess/TrainSplit.txt").write_text("sequence1\nsequence3\n")
    (root / "chess/TestSplit.txt").write_text("sequence2\n")
    return {"train": 4, "test": 2}


def tum(root):
    lists = {"rgb": [], "depth": []}
    for index in range(4):
        # pictures 30 ms apart; the second map is nearer in time to the first picture's neighbour
        times = {"rgb": 100.0 + index * 0.03, "depth": 100.0 + index * 0.03 + 0.012}
        if index == 2:
            times["depth"] = 200.0  # of nothing
        for kind, time in times.items():
            lists[kind].append(f"{time:.6f} {kind}/{time:.6f}.png")
        image, depth = (f"rgbd_fr1/{kind}/{time:.6f}.png" for kind, time in times.items())
        draw(root, [(image, depth)], unsigned(5000))
    for kind, lines in lists.items():
        head = f"# {kind} images\n# timestamp filename\n"
        (root / f"rgbd_fr1/{kind}.txt").write_text(head + "\n".join(lines) + "\n")
    return {"whole": 3}


def vkitti2(root):
    stored = unsigned(100)
    stored[:4] = 65535
    rows = [
        (f"{at}/rgb/Camera_0/rgb_0000{n}.jpg", f"{at}/depth/Camera_0/depth_0000{n}.png")
        for scene, count in (("Scene01", 2), ("Scene20", 3))
        for at in (f"vkitti/{scene}/{weather}/frames" for weather in ("clone", "15-deg-left"))
        for n in range(count)
    ]
    draw(root, rows, stored)
    return {"train": 4, "test": 6}


HYPERSIM = (
    "final_preview/frame.{}.tonemap.jpg",
    "geometry_hdf5/frame.{}.depth_meters.hdf5",
)


def hypersim(root):
    splits = {"ai_001_001": "train", "ai_003_010": "val", "ai_009_001": ""}
    rows = [
        tuple(f"{scene}/images/scene_cam_00_{part.format(n)}" for part in HYPERSIM)
        for scene in splits
        for n in ("0000", "0001")
    ]
    draw(root, rows, np.full((768, 1024), 4.0, np.float16), (768, 1024))
    lines = ["scene_name,camera_name,frame_id,included_in_public_release,split_partition_name"]
    lines += [f"{scene},cam_00,0,{bool(split)},{split}" for scene, split in splits.items()]
    (root / "metadata_images_split_scene_v1.csv").write_text("\n".join(lines))
    return {"train": 2, "val": 2}


def arkit(root):
    for split, video in (("Training", "41069021"), ("Validation", "41069022")):
        at = f"{split}/{video}"
        rows = [(f"{at}/wide/{video}_{n}.png", f"{at}/highres_depth/{video}_{n}.png") for n in "12"]
        draw(root, rows, unsigned(1000))
    (root / "metadata.csv").write_text(
        "video_id,visit_id,fold,sky_direction\n41069021,1,Training,Left\n41069022,2,Validation,Up\n"
    )
    return {"train": 2, "val": 2}


def middlebury(root):
    focal, baseline, offset = 994.978, 193.001, 31.086
    disparity = (focal * baseline / (METRES * 1000) - offset).astype(np.float32)
    disparity[:4] = np.inf
    for scene in ("Motorcycle", "Piano"):
        draw(root, [(f"{scene}/im0.png", f"{scene}/disp0.pfm")], disparity)
        write_file(root / scene / "im1.png", noise_image(*SIZE))
        (root / scene / "calib.txt").write_text(
            f"cam0=[{focal} 0 311.193; 0 {focal} 254.877; 0 0 1]\n"
            f"cam1=[{focal} 0 342.279; 0 {focal} 254.877; 0 0 1]\n"
            f"doffs={offset}\nbaseline={baseline}\nwidth=741\nheight=500\nndisp=70\n"
        )
    return {"whole": 2}


TREES = {
    tree.__name__: tree
    for tree in (
        *(arkit, diode, hypersim, kitti, middlebury, scannet, sevenscenes, sunrgbd, tum, vkitti2),
    )
}


def test_every_layout_has_a_tree_and_a_name():
    assert {*TREES, "custom"} == {*LAYOUTS} == {*get_args(LayoutName)}


# both cameras and all weathers are one scene
SCENES = {"kitti": {f"2011_09_26_drive_000{n}_sync" for n in (1, 2)}, "vkitti2": {"Scene01"}}


@pytest.mark.parametrize("name", TREES)
def test_a_published_tree_is_read_by_its_name(tmp_path, name):
    counts = TREES[name](tmp_path)
    module = FolderDataModule(tmp_path, layout=name)
    assert {split: len(module.files(split)) for split in module.file_splits()} == counts
    assert module.depth_range == LAYOUTS[name]["depth_range"]
    for split in counts:
        image, depth = (pairs := module.files(split)).load(0)
        assert depth.dtype == np.float32
        assert image.shape == (*depth.shape, 3)
        assert np.array_equal(pairs.load_depth(0), depth, equal_nan=True)
        expected = METRES
        if name == "hypersim":
            x, y = np.arange(1024) + 0.5 - 512, np.arange(768)[:, None] + 0.5 - 384
            expected = 4.0 * 886.81 / np.sqrt(x**2 + y**2 + 886.81**2)
            assert expected[0, 0] / 4 == pytest.approx(0.811, abs=5e-4)  # published
        if name == "arkit" and split == "train":  # the sky is on the left: a quarter turn clockwise
            expected = np.rot90(expected, -1)
            assert np.array_equal(image, cv2.rotate(noise_image(*SIZE), cv2.ROTATE_90_CLOCKWISE))
        if name in SCENES and split == "train":
            assert {pairs.group(index) for index in range(len(pairs))} == SCENES[name]
        if name == "vkitti2":
            assert np.isposinf(depth[:4]).all()
        if name == "middlebury":
            assert not depth[:4].any()
        seen = slice(4 if name in ("vkitti2", "middlebury") else 0, None)
        step = 0.5 * float(module.files(split).unit) if name != "middlebury" else 0
        np.testing.assert_allclose(depth[seen], expected[seen], rtol=1e-5, atol=step + 1e-4)


def test_maps_that_are_apart_in_time_are_no_pair_and_none_is_taken_twice(tmp_path):
    tum(tmp_path)
    pairs = FolderDataModule(tmp_path, layout="tum").files("whole").pairs
    assert [re.findall(r"\d+\.\d+", " ".join(row)) for row in pairs] == [
        ["100.000000", "100.012000"],
        ["100.030000", "100.042000"],
        ["100.090000", "100.102000"],
    ]


@pytest.mark.parametrize("flat", [False, True])
def test_the_lists_of_kittis_eigen_split_are_read_where_they_lie(tmp_path, flat):
    kitti(tmp_path)
    if flat:
        (tmp_path / "gts").mkdir()
        for folder in [*tmp_path.glob("train/*"), *tmp_path.glob("val/*")]:
            folder.rename(tmp_path / "gts" / folder.name)
    drive, frame = "2011_09_26_drive_0005_sync", "0000000005"
    none = "2011_09_26/a_sync/image_02/data/1.png None 721.5377\n"
    for split, count in (("train", 2), ("test", 1)):
        row = (
            f"2011_09_26/{drive}/image_02/data/{frame}.png "
            f"{drive}/proj_depth/groundtruth/image_02/{frame}.png 721.5377\n"
        )
        (tmp_path / f"kitti_eigen_{split}_files_with_gt.txt").write_text(none + row * count)
    module = FolderDataModule(tmp_path, layout="kitti")
    assert {split: len(module.files(split)) for split in module.file_splits()} == {
        "train": 2,
        "test": 1,
    }
    assert module.files("test").load(0)[1].max() == pytest.approx(7.5, abs=0.002)
    assert module.files("test").group(0) == drive


def test_an_option_changes_a_layout(tmp_path):
    vkitti2(tmp_path)
    module = FolderDataModule(
        tmp_path, layout="vkitti2", test_scenes=["Scene01"], sky=[], depth_range=(2, 50)
    )
    assert len(module.files("test")) == 4
    assert module.files("test").load_depth(0)[0, 0] == 0
    assert module.depth_range == (2, 50)
    own = FolderDataModule(tmp_path, layout="vkitti2").files("train")
    assert (module.files("train").beyond, own.beyond) == (False, True)
    with pytest.raises(DataError, match=r"no picture lies in a folder of test_scenes \(Scene06\)"):
        FolderDataModule(tmp_path, layout="vkitti2", test_scenes=["Scene06"]).file_splits()


def test_kittis_crop_is_at_the_bottom_of_the_middle(tmp_path):
    drive = "2011_09_26_drive_0001_sync"
    depth = np.zeros((375, 1242), np.uint16)
    depth[23:375, 13:1229] = 256 * 20  # what the benchmark's crop of 352 x 1216 leaves
    at = f"train/{drive}/proj_depth/groundtruth/image_02"
    rows = [(f"d/{drive}/image_02/data/{n}.png", f"{at}/{n}.png") for n in range(2)]
    draw(tmp_path, rows, depth, depth.shape)
    for crop, size in (("layout", (352, 1216)), (None, (375, 1242))):
        module = FolderDataModule(tmp_path, layout="kitti", crop_size=crop, num_workers=0)
        module.setup("test")
        sample = module.test_set[0]
        assert sample["image"].shape[1:] == sample["depth"].shape[1:] == size
        assert (sample["depth"] == 20).all() == (crop is not None)


# ---- what is refused ----


@pytest.mark.parametrize(
    ("name", "tree", "words"),
    [
        ("sevenscenes", scannet, "no file matches .*color.png.*there are scannetv2.*layout sev"),
        ("kitti", vkitti2, "no file matches.*there are vkitti/ .asked for by --data.layout kitti"),
        ("diode", tum, "no file matches.*; there are rgbd_fr1/"),
        ("tum", kitti, "no rgb.txt and depth.txt with pictures within 0.02 s.*; there are 2011"),
        ("scannet", lambda root: None, "no file matches"),
    ],
)
def test_a_layout_for_another_folder_says_what_is_there(tmp_path, name, tree, words):
    tree(tmp_path)
    with pytest.raises(DataError, match=words):
        FolderDataModule(tmp_path, layout=name).check_root()


def test_the_length_of_a_ray_needs_a_camera(tmp_path):
    with pytest.raises(ConfigError, match=r"intrinsics: expected --data\.intrinsics FX FY CX CY"):
        FolderDataModule(tmp_path, distance="ray")
    hypersim(tmp_path)
    for folder in tmp_path.glob("*/images/*_hdf5/*"):
        write_file(folder, np.full((24, 32), 4.0))  # resized by somebody
    with pytest.raises(DataError, match=r"\(511\.5, 383\.5\) lies outside a depth map of 32 x 24"):
        FolderDataModule(tmp_path, layout="hypersim").files("train").load_depth(0)


@pytest.mark.parametrize(
    ("sky", "depth_range", "refused"),
    [([65535], (1, 80), False), ([65535], (1, 700), True), ([6000, 65535], (1, 80), True)],
)
def test_sky_inside_the_range_is_refused(tmp_path, sky, depth_range, refused):
    vkitti2(tmp_path)
    module = FolderDataModule(tmp_path, layout="vkitti2", sky=sky, depth_range=depth_range)
    if not refused:
        return module.check_root()
    with pytest.raises(ConfigError, match=r"--data\.sky .* is (60|655\.35) m at scale 0\.01"):
        module.check_root()


@pytest.mark.parametrize("scale", ["1/20", None])
def test_a_folder_of_mixed_bit_depths_is_refused(tmp_path, scale):
    rows = [(f"rgb/{n}.png", f"depth/{n}.png") for n in range(2)]
    draw(tmp_path, rows, unsigned(20))
    write_file(tmp_path / "depth/1.png", unsigned(20).astype(np.uint8))
    pairs = FolderDataModule(tmp_path, scale=scale).files("whole")
    pairs.load_depth(0)
    with pytest.raises(DataError, match=r"1\.png is stored as uint8, depth/0\.png as uint16"):
        pairs.load_depth(1)


def row_of(name, own):
    """A layout's row in the documentation, as far as the table of layouts says it."""
    images, depths = (own.get(key, f"`{key}.txt`") for key in ("rgb", "depth"))
    found = own.get("scale", {"": 1.0})
    (scale,) = found.values()
    unit = f"1/{1 / scale:.0f}" if scale < 1 else "1"
    unit = "by `calib.txt`" if "calibration" in own else unit
    low, high = own["depth_range"]
    crop = "{} x {}, {}".format(*own["crop_size"], own["crop_at"]) if "crop_size" in own else "-"
    cells = f"`{name}`", f"`{images}`", f"`{depths}`", unit, f"{low:g} to {high:g} m", crop
    return f"| {' | '.join(cells)} |".replace("``", "`")


@pytest.mark.parametrize("name", TREES)
def test_the_documentations_table_is_that_of_the_layouts(name):
    page = (Path(__file__).parents[2] / "docs" / "layouts.md").read_text()
    assert row_of(name, LAYOUTS[name]) in page


@pytest.mark.parametrize("settings", [{}, {"layout": "vkitti2"}])
def test_a_packed_layout_is_read_with_or_without_its_name(tmp_path, settings):
    vkitti2(tmp_path / "tree")
    pack(tmp_path / "tree", tmp_path / "a.h5", None, layout="vkitti2")
    packed = FolderDataModule(tmp_path / "a.h5", **settings, short_side=None)
    files = FolderDataModule(tmp_path / "tree", layout="vkitti2")
    assert packed.splits() == files.splits() == ["train", "test"]
    for split in packed.splits():
        for index in range(len(files.files(split))):
            pairs = packed.pairs(split), files.pairs(split)
            for found, expected in zip(*(one.load(index) for one in pairs), strict=True):
                assert np.array_equal(found, expected)
            assert pairs[0].group(index) == pairs[1].group(index)
    with pytest.raises(ConfigError, match="was packed with rgb"):
        FolderDataModule(tmp_path / "a.h5", layout="kitti", short_side=None).pairs("test")

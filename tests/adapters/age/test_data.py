"""Images and a csv file as data, and drawn faces: what is read, what batches hold, refusals."""

import itertools
import pickle

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from depthbal.adapters.age import AgeDataModule, DrawnAgesDataModule
from depthbal.adapters.age.data import LabelledImages
from depthbal.errors import DataError

ROWS = [
    ("31", "one/a.png", "train"),
    ("31", "one/b.png", "train"),
    ("33.4", "one/c.png", "train"),
    ("60", "two/d.png", "val"),
    ("28", "two/e.png", "test"),
    ("31", "two/a.png", "test"),
]


def write_csv(folder, rows, header="age,path,split"):
    lines = [header, *(",".join(row) for row in rows)]
    (folder / "ages.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture
def folder(tmp_path):
    write_csv(tmp_path, ROWS)
    rng = np.random.default_rng(0)
    for _, path, _ in ROWS:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / path), rng.integers(0, 256, (50, 40, 3), dtype=np.uint8))
    return tmp_path


def module(folder, **arguments):
    settings = {"batch_size": 2, "num_workers": 0, "image_size": 32, "padding": 4}
    return AgeDataModule(folder, "ages.csv", **(settings | arguments))


def built(folder, **arguments):
    data = module(folder, **arguments)
    data.setup()
    return data


def test_batches_hold_normalised_images_labels_names_and_positions(folder):
    data = built(folder)
    (batch,) = data.test_dataloader()
    assert batch["image"].shape == (2, 3, 32, 32)
    assert batch["image"].dtype == batch["label"].dtype == torch.float32
    assert -1 <= batch["image"].min() < -0.5 < 0.5 < batch["image"].max() <= 1
    assert batch["label"].tolist() == [28.0, 31.0]
    assert batch["index"].tolist() == [0, 1]
    assert batch["name"] == ["two/e.png", "two/a.png"]
    assert batch["group"] == ["", ""]  # whether persons recur is unknown
    padding = data.test_set[-1]
    assert (padding["index"], padding["label"].isnan().item()) == (-1, True)
    assert data.train_histogram().edges.tolist() == [30.5, 31.5, 32.5, 33.5]
    assert data.train_histogram().counts.tolist() == [2, 0, 1]


def test_training_images_are_shifted_by_up_to_the_padding_and_half_of_them_mirrored(folder):
    stored = np.random.default_rng(1).integers(1, 256, (32, 32, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / "one/a.png"), stored[..., ::-1])
    train = built(folder).train_set
    padded = np.pad(stored, ((4, 4), (4, 4), (0, 0))).astype(np.float64) / 127.5 - 1  # by black
    crops = {
        (top, left, step): padded[top : top + 32, left : left + 32][:, ::step]
        for top, left, step in itertools.product(range(9), range(9), (1, -1))
    }
    seen = []
    for epoch in range(60):
        pixels = train[epoch, 0]["image"].numpy().transpose(1, 2, 0)
        (found,) = (k for k, crop in crops.items() if np.abs(crop - pixels).max() < 1e-5)
        seen.append(found)
    assert len({(top, left) for top, left, _ in seen}) > 30
    assert 15 <= sum(step < 0 for *_, step in seen) <= 45  # 30 expected, standard deviation 3.9


@pytest.mark.parametrize("size", [(300, 300), (400, 410), (900, 300), (128, 90)])
def test_images_are_resized_as_pillow_does(size):
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    stripes = noise.copy()  # a pixel wide: what aliases most
    stripes[:] = (np.arange(size[1]) % 2 * 255)[:, None]
    data = DrawnAgesDataModule(image_size=224)
    images = LabelledImages(data, "test", [noise, stripes], ["a"] * 2140, "")
    for index, image in enumerate((noise, stripes)):
        resized = images[index]["image"].permute(1, 2, 0).double().numpy()
        expected = np.asarray(Image.fromarray(image).resize((224, 224), Image.Resampling.BILINEAR))
        assert np.abs((resized + 1) * 127.5 - expected).max() < 1.01  # of 255: rounding alone


def test_bins_reach_over_all_splits_and_their_shots_follow_the_training_counts(folder):
    counts = {20: 101, 21: 100, 22: 20, 23: 19}
    rows = [(str(age), "x.png", "train") for age, n in counts.items() for _ in range(n)]
    write_csv(folder, [*rows, ("19", "x.png", "test"), ("24.5", "x.png", "test")])
    bins = module(folder).bins()
    assert bins.edges.tolist() == [18.5, 19.5, 20.5, 21.5, 22.5, 23.5, 24.5, 25.5]
    assert bins.shots == ("few", "many", "medium", "medium", "few", "few", "few")
    assert bins.index(torch.tensor([19.4, 24.5, float("nan")])).tolist() == [0, 6, -1]


def test_any_column_any_unit_wider_bins_and_no_validation_as_excel_writes_them(folder):
    rows = [("0.25", *ROWS[0][1:]), ("1.5", *ROWS[1][1:]), ("0.5", *ROWS[4][1:])]
    lines = [", ".join(row) for row in [("weight", "path ", "split"), *rows, rows[0]]]  # repeats
    (folder / "ages.csv").write_bytes(("\ufeff" + "\r\n".join(lines)).encode())
    data = built(folder, label="weight", unit="kg", bin_width=0.5)
    assert data.train_histogram().edges.tolist() == [0.25, 0.75, 1.25, 1.75]
    assert data.train_histogram().counts.tolist() == [2, 0, 1]
    assert data.val_dataloader() == []
    described = data.describe()
    assert (described["label"], described["unit"]) == ("weight", "kg")
    assert described["images"] == {"train": 3, "val": None, "test": 1}


@pytest.mark.parametrize(
    ("mark", "written", "labels"),
    [
        (",", ['"1,250"', "-7", '"12,345,678.5"', "NaN"], [1250, -7, 12345678.5]),
        (";", ["12,5", "7", "-0,25", ""], [12.5, 7, -0.25]),  # of a country with decimal commas
        ("\t", ["1e3", "7.5", "0", "null"], [1000, 7.5, 0]),
    ],
)
def test_numbers_are_read_as_the_country_of_the_file_writes_them(
    folder, caplog, mark, written, labels
):
    splits = ["Training", "TRAIN", "train", "train"]
    rows = [(text, ROWS[0][1], split) for text, split in zip(written, splits, strict=True)]
    rows = [("Age", "PATH", "split"), *rows, ("1", ROWS[1][1], "Validation")]
    (folder / "ages.csv").write_text("\n".join(mark.join(row) for row in rows))
    with caplog.at_level("INFO"):
        data = module(folder)
        assert torch.cat(data.labels("train")).tolist() == labels
    assert "1 of 5 rows have no label and are left out" in caplog.text
    assert len(data.labels("val")[0]) == 1


@pytest.mark.parametrize(
    ("labels", "width"),
    [([0.02, 0.51, 1.0], 0.01), ([25_000.0, 90_250.5, 425_000.0], 5000), ([1, 7, 30], 1), ([4], 1)],
)
def test_a_label_of_ones_own_has_about_100_bins_and_no_unit(folder, labels, width):
    rows = [(str(value), path, "train") for value in labels for _, path, _ in ROWS[:2]]
    write_csv(folder, [*rows, (str(labels[0]), "two/e.png", "test")], "price,path,split")
    data = built(folder, label="price")
    assert data.describe()["unit"] == ""
    assert np.diff(data.bins().edges) == pytest.approx(width)
    assert data.train_histogram().edges.tolist() == data.bins().edges.tolist()


def test_paths_may_come_from_windows_or_a_mac_and_validation_be_the_test_split(folder, caplog):
    (folder / "two/d.png").rename(folder / "two/Ku\u0308che.png")
    rows = [*ROWS[:3], ("60", "two\\K\u00fcche.png", "val")]
    write_csv(folder, rows)
    with caplog.at_level("INFO"):
        data = built(folder)
    assert data.test_set[0]["label"] == data.val_set[0]["label"] == 60
    assert "has no test split: its errors are those of the val split" in caplog.text


def test_the_fingerprint_changes_with_labels_and_files(folder):
    prints = [built(folder).describe()["fingerprint"]]
    write_csv(folder, [("32", *ROWS[0][1:]), *ROWS[1:]])
    prints.append(built(folder).describe()["fingerprint"])
    cv2.imwrite(str(folder / "one/a.png"), np.zeros((9, 9, 3), np.uint8))
    prints.append(built(folder).describe()["fingerprint"])
    assert len(set(prints)) == 3


def test_missing_images_are_counted_and_named_before_any_is_read(folder):
    module(folder).check_root()
    (folder / "two/e.png").write_bytes(b"")
    rows = [(str(20 + i), f"gone/{i}.png", "train") for i in range(7)]
    write_csv(folder, [*ROWS, *rows])
    with pytest.raises(DataError, match="7 of 13 images are not in") as caught:
        module(folder).check_root()
    assert [i for i in range(7) if f"gone/{i}.png" in str(caught.value)] == [0, 1, 2, 3, 4]
    assert f"--data.root the folder that the column 'path' of {folder}" in str(caught.value)
    data = module(folder)
    data.setup("test")  # needs no training images
    with pytest.raises(DataError, match=r"two/e\.png"):  # an empty file is named when it is read
        list(data.test_dataloader())
    with pytest.raises(DataError, match="7 of 10 images are not in"):
        data.setup()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00", r"ages\.csv is no readable csv file in UTF-8 "),
        (None, r"ages\.csv is no readable csv file in UTF-8 "),
        (b"years,path,split\n", r"age, path.*--data.label.*they are years, path, split"),
        ([*ROWS, *[("old", "x", "test")] * 6], r"6 of 12 rows.*row 8: old,x,test.*and 1 more"),
        ([*ROWS, ("inf", "x", "test")], "1 of 7.*finite number as age, or nothing where there is"),
        ([*ROWS, ("3", "x", "dev")], "row 8: 3,x,dev.*train, val or test"),
        ([*ROWS, ("3", "", "train")], "row 8: 3,,train"),
        (
            [*ROWS, ("1e9", "x", "train")],
            r"28 to 1e\+09 are too many bins of 1; give --data\.bin_width 1e\+07",
        ),
        (ROWS[3:], "no row has train"),
    ],
)
def test_what_is_wrong_in_the_csv_file_is_named(folder, content, message):
    (folder / "ages.csv").unlink()
    if isinstance(content, bytes):
        (folder / "ages.csv").write_bytes(content)
    elif content is not None:
        write_csv(folder, content)
    with pytest.raises(DataError, match=message):
        module(folder).bins()


# ---- drawn faces ----


def test_there_are_as_many_faces_of_each_age_as_in_agedb():
    data = DrawnAgesDataModule()
    ages = {split: data.labels(split)[0] for split in ("train", "val", "test")}
    assert [len(found) for found in ages.values()] == [12208, 2140, 2140]
    assert (ages["train"] == 31).sum() == 256
    assert torch.equal(ages["val"], ages["test"])
    assert data.bins().shots.count("few") > 25


def test_another_seed_repeats_on_the_same_faces_and_another_picture_seed_does_not():
    modules = [
        DrawnAgesDataModule(image_size=8, **s) for s in ({}, {"seed": 1}, {"picture_seed": 1})
    ]
    one, repeated, other = (data.dataset("test").fingerprint() for data in modules)
    assert one == repeated != other
    sample = pickle.loads(pickle.dumps(modules[0].dataset("test")))[3]  # for loader processes
    assert sample["image"].shape == (3, 8, 8)
    assert sample["name"] == sample["group"] == "faces/test/00003"  # nobody is drawn twice

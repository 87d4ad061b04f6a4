"""Images and a csv file as data: what is read, what batches hold, and what is refused."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from depthbal.adapters.age import AgeDataModule, model
from depthbal.errors import ConfigError, DataError
from tests.adapters.age.helpers import tiny_config, train_age

ROWS = [
    ("31", "one/a.png", "train"),
    ("31", "one/b.png", "train"),
    ("33.4", "one/c.png", "train"),
    ("60", "two/d.png", "val"),
    ("28", "two/e.png", "test"),
    ("31", "two/a.png", "test"),
]


def write_csv(folder: Path, rows: list[tuple[str, ...]], header: str = "age,path,split") -> None:
    lines = [header, *(",".join(row) for row in rows)]
    (folder / "ages.csv").write_text("\n".join(lines) + "\n")


def write_images(folder: Path, rows: list[tuple[str, ...]]) -> None:
    rng = np.random.default_rng(0)
    for _, path, _ in rows:
        (folder / path).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(folder / path), rng.integers(0, 256, (50, 40, 3), dtype=np.uint8))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_csv(tmp_path, ROWS)
    write_images(tmp_path, ROWS)
    return tmp_path


def module(folder: Path, **arguments: Any) -> AgeDataModule:
    settings: dict[str, Any] = {"batch_size": 2, "num_workers": 0, "image_size": 32, "padding": 4}
    return AgeDataModule(folder, "ages.csv", **(settings | arguments))


def test_batches_hold_normalised_images_labels_and_positions(folder: Path) -> None:
    data = module(folder)
    data.setup()
    (batch,) = data.test_dataloader()
    assert batch["image"].shape == (2, 3, 32, 32)
    assert batch["image"].dtype == batch["label"].dtype == torch.float32
    assert -1 <= batch["image"].min() < -0.5 < 0.5 < batch["image"].max() <= 1
    assert batch["label"].tolist() == [28.0, 31.0]
    assert batch["index"].tolist() == [0, 1]


def test_images_of_the_final_size_arrive_as_twice_their_value_minus_one(folder: Path) -> None:
    stored = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / "two/e.png"), stored[..., ::-1])
    data = module(folder)
    data.setup("test")
    expected = torch.from_numpy(stored.transpose(2, 0, 1).astype(np.float64)) / 127.5 - 1
    (batch,) = data.test_dataloader()
    torch.testing.assert_close(batch["image"][0].double(), expected, atol=1e-6, rtol=0)


def test_training_images_are_shifted_by_up_to_the_padding_black_coming_in(folder: Path) -> None:
    stored = np.random.default_rng(1).integers(1, 256, (32, 32, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / "one/a.png"), stored[..., ::-1])
    data = module(folder, flip=0.0, padding=4)
    data.setup()
    assert data.train_set is not None
    padded = np.pad(stored, ((4, 4), (4, 4), (0, 0))).astype(np.float64)
    crops = {
        (top, left): padded[top : top + 32, left : left + 32]
        for top in range(9)
        for left in range(9)
    }
    seen = set()
    for epoch in range(12):
        pixels = data.train_set[epoch, 0]["image"].numpy().transpose(1, 2, 0)
        found = [at for at, crop in crops.items() if np.abs(crop / 127.5 - 1 - pixels).max() < 1e-5]
        assert len(found) == 1
        seen.add(found[0])
    assert len(seen) > 6


def test_half_of_the_training_images_are_mirrored(folder: Path) -> None:
    data = module(folder, padding=0)
    data.setup()
    assert data.train_set is not None
    plain = data.train_set.source.image(0)
    upright = data.eval_transform(plain, 0)
    images = [data.train_set[epoch, 0]["image"] for epoch in range(60)]
    mirrored = [torch.equal(image, upright.flip(-1)) for image in images]
    assert all(m or torch.equal(image, upright) for m, image in zip(mirrored, images, strict=True))
    assert 15 <= sum(mirrored) <= 45  # 30 expected, standard deviation 3.9


def test_augmentation_depends_on_seed_epoch_and_sample_alone(folder: Path) -> None:
    one, same, other = (module(folder, seed=seed) for seed in (3, 3, 4))
    for data in (one, same, other):
        data.setup()
        assert data.train_set is not None
    image = one.train_set[5, 1]["image"]  # type: ignore[index]
    assert torch.equal(image, same.train_set[5, 1]["image"])  # type: ignore[index]
    others = [one.train_set[6, 1], other.train_set[5, 1]]  # type: ignore[index]
    assert not any(torch.equal(image, sample["image"]) for sample in others)


def test_padding_has_a_label_that_no_bin_counts(folder: Path) -> None:
    data = module(folder)
    data.setup()
    assert data.test_set is not None
    sample = data.test_set[-1]
    assert sample["index"] == -1
    assert sample["label"].isnan()
    assert data.bins().index(sample["label"]).item() == -1


def test_the_histogram_counts_the_training_labels_by_the_nearest_year(folder: Path) -> None:
    histogram = module(folder).train_histogram()
    assert histogram.edges.tolist() == [30.5, 31.5, 32.5, 33.5]
    assert histogram.counts.tolist() == [2, 0, 1]
    assert module(folder).label_range() == (30.5, 33.5)


def test_bins_reach_over_all_splits_and_their_shots_follow_the_training_counts(
    folder: Path,
) -> None:
    counts = {20: 101, 21: 100, 22: 20, 23: 19}
    rows = [(str(age), "x.png", "train") for age, n in counts.items() for _ in range(n)]
    write_csv(folder, [*rows, ("19", "x.png", "test"), ("24.5", "x.png", "test")])
    bins = module(folder).bins()
    assert bins.edges.tolist() == [18.5, 19.5, 20.5, 21.5, 22.5, 23.5, 24.5, 25.5]
    assert bins.shots == ("few", "many", "medium", "medium", "few", "few", "few")
    assert bins.index(torch.tensor([19.4, 24.5])).tolist() == [0, 6]


def test_any_column_any_unit_and_wider_bins(folder: Path) -> None:
    rows = [("0.25", *ROWS[0][1:]), ("1.5", *ROWS[1][1:]), ("0.5", *ROWS[4][1:])]
    write_csv(folder, rows, header="weight, path, split")
    data = module(folder, label="weight", unit="kg", bin_width=0.5)
    data.setup()
    assert data.train_histogram().edges.tolist() == [0.25, 0.75, 1.25, 1.75]
    assert data.train_histogram().counts.tolist() == [1, 0, 1]
    assert data.val_set is None
    assert data.val_dataloader() == []
    described = data.describe()
    assert (described["label"], described["unit"]) == ("weight", "kg")


def test_a_split_without_few_shot_labels_is_no_error(folder: Path) -> None:
    rows = [("30", "x.png", split) for split in ("train",) * 101 + ("test",)]
    write_csv(folder, rows)
    assert module(folder).bins().shots == ("many",)


def test_the_description_names_the_csv_and_changes_with_labels_and_files(folder: Path) -> None:
    prints = []
    for change in (lambda: None, lambda: relabel(folder), lambda: touch(folder)):
        change()
        data = module(folder)
        data.setup()
        described = data.describe()
        assert described["images"] == {"train": 3, "val": 1, "test": 2}
        assert described["source"] == str(folder / "ages.csv")
        prints.append(described["fingerprint"])
    assert len(set(prints)) == 3
    spec = {"short_side": None, "size": 32, "mean": [0.5] * 3, "std": [0.5] * 3}
    assert data.input_spec() == spec


def relabel(folder: Path) -> None:
    write_csv(folder, [("32", *ROWS[0][1:]), *ROWS[1:]])


def touch(folder: Path) -> None:
    cv2.imwrite(str(folder / "one/a.png"), np.zeros((9, 9, 3), np.uint8))


def test_repeated_rows_are_samples_of_their_own(folder: Path) -> None:
    write_csv(folder, [*ROWS, ROWS[0]])
    data = module(folder)
    data.setup()
    assert data.train_set is not None
    assert len(data.train_set) == 4
    assert data.train_histogram().counts.tolist() == [3, 0, 1]


def test_the_test_split_alone_needs_no_training_images(folder: Path) -> None:
    for path in (folder / "one").iterdir():
        path.unlink()
    data = module(folder)
    data.setup("test")
    assert data.test_set is not None
    assert data.train_set is None
    with pytest.raises(DataError, match=r"3 images \(3 of 3 for train\) are not in"):
        data.setup()


def test_missing_images_are_counted_and_the_first_five_named(folder: Path) -> None:
    splits = ["train", "train", "train", "train", "val", "test", "test"]
    rows = [(str(20 + i), f"gone/{i}.png", split) for i, split in enumerate(splits)]
    write_csv(folder, [*ROWS, *rows])
    counts = r"7 images \(4 of 7 for train, 1 of 2 for val, 2 of 4 for test\) are not in"
    for check in (AgeDataModule.setup, AgeDataModule.check_root):
        with pytest.raises(DataError, match=counts) as caught:
            check(module(folder))
    named = [i for i in range(7) if f"gone/{i}.png" in str(caught.value)]
    assert named == [0, 1, 2, 3, 4]
    assert f"--data.root the folder that the column 'path' of {folder}" in str(caught.value)


def test_what_is_checked_before_a_network_is_built_needs_no_image_read(folder: Path) -> None:
    (folder / "two/e.png").write_bytes(b"")
    module(folder).check_root()
    (folder / "two/e.png").unlink()
    with pytest.raises(DataError, match=r"1 images \(1 of 2 for test\)"):
        module(folder).check_root()
    write_csv(folder, [("old", *ROWS[0][1:]), *ROWS[1:]])
    with pytest.raises(DataError, match="no finite"):
        module(folder).check_root()


@pytest.mark.parametrize("damage", ["empty", "truncated", "text"])
def test_an_unreadable_image_is_found_before_training(folder: Path, damage: str) -> None:
    file = folder / "one/c.png"
    content = {"empty": b"", "truncated": file.read_bytes()[:-40], "text": b"hello"}
    file.write_bytes(content[damage])
    with pytest.raises(DataError, match=r"one/c\.png"):
        module(folder).setup()


@pytest.mark.parametrize(
    ("header", "lacking"),
    [("age,path", "'split'"), ("years,path,split", "'age'"), ("a,b,c", "'age', 'path', 'split'")],
)
def test_a_missing_column_is_named_with_those_that_are_there(
    folder: Path, header: str, lacking: str
) -> None:
    write_csv(folder, ROWS, header=header)
    message = f"no column {lacking}; its columns are {header.replace(',', ', ')}"
    with pytest.raises(DataError, match=message) as caught:
        module(folder).bins()
    assert ("--data.label" in str(caught.value)) == ("'age'" in lacking)


@pytest.mark.parametrize("label", ["nan", "inf", "", "old"])
def test_labels_that_are_no_numbers_are_counted_and_named_by_row(folder: Path, label: str) -> None:
    rows = [*ROWS[:2], (label, "one/c.png", "train"), *ROWS[3:], *[(label, "x", "test")] * 6]
    write_csv(folder, rows)
    with pytest.raises(DataError, match=r"7 of 12 labels in the column 'age'.*row 4: ") as caught:
        module(folder).bins()
    assert str(caught.value).count("row") == 5 + 1  # the first five, and "remove the rows"
    assert "--data.label" in str(caught.value)


def test_unknown_splits_are_named(folder: Path) -> None:
    write_csv(folder, [*ROWS, ("3", "x.png", "valid"), ("3", "x.png", "valid")])
    with pytest.raises(DataError, match=r"column 'split' \('valid' in 2 rows.*expected train, val"):
        module(folder).bins()


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_csv_without_training_or_test_rows_says_so(folder: Path, split: str) -> None:
    write_csv(folder, [row for row in ROWS if row[2] != split])
    with pytest.raises(DataError, match=f"no row has '{split}' in the column 'split'"):
        module(folder).train_histogram()


def test_a_row_without_a_path_is_named(folder: Path) -> None:
    write_csv(folder, [*ROWS, ("20", "", "train")])
    with pytest.raises(DataError, match="column 'path' is empty in 1 of 7 rows: row 8"):
        module(folder).bins()


def test_a_csv_that_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(DataError, match=r"other\.csv: cannot be read.*--data\.csv.*--data\.root"):
        AgeDataModule(folder, "other.csv").bins()
    with pytest.raises(DataError, match=r"nowhere is no folder; give --data\.root"):
        AgeDataModule(folder / "nowhere", folder / "ages.csv").bins()


def test_bad_data_end_a_training_before_its_network_is_built(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "timm_backbone", None)  # building one would fail
    write_csv(folder, [row[:2] for row in ROWS], header="age,path")
    config = tiny_config(folder / "tiny.yaml", data={"class_path": "AgeDataModule"})
    data = [f"--data.root={folder}", "--data.csv=ages.csv", f"--out={folder / 'run'}"]
    with pytest.raises(DataError, match="no column 'split'"):
        train_age("--config", config, *data)
    assert not (folder / "run").exists()


def test_labels_that_need_too_many_bins_ask_for_wider_ones(folder: Path) -> None:
    write_csv(folder, [("2000000", *ROWS[0][1:]), *ROWS[1:]])
    with pytest.raises(DataError, match=r"give a larger --data\.bin_width"):
        module(folder).train_histogram()
    assert len(module(folder, bin_width=1000.0).train_histogram().counts) == 2001


@pytest.mark.parametrize(
    "wrong",
    [{"image_size": 0}, {"padding": -1}, {"flip": 1.5}, {"bin_width": 0.0}, {"batch_size": 0}],
)
def test_impossible_arguments_say_what_was_expected(folder: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"expected.*{next(iter(wrong))}"):
        module(folder, **wrong)

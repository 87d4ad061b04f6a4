import time

import pytest

from depthbal.data.nyud2 import read_pairs_csv
from depthbal.errors import DataError


@pytest.fixture
def data(tmp_path):
    for name in ("train/s1/1.jpg", "train/s1/1.png", "train/s2/1.jpg", "train/s2/1.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def read(data, text, encoding="utf-8"):
    (data / "list.csv").write_bytes(text.encode(encoding))
    return read_pairs_csv(data / "list.csv", data)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("prefix", ["data/", "", "./data/"])
def test_rows_are_read_relative_to_the_data_folder(data, end, prefix):
    rows = [f"{prefix}train/s{i}/1.jpg,{prefix}train/s{i}/1.png" for i in (2, 1)]
    expected = [(f"train/s{i}/1.jpg", f"train/s{i}/1.png") for i in (2, 1)]
    assert read(data, end.join([*rows, "", ""])) == expected
    assert read(data, end.join(rows), encoding="utf-8-sig") == expected


@pytest.mark.parametrize(
    "row",
    ["data/train/s1/1.jpg", "data/train/s1/1.jpg,", "data/train/s1/1.jpg,b,c", "a;b"],
)
def test_a_row_without_two_columns_is_named(data, row):
    with pytest.raises(DataError, match=r"list\.csv, row 2: expected 2 columns"):
        read(data, f"data/train/s1/1.jpg,data/train/s1/1.png\n{row}\n")


@pytest.mark.parametrize(
    "path", ["../secret.png", "data/../../secret.png", "/etc/passwd", "data//../..//x", "..", "."]
)
def test_a_path_that_leaves_the_data_folder_is_refused(data, path):
    with pytest.raises(DataError, match=r"row 1: .* leaves the data folder"):
        read(data, f"data/train/s1/1.jpg,{path}\n")


def test_missing_files_are_counted_and_the_first_named_with_their_rows_as_an_editor_shows(data):
    text = "data/train/s1/1.jpg,data/train/s1/1.png\n\ndata/train/s2/1.jpg,data/train/s2/7.png\n"
    words = r"1 of 4 files do not exist in .* \(row 3: train/s2/7\.png\); complete the download"
    with pytest.raises(DataError, match=words):
        read(data, text)
    rows = [f"data/nowhere/{n}.jpg,data/train/s1/1.png" for n in range(5)]
    words = r"5 of 10 files .*\(row 1: nowhere/0\.jpg, .*row 3: nowhere/2\.jpg, \.\.\.\)"
    with pytest.raises(DataError, match=words):
        read(data, "\n".join(rows))


@pytest.mark.parametrize("text", ["", "\n\n", ",\n"])
def test_an_empty_list_is_an_error(data, text):
    with pytest.raises(DataError, match=r"list\.csv: the list is empty"):
        read(data, text)


def test_a_list_that_is_no_text_or_missing_is_an_error(data):
    (data / "list.csv").write_bytes(b"\xff\xfe\x00\x01,\x80\n")
    with pytest.raises(DataError, match=r"list\.csv: not a csv text file"):
        read_pairs_csv(data / "list.csv", data)
    with pytest.raises(DataError, match=r"none\.csv: cannot be read"):
        read_pairs_csv(data / "none.csv", data)


def test_fifty_thousand_rows_are_checked_in_seconds(data):
    rows = []
    for scene in range(50):
        folder = data / f"scene{scene}"
        folder.mkdir()
        (folder / "1.jpg").touch()
        (folder / "1.png").touch()
        rows += [f"data/scene{scene}/1.jpg,data/scene{scene}/1.png"] * 1000
    start = time.perf_counter()
    pairs = read(data, "\n".join(rows))
    assert len(pairs) == 50_000
    assert time.perf_counter() - start < 5

"""Packing is resumable, verifies itself, and overwrites nothing that it should not."""

import itertools
import multiprocessing
import runpy
import signal
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from depthbal.data import NYUD2DataModule, packing
from depthbal.data.packed import prepare, writer
from depthbal.data.packed.format import partial_path
from depthbal.data.packed.origin import find_origin
from depthbal.data.packed.pairs import PackedPairs
from depthbal.data.packing import pack
from depthbal.errors import DataError
from tests.data.make_files import SMALL, write_image, write_labelled_mat, write_nyud2

TOOL = Path(__file__).resolve().parents[2] / "tools" / "prepare_nyud2.py"
N_TRAIN, N_TEST = 40, 3


def pack_slowly(source, out, told):
    """Pack two samples at a time, tell when they have reached the file, and wait a little."""
    mark, writer._FLUSH, prepare._BLOCK = writer._mark_done, 2, 2

    def slow(*arguments):
        mark(*arguments)
        told.send("marked")
        time.sleep(0.05)

    writer._mark_done = slow
    pack_it(source, out)


@pytest.fixture
def source(tmp_path):
    write_nyud2(tmp_path / "src", scenes=20, per_scene=2, n_test=N_TEST)
    return tmp_path / "src"


def pack_it(source, out, **kwargs):
    return pack(find_origin(source, {}), out, 24, progress=False, **kwargs)


def content(path):
    """All samples of a file, as stored."""
    return {
        (split, index): tuple(array.tobytes() for array in pairs.stored(index))
        for split, pairs in ((name, PackedPairs(path, name)) for name in ("train", "test"))
        for index in range(len(pairs))
    }


def hold_open(path, there):
    """Write to a file until told to stop."""
    with h5py.File(path, "r+"):
        there.send("open")
        there.poll(60)


class Calls:
    """Counts and optionally fails the preparation of samples."""

    def __init__(self, monkeypatch, fail_at=None):
        self.count, self.fail_at, self.original = 0, fail_at, writer.prepare
        monkeypatch.setattr(writer, "prepare", self)

    def __call__(self, *arguments):
        self.count += 1
        if self.fail_at is not None and self.count > self.fail_at:
            raise KeyboardInterrupt
        return self.original(*arguments)


@pytest.mark.parametrize("marks", [1, 4])
def test_a_killed_packing_is_resumed_and_ends_equal(source, tmp_path, monkeypatch, marks):
    out, whole = tmp_path / "out.h5", tmp_path / "whole.h5"
    pack_it(source, whole)
    context = multiprocessing.get_context("fork")  # sooner there than a new interpreter
    hears, told = context.Pipe(duplex=False)
    process = context.Process(target=pack_slowly, args=(source, out, told))
    process.start()
    for _ in range(marks):
        assert hears.poll(60)
        assert hears.recv() == "marked"
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not out.exists()
    with h5py.File(partial_path(out), "r") as file:
        done = int(file["train/done"][()].sum())
        assert file.attrs["complete"] == 0
    assert 2 * marks <= done < N_TRAIN
    with pytest.raises(DataError, match=r"out\.h5 does not exist; out\.h5\.partial is its unfin"):
        NYUD2DataModule(out, **SMALL).setup()
    with pytest.raises(DataError, match=r"is unfinished; run tools/prepare_nyud2\.py again"):
        NYUD2DataModule(partial_path(out), **SMALL).setup()

    calls = Calls(monkeypatch)
    assert pack_it(source, out)
    assert calls.count == N_TRAIN + N_TEST - done
    assert not partial_path(out).exists()
    assert content(out) == content(whole)
    assert PackedPairs(out, "train").fingerprint() == PackedPairs(whole, "train").fingerprint()


def test_samples_that_read_back_differently_are_written_again(source, tmp_path, monkeypatch):
    out, whole = tmp_path / "out.h5", tmp_path / "whole.h5"
    pack_it(source, whole)
    monkeypatch.setattr(writer, "_FLUSH", 4)
    calls = Calls(monkeypatch, fail_at=32)
    with pytest.raises(KeyboardInterrupt):
        pack_it(source, out)
    calls.fail_at = None
    partial = partial_path(out)
    with h5py.File(partial, "r") as file:
        position = file["train/image"].id.get_chunk_info_by_coord((3, 0, 0, 0)).byte_offset
    with partial.open("r+b") as damaged:
        damaged.seek(position + 100)
        byte = damaged.read(1)[0]
        damaged.seek(position + 100)
        damaged.write(bytes([byte ^ 1]))
    pack_it(source, out)
    assert content(out) == content(whole)


def test_a_disk_that_loses_what_it_is_given_is_an_error(source, tmp_path, monkeypatch):
    numbers = itertools.count(1)
    monkeypatch.setattr(writer, "checksum", lambda image, levels: next(numbers))
    with pytest.raises(DataError, match=r"40 samples of the train split do not read back.*disk"):
        pack_it(source, tmp_path / "out.h5")
    assert not (tmp_path / "out.h5").exists()


def test_packing_again_does_nothing_and_another_source_is_refused(source, tmp_path):
    out = tmp_path / "out.h5"
    assert pack_it(source, out)
    before = out.read_bytes()
    assert not pack_it(source, out)
    with pytest.raises(DataError, match=r"out\.h5 exists, packed from another source.*--overwrite"):
        pack(find_origin(source, {}), out, 12, progress=False)
    (source / "data" / "nyu2_train" / "scene00_out" / "1.jpg").touch()
    with pytest.raises(DataError, match="an earlier state of it"):
        pack_it(source, out)
    assert out.read_bytes() == before
    assert pack_it(source, out, overwrite=True)
    assert not pack_it(source, out)


@pytest.mark.parametrize("foreign", [b"my notes", b""])
def test_a_foreign_file_is_never_overwritten_unasked(source, tmp_path, foreign):
    out = tmp_path / "out.h5"
    out.write_bytes(foreign)
    with pytest.raises(DataError, match=r"out\.h5 exists and is not replaced without --overwrite"):
        pack_it(source, out)
    assert out.read_bytes() == foreign
    assert pack_it(source, out, overwrite=True)
    assert len(PackedPairs(out, "test")) == N_TEST


def test_the_unfinished_packing_of_another_state_is_not_continued(source, tmp_path, monkeypatch):
    out = tmp_path / "out.h5"
    calls = Calls(monkeypatch, fail_at=5)
    with pytest.raises(KeyboardInterrupt):
        pack_it(source, out)
    calls.fail_at = None
    (source / "data" / "nyu2_train" / "scene00_out" / "1.jpg").touch()
    with pytest.raises(DataError, match=r"out\.h5\.partial is the unfinished packing of another"):
        pack_it(source, out)
    assert pack_it(source, out, overwrite=True)


def test_what_lies_in_the_place_of_the_unfinished_file_is_kept_too(source, tmp_path):
    out = tmp_path / "out.h5"
    partial_path(out).write_text("my notes")
    with pytest.raises(DataError, match=r"out\.h5\.partial: not an HDF5 file"):
        pack_it(source, out)
    assert partial_path(out).read_text() == "my notes"
    assert pack_it(source, out, overwrite=True)


def test_two_processes_do_not_pack_into_one_file(source, tmp_path, monkeypatch):
    out = tmp_path / "out.h5"
    calls = Calls(monkeypatch, fail_at=5)
    with pytest.raises(KeyboardInterrupt):
        pack_it(source, out)
    calls.fail_at = None
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=hold_open, args=(partial_path(out), there))
    process.start()
    assert here.poll(60)
    for overwrite in (False, True):
        with pytest.raises(DataError, match="is being packed by another process"):
            pack_it(source, out, overwrite=overwrite)
    here.send("enough")
    process.join(60)
    assert pack_it(source, out)


def test_neither_the_source_nor_a_folder_is_overwritten(tmp_path):
    source = tmp_path / "nyu_depth_v2_labeled.mat"
    write_labelled_mat(source, np.zeros((2, 24, 32, 3), np.uint8), np.ones((2, 24, 32)))
    before = source.read_bytes()
    for out in (source, tmp_path):
        with pytest.raises(DataError, match="a folder or the source itself"):
            pack_it(source, out, overwrite=True)
    assert source.read_bytes() == before


def test_a_source_that_changes_meanwhile_is_an_error(source, tmp_path, monkeypatch):
    def touch(*arguments):
        (source / "data" / "nyu2_train" / "scene00_out" / "1.jpg").touch()
        return fill(*arguments)

    fill = packing.fill
    monkeypatch.setattr(packing, "fill", touch)
    with pytest.raises(DataError, match="changed while it was packed"):
        pack_it(source, tmp_path / "out.h5")
    assert not (tmp_path / "out.h5").exists()


def test_damage_in_the_source_is_named_before_anything_is_written(source, tmp_path):
    path = source / "data" / "nyu2_train" / "scene07_out" / "2.jpg"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"scene07_out/2\.jpg: the file is truncated"):
        pack_it(source, tmp_path / "out.h5")
    assert list(tmp_path.glob("out*")) == []


def test_implausible_depth_in_the_source_is_named(source, tmp_path):
    write_image(source / "data" / "nyu2_test" / "00001_depth.png", np.full((24, 32), 3, np.uint16))
    with pytest.raises(DataError, match=r"00001_depth\.png: all 768 valid depths lie outside"):
        pack_it(source, tmp_path / "out.h5")
    assert not (tmp_path / "out.h5").exists()


def test_a_disk_without_space_is_said_beforehand(source, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(DataError, match=r"GB are needed and 0\.0 GB free"):
        pack_it(source, tmp_path / "out.h5")


def tool(*arguments) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(TOOL), *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(TOOL), run_name="__main__")
    return end.value.code


def test_the_tool_packs_and_says_what_to_do_with_it(source, tmp_path, capsys):
    out = tmp_path / "deep" / "out.h5"
    assert tool(source, "--out", out, "--short-side", 24) == 0
    assert f"written and verified, 0 MB; use it with --data.root {out}" in capsys.readouterr().out
    assert tool(source, "--out", out, "--short-side", 24) == 0
    assert "is already complete" in capsys.readouterr().out
    module = NYUD2DataModule(out, **SMALL, val_fraction=0.0)
    module.setup("fit")
    assert len(module.train_set) == N_TRAIN


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["SRC", "--step", "0"], "expected step to be positive, got 0.0"),
        (["SRC", "--scale", "0.1"], "read as 'nyud2', for which scale means nothing"),
        (["nowhere"], "nowhere does not exist; give a folder or nyu_depth_v2_labeled.mat"),
        (["."], "rgb is not a folder"),
    ],
)
def test_the_tool_reports_mistakes_in_one_line(
    source, tmp_path, capsys, monkeypatch, arguments, words
):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    arguments = [source if argument == "SRC" else argument for argument in arguments]
    assert tool(*arguments, "--out", tmp_path / "out.h5") == 2
    message = capsys.readouterr().err
    assert words in message
    assert len(message.splitlines()) == 1

"""Checkpoints are opened safely; files are written whole."""

import pytest
import torch

from depthbal.checkpoint import FORMAT, find_checkpoint, read_checkpoint
from depthbal.errors import CheckpointError, RunFolderError
from depthbal.io import replacing, write_json

ENTRY = {
    "format": FORMAT,
    "version": "0.2.0",
    "model": {"class_path": "depthbal.models.SmpDepth", "init_args": {}},
    "criterion": {"class_path": "depthbal.losses.MSELoss", "init_args": {}},
    "input": {"short_side": 240},
    "readout": "mean",
    "label_range": None,
}
CONTENT = {"depthbal": ENTRY, "state_dict": {"model.weight": torch.arange(1000.0)}}


def save(path, content=CONTENT):
    torch.save(content, path)
    return path


def test_a_checkpoint_comes_back_as_it_was_written(tmp_path):
    content = read_checkpoint(save(tmp_path / "last.ckpt", {**CONTENT, "epoch": 3}))
    assert content["depthbal"] == ENTRY
    assert content["epoch"] == 3
    assert torch.equal(content["state_dict"]["model.weight"], torch.arange(1000.0))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        *((share, r"last\.ckpt is truncated") for share in (0.0, 0.02, 0.5, 0.99)),
        ([1, 2], "was not written by depthbal"),
        *(({"depthbal": one}, "was not written by depthbal") for one in (None, {"version": 3})),
        ({"depthbal": {**ENTRY, "format": 1}}, r"format 1, written by depthbal 0\.2\.0"),
        ({"depthbal": {**ENTRY, "format": FORMAT + 1}}, rf"format {FORMAT + 1}, .* depthbal 0"),
    ],
)
def test_what_is_damaged_foreign_or_of_another_version_is_refused(tmp_path, content, message):
    path = save(tmp_path / "last.ckpt", CONTENT if isinstance(content, float) else content)
    if isinstance(content, float):
        path.write_bytes(path.read_bytes()[: int(content * path.stat().st_size)])
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(path)


def test_no_code_from_a_checkpoint_is_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    with pytest.raises(CheckpointError, match="could run code"):
        read_checkpoint(save(tmp_path / "last.ckpt", {**CONTENT, "extra": Trap()}))
    assert not (tmp_path / "sprung").exists()


def test_what_a_path_lacks_is_named_with_its_reason_and_a_way_on(tmp_path):
    with pytest.raises(RunFolderError, match=r"no run folder or checkpoint at .*gone"):
        find_checkpoint(tmp_path / "gone")
    with pytest.raises(RunFolderError, match=r"there: nothing.*never finished.*--resume"):
        find_checkpoint(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    last = save(tmp_path / "checkpoints" / "last.ckpt")
    with pytest.raises(RunFolderError, match=r"validation split; use --checkpoint last"):
        find_checkpoint(tmp_path, "best")
    best = save(tmp_path / "checkpoints" / "best.ckpt")
    assert find_checkpoint(str(tmp_path)) == last
    assert find_checkpoint(tmp_path, "best") == find_checkpoint(best) == best


# ---- files that are written whole ----


def write_half(target, interruption):
    with replacing(target) as temporary:
        temporary.write_text("half")
        assert (temporary.suffix, target.read_text()) == (".txt", "previous")
        raise interruption


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError])
def test_a_write_that_fails_half_way_leaves_the_previous_file_and_no_rest(tmp_path, interruption):
    target = tmp_path / "note.txt"
    target.write_text("previous")
    with pytest.raises(interruption):
        write_half(target, interruption)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("note.txt", "previous")]


def test_what_is_written_is_as_readable_as_any_other_file(tmp_path):
    (tmp_path / "plain").touch()
    write_json(tmp_path / "folder" / "new.json", {})
    expected = (tmp_path / "plain").stat().st_mode
    assert (tmp_path / "folder" / "new.json").stat().st_mode == expected

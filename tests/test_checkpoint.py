import pytest
import torch

from depthbal.checkpoint import FORMAT, find_checkpoint, read_checkpoint
from depthbal.errors import CheckpointError, RunFolderError

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


def save(path, **changes):
    torch.save({**CONTENT, **changes}, path)
    return path


def test_a_checkpoint_comes_back_as_it_was_written(tmp_path):
    content = read_checkpoint(save(tmp_path / "last.ckpt", epoch=3))
    assert content["depthbal"] == ENTRY
    assert content["epoch"] == 3
    assert torch.equal(content["state_dict"]["model.weight"], torch.arange(1000.0))


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused(tmp_path, share):
    path = save(tmp_path / "last.ckpt")
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(CheckpointError, match=r"last\.ckpt is truncated"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "content",
    [{"state_dict": {}}, {"depthbal": {"version": 3}, "state_dict": {}}, torch.zeros(3), [1, 2]],
)
def test_a_foreign_checkpoint_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(CheckpointError, match=r"other\.ckpt was not written by depthbal"):
        read_checkpoint(tmp_path / "other.ckpt")


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("no checkpoint")
    with pytest.raises(CheckpointError, match=r"notes\.txt is truncated or no checkpoint"):
        read_checkpoint(tmp_path / "notes.txt")


def test_no_code_from_a_checkpoint_is_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    with pytest.raises(CheckpointError, match="could run code"):
        read_checkpoint(save(tmp_path / "last.ckpt", extra=Trap()))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(("number", "version"), [(1, "0.1.0"), (FORMAT + 1, "9.0.0")])
def test_another_format_names_the_version_that_reads_it(tmp_path, number, version):
    other = {**ENTRY, "format": number, "version": version}
    with pytest.raises(CheckpointError, match=rf"format {number}, written by depthbal {version}"):
        read_checkpoint(save(tmp_path / "last.ckpt", depthbal=other))


def test_a_file_stands_for_itself_and_a_run_for_its_checkpoints(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    last = save(tmp_path / "checkpoints" / "last.ckpt")
    best = save(tmp_path / "checkpoints" / "best.ckpt")
    assert find_checkpoint(tmp_path) == last
    assert find_checkpoint(str(tmp_path), "best") == best
    assert find_checkpoint(best) == best


def test_a_missing_run_is_named(tmp_path):
    with pytest.raises(RunFolderError, match=r"no run folder or checkpoint at .*gone"):
        find_checkpoint(tmp_path / "gone")


def test_an_empty_folder_is_no_run(tmp_path):
    with pytest.raises(RunFolderError, match=r"no checkpoints/last\.ckpt; there: nothing"):
        find_checkpoint(tmp_path)


def test_what_a_run_lacks_comes_with_its_reason_and_a_way_on(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(RunFolderError, match=r"first epoch was never finished.*--resume"):
        find_checkpoint(tmp_path)
    save(tmp_path / "checkpoints" / "last.ckpt")
    with pytest.raises(RunFolderError, match=r"validation split; use --checkpoint last"):
        find_checkpoint(tmp_path, "best")

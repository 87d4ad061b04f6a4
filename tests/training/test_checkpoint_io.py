import os
import subprocess
import sys

import pytest
import torch

from depthbal.errors import CheckpointError
from depthbal.training.checkpoint_io import AtomicCheckpointIO
from tests.training.helpers import REPOSITORY

FULL_DISK = """
import resource, sys, torch
from depthbal.errors import CheckpointError
from depthbal.training.checkpoint_io import AtomicCheckpointIO

resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
    AtomicCheckpointIO().save_checkpoint({"weights": torch.ones(100_000)}, sys.argv[1])
except CheckpointError as error:
    print(error)
else:
    sys.exit("the disk was not full")
"""


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "checkpoints" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"epoch": 1, "weights": torch.arange(5.0)}, path)
    return path


def test_a_saved_checkpoint_is_read_back(saved):
    content = AtomicCheckpointIO().load_checkpoint(saved)
    assert content["epoch"] == 1
    assert content["weights"].tolist() == [0, 1, 2, 3, 4]


def test_a_full_disk_leaves_the_previous_checkpoint_and_no_rest(saved):
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(saved)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "previous checkpoint is untouched" in done.stdout
    assert AtomicCheckpointIO().load_checkpoint(saved)["epoch"] == 1
    assert [path.name for path in saved.parent.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize("cut", [KeyboardInterrupt, OSError])
def test_an_interruption_while_writing_leaves_the_previous_checkpoint(saved, monkeypatch, cut):
    def write_half(checkpoint, file):
        file.write(b"half")
        raise cut

    monkeypatch.setattr(torch, "save", write_half)
    with pytest.raises((KeyboardInterrupt, CheckpointError)):
        AtomicCheckpointIO().save_checkpoint({"epoch": 2}, saved)
    monkeypatch.undo()
    assert AtomicCheckpointIO().load_checkpoint(saved)["epoch"] == 1
    assert [path.name for path in saved.parent.iterdir()] == ["last.ckpt"]


def test_a_checkpoint_with_code_in_it_is_not_opened(tmp_path):
    class Surprise:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "executed"),))

    torch.save({"surprise": Surprise()}, tmp_path / "evil.ckpt")
    with pytest.raises(CheckpointError, match=r"evil\.ckpt"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "evil.ckpt")
    assert not (tmp_path / "executed").exists()

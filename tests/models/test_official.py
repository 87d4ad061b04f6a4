import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torchvision.models import resnet18

from depthbal.errors import CheckpointError, ConfigError
from depthbal.models import ResNetMFF, load_official_checkpoint
from depthbal.models.resnet_mff import read_official_checkpoint
from tests.models.test_weights import assert_same_state


@pytest.fixture(scope="module")
def donor():
    torch.manual_seed(0)
    model = ResNetMFF()
    torch.nn.init.uniform_(model.MFF.up3.bn1_2.running_mean)
    return model


def published(state):
    """What the published training code writes: NumPy numbers beside prefixed weights."""
    return {
        "state_dict": OrderedDict((f"module.{name}", value) for name, value in state.items()),
        "epoch": 19,
        "error": np.float64(1.25),
        "metric": {
            "overall": {"RMSE": np.float32(1.5), "ABS_REL": np.float64(0.25), "NUM": np.int64(3)},
            "few": {"RMSE": np.array([2.5], dtype=">f8")[0]},
        },
    }


@pytest.fixture(scope="module")
def file(tmp_path_factory, donor):
    path = tmp_path_factory.mktemp("official") / "checkpoint.pth.tar"
    state = donor.state_dict()
    fds = {"R.FDS.epoch": torch.zeros(1), "R.FDS.running_mean": torch.zeros(100, 128)}
    torch.save(published({**state, **fds}), path)
    return path


def test_a_published_file_fills_the_network(file, donor, caplog):
    caplog.set_level("INFO", "depthbal")
    model = load_official_checkpoint(file)
    assert isinstance(model, ResNetMFF)
    assert not model.training
    assert_same_state(model.state_dict(), donor.state_dict())
    assert "R.FDS.epoch, R.FDS.running_mean" in caplog.text


def test_its_numbers_are_read(tmp_path):
    file = tmp_path / "numbers.pth.tar"
    torch.save(published({"a": torch.zeros(1)}), file)
    content = read_official_checkpoint(file)
    assert (content["epoch"], content["error"]) == (19, 1.25)
    assert content["metric"]["overall"] == {"RMSE": 1.5, "ABS_REL": 0.25, "NUM": 3}
    assert content["metric"]["few"]["RMSE"] == 2.5
    with pytest.raises(pickle.UnpicklingError, match="numpy"):  # why a plain reading fails
        torch.load(file, weights_only=True)


@pytest.mark.parametrize("home", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_the_names_of_numpy_1_and_2_are_both_known(tmp_path, home):
    # PyTorch's old format is a plain pickle, in which a name can be replaced
    value = {"state_dict": {"module.a": torch.ones(2)}, "error": np.float64(0.5)}
    torch.save(value, tmp_path / "old.pth.tar", _use_new_zipfile_serialization=False)
    written = (tmp_path / "old.pth.tar").read_bytes()
    written = written.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    written = written.replace(b"numpy.core.multiarray", home)
    assert home in written
    (tmp_path / "old.pth.tar").write_bytes(written)
    assert read_official_checkpoint(tmp_path / "old.pth.tar")["error"] == 0.5


def of_resnet18():
    return published({f"E.{name}": value for name, value in resnet18().state_dict().items()})


@pytest.mark.parametrize(
    ("content", "error", "messages"),
    [
        (b"no checkpoint", CheckpointError, ["no file of weights"]),
        (None, ConfigError, [""]),
        ([1, 2], CheckpointError, ["'state_dict'"]),
        ({"model": {"a": torch.zeros(1)}}, CheckpointError, ["'state_dict'"]),
        ({"depthbal": {}, "state_dict": {}}, CheckpointError, ["load_predictor"]),
        (
            of_resnet18(),
            CheckpointError,
            [
                'Missing key(s) in state_dict: "E.layer1.0.conv3.weight", ',
                'Unexpected key(s) in state_dict: "E.fc.weight", "E.fc.bias"',
                "size mismatch for E.layer1.0.conv1.weight",
                "ResNet-50",
            ],
        ),
        (
            published(
                {"R.conv2.bias": torch.ones(1), "E.conv1.weight": torch.full((4,), torch.nan)}
            ),
            CheckpointError,
            ["no finite weights under E.conv1"],
        ),
    ],
)
def test_what_is_no_published_checkpoint_is_refused_with_the_reason(
    tmp_path, content, error, messages
):
    path = tmp_path / "foreign.pth.tar"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(error, match=r"foreign\.pth\.tar") as caught:
        load_official_checkpoint(path)
    for message in messages:
        assert message in str(caught.value)

"""Fixtures for all tests of human mesh recovery."""

import pytest
import torch

from depthbal.adapters.hmr.network import SpinNetwork
from depthbal.adapters.hmr.synthetic import write_people


@pytest.fixture
def root(tmp_path):
    """A folder of SPIN's files, of few people."""
    rows = {"mpi_inf_3dhp": 60, "lsp": 30, "coco": 100}
    return write_people(tmp_path / "spin", rows=rows, test_rows=40)


@pytest.fixture(scope="session")
def published():
    """A network like the one of SPIN's checkpoint, with its own start and statistics."""
    torch.manual_seed(0)
    network = SpinNetwork().eval()
    torch.nn.init.normal_(network.backbone.bn1.running_mean)
    torch.nn.init.normal_(network.head.init_cam)
    return network


@pytest.fixture(scope="session")
def spin_state(published):
    """What SPIN saves, as its models/hmr.py names it."""
    return {**published.backbone.state_dict(), **published.head.state_dict()}


@pytest.fixture(scope="session")
def checkpoint(spin_state, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "model_checkpoint.pt"
    torch.save({"model": spin_state, "epoch": 3}, path)
    return str(path)

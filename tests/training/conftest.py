"""Fixtures for all tests of the training room: finished tiny runs."""

import shutil

import pytest

from tests.training.helpers import GAI, MSE, command, tiny_config, unet


def trained(folder, criterion, **network):
    """Train two epochs of a network of ours."""
    model = {"model": unet(**network), "criterion": criterion}
    config = tiny_config(folder / "tiny.yaml", model=model)
    assert command("train", "--config", config, "--out", folder / "run") == 0
    return folder / "run"


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    """A run of a balanced loss that must not be changed; `run` is a copy for that."""
    return trained(tmp_path_factory.mktemp("finished"), GAI)


@pytest.fixture(scope="session")
def mse_run(tmp_path_factory):
    """A run of the squared error; tests only add evaluations to it."""
    return trained(tmp_path_factory.mktemp("mse"), MSE)


@pytest.fixture
def run(finished_run, tmp_path):
    return shutil.copytree(finished_run, tmp_path / "run")

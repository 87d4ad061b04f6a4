"""Fixtures for all tests of the training room: finished tiny runs."""

import shutil

import pytest

from tests.training.helpers import GAI, MSE, SMALL_UNET, TINY_UNET, command, tiny_config


def trained(folder, criterion, network=SMALL_UNET):
    """Train two epochs of a network of ours."""
    config = tiny_config(folder / "tiny.yaml", model={"model": network, "criterion": criterion})
    assert command("train", "--config", config, "--out", folder / "run") == 0
    return folder / "run"


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    """A run of a balanced loss that must not be changed; `run` is a copy for that."""
    return trained(tmp_path_factory.mktemp("finished"), GAI)


@pytest.fixture(scope="session")
def mse_run(tmp_path_factory):
    """A run of the squared error; tests only add evaluations to it."""
    return trained(tmp_path_factory.mktemp("mse"), MSE, TINY_UNET)


@pytest.fixture
def run(finished_run, tmp_path):
    return shutil.copytree(finished_run, tmp_path / "run")

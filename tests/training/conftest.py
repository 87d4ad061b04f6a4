"""Fixtures for all tests of the training room: finished tiny runs, and a cache of its own."""

import shutil

import pytest

from tests.training.helpers import GAI, MSE, SMALL_UNET, command, tiny_config


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("training_cache")


@pytest.fixture(autouse=True)
def own_cache(cache_folder, monkeypatch):
    """Keep rendered rooms and histograms of the tests apart from the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache_folder))
    monkeypatch.delenv("DEPTHBAL_RUN", raising=False)


def trained(folder, cache_folder, criterion, network=SMALL_UNET):
    """Train two epochs of a network of ours."""
    config = tiny_config(folder / "tiny.yaml", model={"model": network, "criterion": criterion})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache_folder))
        assert command("train", "--config", config, "--out", folder / "run") == 0
    return folder / "run"


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory, cache_folder):
    """A run of a balanced loss that must not be changed; `run` is a copy for that."""
    return trained(tmp_path_factory.mktemp("finished"), cache_folder, GAI)


@pytest.fixture(scope="session")
def mse_run(tmp_path_factory, cache_folder):
    """A run of the squared error; tests only add evaluations to it."""
    return trained(tmp_path_factory.mktemp("mse"), cache_folder, MSE)


@pytest.fixture
def run(finished_run, tmp_path):
    return shutil.copytree(finished_run, tmp_path / "run")

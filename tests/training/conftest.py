"""Fixtures for all tests of the training room: one finished tiny run, and a cache of its own."""

import shutil

import pytest

from tests.training.helpers import tiny_config, train_tiny


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("training_cache")


@pytest.fixture(autouse=True)
def own_cache(cache_folder, monkeypatch):
    """Keep rendered rooms and histograms of the tests apart from the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache_folder))
    monkeypatch.delenv("DEPTHBAL_RUN", raising=False)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory, cache_folder):
    """A run that must not be changed; `run` is a copy for that."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache_folder))
        return train_tiny(tiny_config(folder / "tiny.yaml"), folder / "run")


@pytest.fixture
def run(finished_run, tmp_path):
    return shutil.copytree(finished_run, tmp_path / "run")

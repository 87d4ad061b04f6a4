"""A cache of their own for all tests of age regression."""

import pytest


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("age_cache")


@pytest.fixture(autouse=True)
def own_cache(cache_folder, monkeypatch):
    """Keep features and pictures of the tests apart from the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache_folder))
    monkeypatch.delenv("DEPTHBAL_RUN", raising=False)

"""Fixtures for all tests of human mesh recovery."""

import pytest


@pytest.fixture(autouse=True, scope="package")
def own_cache(tmp_path_factory):
    """Keep the tests' histograms apart from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield

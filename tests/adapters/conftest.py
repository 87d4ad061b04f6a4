"""A cache of their own for all tests of other labels than depth."""

import pytest


@pytest.fixture(autouse=True, scope="package")
def own_cache(tmp_path_factory):
    """Keep the tests' features, people and pictures apart from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("DEPTHBAL_RUN", raising=False)
        yield

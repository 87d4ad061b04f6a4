"""Runs, trained once, whose pages the tests open."""

import pytest

from tests.training.helpers import tiny_config, train_tiny


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory):
    """Return the folder of a really trained tiny run."""
    folder = tmp_path_factory.mktemp("page_run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        return train_tiny(tiny_config(folder / "tiny.yaml"), folder / "gai")

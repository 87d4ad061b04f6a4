"""A finished tiny run for the tests of this room, of a network that is quickly traced."""

import pytest

from tests.training.conftest import cache_folder, own_cache, run
from tests.training.helpers import GAI, tiny_config, train_tiny

NETWORK = {
    "class_path": "depthbal.models.SmpDepth",
    "init_args": {"encoder": "resnet18", "arch_args": {"decoder_channels": [16, 8, 8, 4, 4]}},
}


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory, cache_folder):
    folder = tmp_path_factory.mktemp("exported")
    config = tiny_config(folder / "tiny.yaml", model={"model": NETWORK, "criterion": GAI})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache_folder))
        return train_tiny(config, folder / "run", "--trainer.max_epochs", "1")


__all__ = ["cache_folder", "finished_run", "own_cache", "run"]

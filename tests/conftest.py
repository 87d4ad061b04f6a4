"""For all tests: how they share a machine."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # also of the processes that tests start

import pytest
import torch


def pytest_configure(config):
    """One thread: tiny tensors are slower on several, and sums differ in the last digit."""
    torch.set_num_threads(1)
    # xdist would hand out files by their number of tests, and the longest trainings last
    config.option.loadscopereorder = False


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory):
    """Keep rooms, histograms and features of the tests apart from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def no_run_under_way(monkeypatch):
    """Let no training take the folder of the one before."""
    monkeypatch.delenv("DEPTHBAL_RUN", raising=False)

"""For all tests: how they share a machine."""

import os

import torch


def pytest_configure():
    """One thread in each of several test processes: together they use every CPU once."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        torch.set_num_threads(1)

"""A finished tiny run for the tests of this room."""

from tests.training.conftest import cache_folder, finished_run, own_cache, run

__all__ = ["cache_folder", "finished_run", "own_cache", "run"]

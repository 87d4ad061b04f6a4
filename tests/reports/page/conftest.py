"""A browser, and runs, trained once, whose pages the tests open in it."""

import pytest

from depthbal.reports.comparing import compare
from depthbal.reports.loading import load_results
from depthbal.reports.page import write_page
from tests.reports.page.browser import require_browser, started_browser
from tests.reports.page.made_up import depth_result
from tests.training.helpers import tiny_config, train_tiny


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory):
    """Return the folder of a really trained tiny run."""
    folder = tmp_path_factory.mktemp("page_run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        return train_tiny(tiny_config(folder / "tiny.yaml"), folder / "gai")


@pytest.fixture(scope="session")
def driver(tmp_path_factory):
    require_browser()
    with started_browser(tmp_path_factory.mktemp("browser")) as started:
        yield started


@pytest.fixture(scope="session")
def trained_page(trained_run, tmp_path_factory):
    path = tmp_path_factory.mktemp("trained") / "report.html"
    write_page(load_results([trained_run]), None, path)
    return path


@pytest.fixture(scope="session")
def pair_page(tmp_path_factory):
    path = tmp_path_factory.mktemp("pair") / "report.html"
    runs = depth_result("<b>first</b> & co"), depth_result("second", noise=0.1)
    write_page(runs, compare(runs, resamples=100), path)
    return path

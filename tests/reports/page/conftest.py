"""A browser, and a run whose page the tests open in it."""

import pytest

from depthbal.evaluation import DepthBins
from depthbal.reports import load_results
from depthbal.reports.page import write_page
from tests.reports.made import add_examples, depth_result, make_run, report_of
from tests.reports.page.browser import require_browser, started_browser


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory):
    """Return a run folder with every file, scored in the benchmark's bins."""
    path = tmp_path_factory.mktemp("page_run") / "gai"
    make_run(path, sigma=1.0, bins=DepthBins.nyud2(), interval=True)
    add_examples(path)
    return path


@pytest.fixture(scope="session")
def driver(tmp_path_factory):
    require_browser()
    with started_browser(tmp_path_factory.mktemp("browser")) as started:
        yield started


@pytest.fixture(scope="session")
def whole_page(whole_run, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "report.html"
    write_page(report_of(*load_results([whole_run])), path)
    return path


@pytest.fixture(scope="session")
def pair_page(tmp_path_factory):
    path = tmp_path_factory.mktemp("pair") / "report.html"
    runs = depth_result("<b>first</b> & co"), depth_result("second", noise=0.1)
    write_page(report_of(*runs), path)
    return path

"""A browser, and a run whose page the tests open in it."""

import pytest

from depthbal.evaluation import DepthBins
from depthbal.reports import load_results
from depthbal.reports.writing import write_page
from tests.reports.browser import Page, require_browser, started_browser
from tests.reports.made import depth_result, make_run, report_of


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory):
    """Return a run folder with every file, scored in the benchmark's bins."""
    path = tmp_path_factory.mktemp("page_run") / "gai"
    return make_run(path, sigma=1.0, bins=DepthBins.nyud2(), interval=True, examples=3)


@pytest.fixture(scope="session")
def driver(tmp_path_factory):
    require_browser()
    with started_browser(tmp_path_factory.mktemp("browser")) as started:
        yield started


@pytest.fixture
def opened(driver, tmp_path):
    """Return a function that opens a page in the browser, which must not complain until the end."""
    pages = []

    def open_page(*results, path=None):
        if path is None:
            path = tmp_path / f"{len(pages)}.html"
            write_page(report_of(*results), path)
        pages.append(Page(driver, path))
        return pages[-1]

    yield open_page
    assert pages[-1].complaints() == []


@pytest.fixture(scope="session")
def whole_file(whole_run, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "report.html"
    write_page(report_of(*load_results([whole_run])), path)
    return path


@pytest.fixture(scope="session")
def pair_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("pair") / "report.html"
    runs = depth_result("<b>first</b> & co"), depth_result("second", noise=0.1)
    write_page(report_of(*runs), path)
    return path


@pytest.fixture
def whole_page(opened, whole_file):
    return opened(path=whole_file)


@pytest.fixture
def pair_page(opened, pair_file):
    return opened(path=pair_file)

"""The page as a reader meets it: opened, clicked, touched, resized, in both themes."""

import json
import re
from itertools import groupby

import pytest

from depthbal.evaluation import DepthBins
from depthbal.reports import load_results
from depthbal.reports.writing import write_page
from tests.reports.browser import Page, require_browser, started_browser, wait_until
from tests.reports.made import age_result, depth_result, emptied, make_run, pose_result, report_of


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """Return a run folder with every file, scored in the benchmark's bins."""
    path = tmp_path_factory.mktemp("page_run") / "gai"
    return make_run(path, sigma=1.0, bins=DepthBins.nyud2(), interval=True, examples=3)


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
def whole_file(whole_run, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "report.html"
    write_page(report_of(*load_results([whole_run])), path)
    return path


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
def metrics(whole_run):
    return json.loads((whole_run / "metrics.json").read_text(encoding="utf-8"))


def test_a_clicked_bin_shows_the_numbers_of_metrics_json(whole_page, metrics):
    whole_page.click_label("error", 2.35)  # the middle of the bin from 2.3 m
    panel = whole_page.element("#bin-panel")
    wait_until(lambda: float(panel.get_attribute("data-from")) == 2.3)
    for subset, rows in (("all", metrics["all_pixels"]["bins"]), ("mask", metrics["bins"])):
        whole_page.choose("subset", subset)
        expected = next(row for row in rows if row["bin"] == 23)
        shown = whole_page.shown_numbers()
        for metric in ("rmse", "mae", "bias", "abs_rel", "delta1", "log10", "silog", "count"):
            assert shown[metric] == pytest.approx(expected[metric], rel=1e-6, abs=1e-9), metric
        text = whole_page.element('#bin-table td[data-metric="rmse"]').text
        assert text == f"{expected['rmse']:.3f}"
    assert whole_page.element("#bin-title").text == "2.3–2.4 m"
    images = next(row for row in metrics["bins"] if row["bin"] == 23)["images"]
    support = f"{images} images (balanced mask), fewer than 20"
    assert support in whole_page.element("#bin-facts").text


def test_the_metric_selector_draws_the_numbers_of_metrics_json(whole_page, metrics):
    whole_page.draw("error")
    for metric, title in (("delta1", "δ < 1.25"), ("abs_rel", "AbsRel"), ("rmse", "RMSE (m)")):
        whole_page.choose("metric", metric)
        drawn, heading = whole_page.run(
            "const plot = document.querySelector('#figure-error .plot');"
            "const traces = plot.data.filter((t) => t.name && t.hovertext);"
            "return [traces[0].y, plot.layout.yaxis.title.text]"
        )
        expected = [row[metric] for row in metrics["all_pixels"]["bins"]]
        assert [value is None for value in drawn] == [value is None for value in expected]
        known = [value for value in expected if value is not None]
        assert [v for v in drawn if v is not None] == pytest.approx(known, rel=1e-6, abs=1e-9)
        assert heading == title
        chosen = whole_page.element("#bin-table thead th.chosen")
        assert chosen.text == title


FIGURES = (
    "error difference bias distribution joint tradeoff"
    " sigma-training calibration calibration-bins curves"
)


def test_every_figure_of_a_comparison_draws_with_names_of_users_as_text(pair_page):
    pair_page.draw_all()
    figures = pair_page.elements("[data-figure]")
    assert " ".join(figure.get_attribute("data-figure") for figure in figures) == FIGURES
    numbers = [element.text for element in pair_page.elements(".figure-number")]
    assert numbers == [f"Figure {k}." for k in range(1, 11)]
    labels = [e.text for e in pair_page.elements("#figure-tradeoff .textpoint")]
    assert "<b>first</b> & co" in labels


@pytest.mark.parametrize(
    "results",
    [
        [depth_result("<b>first</b> & co"), depth_result("second", noise=0.1)],
        # a label of many words, long names
        [pose_result(f"{'a_long_name_without_a_break_' * 3}{k}", 50.0 + k) for k in range(5)],
    ],
    ids=["pair", "long names"],
)
def test_nothing_is_wider_than_a_phone_or_a_screen(opened, results):
    page = opened(*results)
    for width in (390, 1200):
        page.size(width)
        page.draw_all()
        assert page.run("return document.documentElement.scrollWidth") <= width


def test_selectors_work_by_keyboard_and_runs_can_be_hidden(pair_page):
    from selenium.webdriver.common.keys import Keys

    shown = "return document.querySelector('#figure-error .plot').data.filter((t) => t.name).length"
    pair_page.draw("error")
    before = pair_page.run(shown)
    boxes = pair_page.elements("#select-runs input")
    boxes[1].send_keys(Keys.SPACE)
    assert pair_page.run(shown) < before
    boxes[1].send_keys(Keys.SPACE)
    assert pair_page.run(shown) == before
    pair_page.element("#select-metric").send_keys("MAE")
    wait_until(lambda: pair_page.element("#bin-table th.chosen").text == "MAE (m)")
    bin_before = pair_page.element("#bin-panel").get_attribute("data-bin")
    pair_page.element("#bin-next").send_keys(Keys.ENTER)
    bin_after = pair_page.element("#bin-panel").get_attribute("data-bin")
    assert int(bin_after) == int(bin_before) + 1


def test_the_theme_follows_the_system_and_the_switch(driver, opened, pair_file):
    def theme(name):
        features = [{"name": "prefers-color-scheme", "value": name}]
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    background = "return getComputedStyle(document.body).backgroundColor"
    theme("dark")
    page = opened(path=pair_file)
    assert page.run(background) == "rgb(20, 24, 27)"
    page.element("#theme-switch").click()
    assert page.run(background) == "rgb(253, 253, 252)"
    page.run("localStorage.clear()")
    theme("light")


def test_downloads_hold_the_full_numbers(driver, pair_page, tmp_path):
    driver.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)}
    )
    for kind in ("csv", "svg", "png"):
        button = pair_page.element(f'#figure-error [data-format="{kind}"]')
        pair_page.run("arguments[0].scrollIntoView({block: 'center'})", button)
        button.click()
        wait_until((tmp_path / f"error.{kind}").is_file)
    pair_page.run("document.querySelector('.download-table[data-table=answer]').click()")
    wait_until((tmp_path / "rmse-bins.csv").is_file)
    header, first, *_ = (tmp_path / "error.csv").read_text(encoding="utf-8").splitlines()
    assert header == "from,to,shot,images,<b>first</b> & co,second"
    rmse = depth_result("first").metrics["all_pixels"]["bins"][0]["rmse"]
    assert first.startswith("0,1,many,40,")
    assert float(first.split(",")[4]) == pytest.approx(rmse, rel=1e-6)
    rows = (tmp_path / "rmse-bins.csv").read_text(encoding="utf-8").splitlines()
    assert rows[0] == "run,overall,many,medium,few"
    means = depth_result("second", noise=0.1).metrics["all_pixels"]["per_bin_mean"]
    assert float(rows[2].split(",")[1]) == pytest.approx(means["overall"]["rmse"], rel=1e-12)
    assert (tmp_path / "error.png").read_bytes().startswith(b"\x89PNG")
    svg = (tmp_path / "error.svg").read_text(encoding="utf-8")
    assert svg.startswith("<svg")
    assert "RMSE (m)" in svg


def test_ages_without_mask_and_pictures_draw_without_complaint(opened):
    page = opened(age_result())
    page.draw_all()
    strip, ticks = page.run(  # the strip of shots does not cover the axis
        "const boxes = (css) => [...document.querySelector('#figure-error .plot')"
        ".querySelectorAll(css)].map((found) => found.getBoundingClientRect());"
        "return [Math.max(...boxes('.shapelayer path').map((box) => box.bottom)),"
        " Math.min(...boxes('.xtick text').map((box) => box.top))]"
    )
    assert strip <= ticks
    assert "training labels" not in page.element("#caption-error").text
    assert not page.element("#select-subset").is_displayed()
    assert not page.element("#select-readout").is_displayed()
    assert re.match(r"\d–\d years", page.element("#bin-title").text)


def test_bins_are_greyed_by_the_images_of_the_chosen_subset(opened):
    runs = [depth_result(name, noise=noise) for name, noise in (("a", 0.3), ("b", 0.1))]
    runs = [emptied(run, 1, images=33, subsets=["mask"]) for run in runs]
    page = opened(*runs)

    def greyed(figure):
        return page.run(
            "const {data, layout} = arguments[0];"
            "return [layout.shapes.filter((s) => s.name === 'weak').map((s) => [s.x0, s.x1]),"
            " data.find((t) => t.hovertext).hovertext[1]]",
            page.draw(figure),
        )

    head = "<b>1–2 m</b>, many-shot, "
    assert greyed("error") == [[[4, 5]], head + "40 images (all pixels)"]
    page.choose("subset", "mask")
    masked = (runs[0].scores.sums("mask")[:, 1, 0] > 0).sum()
    few = f"{masked} images (balanced mask), fewer than 20"
    assert greyed("error") == greyed("bias") == [[[1, 2], [4, 5]], head + few]
    # whose pixels are all, whatever is chosen
    assert greyed("difference") == [[[4, 5]], head + "40 images (all pixels)"]


def test_the_difference_follows_the_metric(opened, pair_file):
    page = opened(path=pair_file)
    plot = page.draw("difference")
    metrics = [option.get_attribute("value") for option in page.elements("#select-metric option")]
    assert {"log10", "silog", "delta2", "delta3", "mse"} < set(metrics)
    runs = depth_result(), depth_result(noise=0.1)
    for metric in metrics:
        page.choose("metric", metric)
        title, drawn = page.run(
            "const {data, layout} = arguments[0];"
            "return [layout.yaxis.title.text, data.find((t) => t.name && t.hovertext).y]",
            plot,
        )
        rows = [run.metrics["all_pixels"]["bins"] for run in runs]
        expected = [two[metric] - one[metric] for one, two in zip(*rows, strict=True)]
        assert drawn == pytest.approx(expected, rel=1e-5, abs=1e-6), metric
        name = page.element("#bin-table thead th.chosen").text
        assert title.removeprefix("Δ ").split(", ")[0] == name


LABELS = "#figure-error .hoverlayer :is(.hovertext, .legend)"


def test_what_is_touched_is_told_beside_it_and_on_a_phone_below_the_figure(pair_page):
    pair_page.click_label("error", 2.5)
    wait_until(lambda: pair_page.elements(LABELS))
    assert pair_page.element("#figure-error .touched").text == ""
    pair_page.size(390)
    pair_page.draw_all()
    pair_page.click_label("error", 2.5)
    below = pair_page.element("#figure-error .touched")
    rmse = [depth_result(noise=n).metrics["all_pixels"]["bins"][2]["rmse"] for n in (0.3, 0.1)]
    names = f"<b>first</b> & co: {rmse[0]:.3f} m", f"second: {rmse[1]:.3f} m"
    expected = ["2–3 m, medium-shot, 40 images (all pixels)", *names]
    wait_until(lambda: below.text.splitlines() == expected)
    assert pair_page.elements(LABELS) == []
    plot = pair_page.element("#figure-error .plot").rect
    assert below.rect["y"] >= plot["y"] + plot["height"]
    pair_page.choose("metric", "mae")
    assert f"{rmse[0]:.3f}" not in below.text  # of another metric


def test_bands_cover_the_bins_that_have_one_and_nothing_else(opened):
    runs = [emptied(depth_result("one"), 1), emptied(depth_result("two", noise=0.1), 1)]
    band = report_of(*runs).pairs[0].bands["rmse", 0]
    page = opened(*runs)
    x, y = page.run(
        "const [band] = arguments[0].data.filter((trace) => trace.fill);return [band.x, band.y]",
        page.draw("difference"),
    )
    corners = groupby(zip(x, y, strict=True), lambda corner: corner[0] is not None)
    shapes = [list(group) for known, group in corners if known]
    # bin 1 is empty, bin 4 has few images: bin 0, and bins 2 and 3 together
    ends = [(min(shape)[0], max(shape)[0]) for shape in shapes]
    assert ends == [(0, 1), (2, 4)]
    for shape, bins in zip(shapes, ([0], [2, 3]), strict=True):
        heights = [height for _, height in shape]
        assert min(heights) == pytest.approx(band["low"][bins].min(), rel=1e-6)
        assert max(heights) == pytest.approx(band["high"][bins].max(), rel=1e-6)

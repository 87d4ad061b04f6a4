"""The page as a reader meets it: opened, clicked, resized, in both themes."""

import json
import re
from dataclasses import replace
from itertools import groupby

import pytest

from depthbal.reports.comparing import compare
from depthbal.reports.loading import load_results
from depthbal.reports.page import write_page
from tests.reports.page.browser import Page, require_browser, started_browser, wait_until
from tests.reports.page.made_up import age_result, depth_result


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    require_browser()
    with started_browser(tmp_path_factory.mktemp("browser")) as started:
        yield started


@pytest.fixture(scope="module")
def trained_page(trained_run, tmp_path_factory):
    path = tmp_path_factory.mktemp("trained") / "report.html"
    write_page(load_results([trained_run]), None, path)
    return path


@pytest.fixture(scope="module")
def pair_page(tmp_path_factory):
    path = tmp_path_factory.mktemp("pair") / "report.html"
    runs = depth_result("<b>first</b> & co"), depth_result("second", noise=0.1)
    write_page(runs, compare(runs, resamples=100), path)
    return path


def test_a_clicked_bin_shows_the_numbers_of_metrics_json(driver, trained_page, trained_run):
    metrics = json.loads((trained_run / "metrics.json").read_text(encoding="utf-8"))
    page = Page(driver, trained_page)
    page.click_label("error", 2.35)  # the middle of the bin from 2.3 m
    panel = page.element("#bin-panel")
    wait_until(lambda: float(panel.get_attribute("data-from")) == 2.3)
    for subset, rows in (("all", metrics["all_pixels"]["bins"]), ("mask", metrics["bins"])):
        page.choose("subset", subset)
        expected = next(row for row in rows if row["bin"] == 23)
        shown = page.shown_numbers()
        for metric in ("rmse", "mae", "bias", "abs_rel", "delta1", "log10", "silog", "count"):
            assert shown[metric] == pytest.approx(expected[metric], rel=1e-6, abs=1e-9), metric
        text = page.element('#bin-table td[data-metric="rmse"]').text
        assert text == f"{expected['rmse']:.3f}"
    assert page.element("#bin-title").text == "2.3–2.4 m"
    images = next(r for r in metrics["all_pixels"]["bins"] if r["bin"] == 23)["images"]
    assert f"{images} test images, fewer than 20" in page.element("#bin-facts").text
    assert page.complaints() == []


def test_the_metric_selector_draws_the_numbers_of_metrics_json(driver, trained_page, trained_run):
    metrics = json.loads((trained_run / "metrics.json").read_text(encoding="utf-8"))
    page = Page(driver, trained_page)
    page.draw("error")
    for metric, title in (("delta1", "δ < 1.25"), ("abs_rel", "AbsRel"), ("rmse", "RMSE (m)")):
        page.choose("metric", metric)
        drawn, heading = page.run(
            "const plot = document.querySelector('#figure-error .plot');"
            "const traces = plot.data.filter((t) => t.hovertemplate?.startsWith('%{y'));"
            "return [traces[0].y, plot.layout.yaxis.title.text]"
        )
        expected = [row[metric] for row in metrics["all_pixels"]["bins"]]
        assert [value is None for value in drawn] == [value is None for value in expected]
        known = [value for value in expected if value is not None]
        assert [v for v in drawn if v is not None] == pytest.approx(known, rel=1e-6, abs=1e-9)
        assert heading == title
        chosen = page.element("#bin-table thead th.chosen")
        assert chosen.text == title
    assert page.complaints() == []


def test_the_first_table_shows_the_headline_of_metrics_json(driver, trained_page, trained_run):
    metrics = json.loads((trained_run / "metrics.json").read_text(encoding="utf-8"))
    page = Page(driver, trained_page)
    shown = [cell.text for cell in page.elements("#answer-rmse-bins td .value")]
    bins = metrics["all_pixels"]["per_bin_mean"]
    assert shown == [f"{bins[g]['rmse']:.3f}" for g in ("overall", "many", "medium", "few")]
    page.run("document.getElementById('answer-statistic').value = 'pooled'")
    page.run("document.getElementById('answer-statistic').dispatchEvent(new Event('change'))")
    shown = [cell.text for cell in page.elements("#answer-rmse-pooled td .value")]
    assert shown == [f"{metrics[g]['rmse']:.3f}" for g in ("overall", "many", "medium", "few")]


def test_every_figure_of_a_comparison_draws_and_nothing_is_wider_than_a_phone(driver, pair_page):
    page = Page(driver, pair_page)
    for width in (1200, 390):
        page.size(width)
        page.draw_all()
        assert page.run("return document.documentElement.scrollWidth") <= width
    names = [figure.get_attribute("data-figure") for figure in page.elements("[data-figure]")]
    assert names == [
        "error",
        "difference",
        "bias",
        "distribution",
        "joint",
        "tradeoff",
        "sigma-training",
        "sigma-label",
        "calibration",
        "calibration-bins",
        "curves",
    ]
    numbers = [element.text for element in page.elements(".figure-number")]
    assert numbers == [f"Figure {k}." for k in range(1, 12)]
    page.size(1200)
    assert page.complaints() == []


def test_five_runs_with_long_names_fit_a_phone(driver, tmp_path):
    runs = [depth_result(f"{'a_long_name_without_a_break_' * 3}{k}") for k in range(5)]
    write_page(runs, compare(runs, resamples=100), tmp_path / "five.html")
    page = Page(driver, tmp_path / "five.html")
    page.size(390)
    page.draw_all()
    assert page.run("return document.documentElement.scrollWidth") <= 390
    page.size(1200)
    assert page.run("return document.documentElement.scrollWidth") <= 1200
    assert page.complaints() == []


def test_names_of_users_are_text_in_figures_too(driver, pair_page):
    page = Page(driver, pair_page)
    page.draw_all()
    labels = [e.text for e in page.elements("#figure-tradeoff .textpoint")]
    assert "<b>first</b> & co" in labels
    assert "<b>first</b> & co" in page.element("#select-runs").text


def test_selectors_work_by_keyboard_and_runs_can_be_hidden(driver, pair_page):
    from selenium.webdriver.common.keys import Keys

    page = Page(driver, pair_page)
    shown = "return document.querySelector('#figure-error .plot').data.filter((t) => t.name).length"
    page.draw("error")
    before = page.run(shown)
    boxes = page.elements("#select-runs input")
    boxes[1].send_keys(Keys.SPACE)
    assert page.run(shown) < before
    boxes[1].send_keys(Keys.SPACE)
    assert page.run(shown) == before
    page.element("#select-metric").send_keys("MAE")
    wait_until(lambda: page.element("#bin-table th.chosen").text == "MAE (m)")
    bin_before = page.element("#bin-panel").get_attribute("data-bin")
    page.element("#bin-next").send_keys(Keys.ENTER)
    bin_after = page.element("#bin-panel").get_attribute("data-bin")
    assert int(bin_after) == int(bin_before) + 1


def test_the_theme_follows_the_system_and_the_switch(driver, pair_page):
    def theme(name):
        features = [{"name": "prefers-color-scheme", "value": name}]
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    background = "return getComputedStyle(document.body).backgroundColor"
    theme("dark")
    page = Page(driver, pair_page)
    assert page.run(background) == "rgb(20, 24, 27)"
    page.element("#theme-switch").click()
    assert page.run(background) == "rgb(253, 253, 252)"
    page.run("localStorage.clear()")
    theme("light")


def test_downloads_hold_the_full_numbers(driver, pair_page, tmp_path):
    driver.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)}
    )
    page = Page(driver, pair_page)
    for kind in ("csv", "svg", "png"):
        button = page.element(f'#figure-error [data-format="{kind}"]')
        page.run("arguments[0].scrollIntoView({block: 'center'})", button)
        button.click()
        wait_until((tmp_path / f"error.{kind}").is_file)
    page.run("document.querySelector('.download-table[data-table=answer]').click()")
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
    assert page.complaints() == []


def test_ages_without_mask_and_pictures_draw_without_complaint(driver, tmp_path):
    result = replace(age_result(), gaps=("no example pictures",))
    write_page([result], None, tmp_path / "ages.html")
    page = Page(driver, tmp_path / "ages.html")
    page.draw_all()
    assert not page.element("#select-subset").is_displayed()
    assert not page.element("#select-readout").is_displayed()
    assert re.match(r"\d–\d years", page.element("#bin-title").text)
    assert "no example pictures" in page.element(".note").text
    assert page.complaints() == []


def test_without_a_training_histogram_the_shots_do_not_cover_the_axis(driver, tmp_path):
    write_page([age_result()], None, tmp_path / "ages.html")
    page = Page(driver, tmp_path / "ages.html")
    plot = page.draw("error")
    strip, ticks = page.run(
        "const bottom = (css) => [...arguments[0].querySelectorAll(css)]"
        ".map((found) => found.getBoundingClientRect());"
        "return [Math.max(...bottom('.shapelayer path').map((box) => box.bottom)),"
        " Math.min(...bottom('.xtick text').map((box) => box.top))]",
        plot,
    )
    assert strip <= ticks
    assert "training labels" not in page.element("#caption-error").text


def test_bands_cover_the_bins_that_have_one_and_nothing_else(driver, tmp_path):
    runs = [emptied(depth_result("one"), 1), emptied(depth_result("two", noise=0.1), 1)]
    comparison = compare(runs, resamples=100)
    band = comparison.pairs[0].bins["rmse", comparison.binnings[0].name]
    write_page(runs, comparison, tmp_path / "gap.html")
    page = Page(driver, tmp_path / "gap.html")
    x, y = page.run(
        "const [band] = arguments[0].data.filter((trace) => trace.fill);return [band.x, band.y]",
        page.draw("difference"),
    )
    shapes = [list(group) for known, group in groupby(zip(x, y, strict=True), has_place) if known]
    # bin 1 is empty, bin 4 has few images: bin 0, and bins 2 and 3 together
    assert [(min(x), max(x)) for x, _ in (zip(*shape, strict=True) for shape in shapes)] == [
        (0, 1),
        (2, 4),
    ]
    for shape, bins in zip(shapes, ([0], [2, 3]), strict=True):
        heights = [height for _, height in shape]
        assert min(heights) == pytest.approx(band.low[bins].min(), rel=1e-6)
        assert max(heights) == pytest.approx(band.high[bins].max(), rel=1e-6)


def has_place(corner):
    return corner[0] is not None


def emptied(result, empty):
    """Return a result whose bin has no pixels."""
    sums = {key: values.copy() for key, values in result.sums.items()}
    for values in sums.values():
        values[:, empty] = 0
    counts = sums["all", "raw"][..., result.terms.index("count")]
    pooled = {key: values.sum(0) for key, values in sums.items()}
    return replace(result, sums=sums, counts=counts, pooled=pooled)

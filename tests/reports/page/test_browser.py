"""The page as a reader meets it: opened, clicked, resized, in both themes."""

import json
import re
from dataclasses import replace

import pytest

from depthbal.reports.page import write_page
from tests.reports.made import age_result, depth_result, pose_result, report_of
from tests.reports.page.browser import Page, wait_until


def test_a_clicked_bin_shows_the_numbers_of_metrics_json(driver, whole_page, whole_run):
    metrics = json.loads((whole_run / "metrics.json").read_text(encoding="utf-8"))
    page = Page(driver, whole_page)
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
    images = next(row for row in metrics["bins"] if row["bin"] == 23)["images"]
    support = f"{images} images (balanced mask), fewer than 20"
    assert support in page.element("#bin-facts").text
    assert page.complaints() == []


def test_the_metric_selector_draws_the_numbers_of_metrics_json(driver, whole_page, whole_run):
    metrics = json.loads((whole_run / "metrics.json").read_text(encoding="utf-8"))
    page = Page(driver, whole_page)
    page.draw("error")
    for metric, title in (("delta1", "δ < 1.25"), ("abs_rel", "AbsRel"), ("rmse", "RMSE (m)")):
        page.choose("metric", metric)
        drawn, heading = page.run(
            "const plot = document.querySelector('#figure-error .plot');"
            "const traces = plot.data.filter((t) => t.name && t.hovertext);"
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


def test_the_first_table_shows_the_headline_of_metrics_json(driver, whole_page, whole_run):
    metrics = json.loads((whole_run / "metrics.json").read_text(encoding="utf-8"))
    page = Page(driver, whole_page)
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
        "calibration",
        "calibration-bins",
        "curves",
    ]
    numbers = [element.text for element in page.elements(".figure-number")]
    assert numbers == [f"Figure {k}." for k in range(1, 11)]
    assert page.complaints() == []


def test_a_label_of_many_words_fits_a_phone(driver, tmp_path):
    runs = pose_result("one"), pose_result("two", 50.0)
    write_page(report_of(*runs), tmp_path / "poses.html")
    page = Page(driver, tmp_path / "poses.html")
    page.size(390)
    page.draw_all()
    assert page.run("return document.documentElement.scrollWidth") <= 390


def test_five_runs_with_long_names_fit_a_phone(driver, tmp_path):
    runs = [depth_result(f"{'a_long_name_without_a_break_' * 3}{k}") for k in range(5)]
    write_page(report_of(*runs), tmp_path / "five.html")
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
    write_page(report_of(result), tmp_path / "ages.html")
    page = Page(driver, tmp_path / "ages.html")
    page.draw_all()
    assert not page.element("#select-subset").is_displayed()
    assert not page.element("#select-readout").is_displayed()
    assert re.match(r"\d–\d years", page.element("#bin-title").text)
    assert "no example pictures" in page.element(".note").text
    assert page.complaints() == []

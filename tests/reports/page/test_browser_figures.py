"""Figures as a reader meets them: what they draw, and what they say where they are touched."""

from dataclasses import replace
from itertools import groupby

import pytest

from depthbal.reports.page import write_page
from tests.reports.made import (
    age_result,
    depth_result,
    report_of,
    sums_of,
    unmasked,
    with_sums,
)
from tests.reports.page.browser import Page, wait_until


def test_bins_are_greyed_by_the_images_of_the_chosen_subset(driver, tmp_path):
    runs = [unmasked(depth_result(name, noise=n), 1, 33) for name, n in (("a", 0.3), ("b", 0.1))]
    write_page(report_of(*runs), tmp_path / "mask.html")
    page = Page(driver, tmp_path / "mask.html")

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
    masked = (sums_of(runs[0], "mask")[:, 1, 0] > 0).sum()
    few = f"{masked} images (balanced mask), fewer than 20"
    assert greyed("error") == greyed("bias") == [[[1, 2], [4, 5]], head + few]
    # whose pixels are all, whatever is chosen
    assert greyed("difference") == [[[4, 5]], head + "40 images (all pixels)"]


def test_the_difference_follows_the_metric_or_says_that_it_cannot(driver, pair_page, tmp_path):
    page = Page(driver, pair_page)
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
    report = report_of(*(replace(run, name=n) for n, run in zip("ab", runs, strict=True)))
    (pair,) = report.comparison.pairs
    known = {key: band for key, band in pair.bands.items() if key[0] == "rmse"}
    lacking = replace(report.comparison, pairs=(pair._replace(bands=known),))
    write_page(replace(report, comparison=lacking), tmp_path / "lacking.html")
    page = Page(driver, tmp_path / "lacking.html")
    plot = page.draw("difference")
    page.choose("metric", "mae")
    sentence = page.element("#figure-difference .instead")
    assert sentence.text == "No difference of MAE: not every run has it."
    assert not plot.is_displayed()
    page.choose("metric", "rmse")
    assert plot.is_displayed()
    assert not sentence.is_displayed()
    assert page.complaints() == []


LABELS = "#figure-error .hoverlayer :is(.hovertext, .legend)"


def test_on_a_phone_what_is_touched_is_told_below_the_figure(driver, pair_page):
    page = Page(driver, pair_page)
    page.size(390)
    page.draw_all()
    page.click_label("error", 2.5)
    below = page.element("#figure-error .touched")
    rmse = [depth_result(noise=n).metrics["all_pixels"]["bins"][2]["rmse"] for n in (0.3, 0.1)]
    expected = [
        "2–3 m, medium-shot, 40 images (all pixels)",
        f"<b>first</b> & co: {rmse[0]:.3f} m",
        f"second: {rmse[1]:.3f} m",
    ]
    wait_until(lambda: below.text.splitlines() == expected)
    assert page.elements(LABELS) == []
    plot = page.element("#figure-error .plot").rect
    assert below.rect["y"] >= plot["y"] + plot["height"]
    page.choose("metric", "mae")
    assert f"{rmse[0]:.3f}" not in below.text  # of another metric
    assert page.complaints() == []


def test_on_a_wide_screen_a_label_stands_beside_what_is_touched(driver, pair_page):
    page = Page(driver, pair_page)
    page.click_label("error", 2.5)
    wait_until(lambda: page.elements(LABELS))
    assert page.element("#figure-error .touched").text == ""


def test_without_a_training_histogram_the_shots_do_not_cover_the_axis(driver, tmp_path):
    write_page(report_of(age_result()), tmp_path / "ages.html")
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
    report = report_of(*runs)
    band = report.comparison.pairs[0].bands["rmse", 0]
    write_page(report, tmp_path / "gap.html")
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

    def change(sums, _):
        sums[:, empty] = 0
        return sums

    return with_sums(result, change)

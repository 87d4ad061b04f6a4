import json
import re
from dataclasses import replace
from html import unescape

import numpy as np
import pytest
from markdown_it import MarkdownIt

from depthbal.errors import ConfigError, RunFolderError
from depthbal.evaluation import GROUPS
from depthbal.reports import load_results, write_report
from depthbal.reports.vocabulary import curve_name, digits_for, fixed, flat, jsonable, short
from depthbal.reports.writing import markdown, write_page
from tests.reports.made import (
    age_result,
    depth_result,
    make_run,
    page_data,
    pose_result,
    report_of,
    with_sums,
)


def text_of(*runs):
    return markdown(report_of(*load_results(runs)))


def test_markdown_holds_the_numbers_of_metrics_json(tmp_path):
    mse, gai = make_run(tmp_path / "mse", posthoc=(0.5,)), make_run(tmp_path / "gai", bias=0.3)
    text = text_of(mse, mse / "eval" / "posthoc_0.5", gai)
    metrics = json.loads((mse / "metrics.json").read_text())
    for block in (metrics, metrics["all_pixels"]["per_bin_mean"]):
        numbers = " | ".join(f"{block[group]['rmse']:.3f}" for group in GROUPS)
        assert f"| mse | {numbers} |" in text
    assert "RMSE in m, pooled over pixels, balanced mask; difference to the first row" in text
    assert "RMSE in m, mean over the bins of depth, all pixels" in text
    few = json.loads((gai / "metrics.json").read_text())["few"]["rmse"]
    change = f"{few:.3f} {few - metrics['few']['rmse']:+.3f} \\[".replace("-", "−")
    assert change in text
    assert "- gai against mse, RMSE as the mean over the bins of depth" in text
    assert "mask.source: drawn" in text
    assert "- mse, balanced afterwards (sigma 0.5) against mse" in text


def test_every_table_has_as_many_cells_in_all_rows_and_methods_name_their_runs(tmp_path):
    runs = [make_run(tmp_path / f"gai-{seed}", 0.1, seed=seed) for seed in (10, 11)]
    text = text_of(*runs, make_run(tmp_path / "a|b", lr=0.2))
    for block in text.split("\n\n"):
        if block.startswith("|"):
            assert len({len(re.split(r"(?<!\\)\|", row)) for row in block.splitlines()}) == 1
    assert "- gai: mean of gai-10; gai-11." in text
    alone = text_of(runs[0])
    assert "## Evaluation protocol" in alone
    assert not re.search("omparison|difference", alone)


def test_names_are_no_html_and_nothing_of_them_is_lost_to_the_rendering_of_markdown():
    names = ("gai*", "mse*", "_a_", "b`c`", "d\\_e", "~~f~~", "[g](h)", "i &amp; #")
    names += ("<script>alert(1)", "<!-- a", "a < b")
    text = markdown(report_of(*(pose_result(name) for name in names)))
    assert re.findall(r"<[A-Za-z/!?]", text) == ["<!"]  # the mark in the first line
    html = MarkdownIt().enable(["table", "strikethrough"]).render(text)
    shown = re.sub(r"<[^>]+>", "", re.search(r"(?s)<h1>(.*?)</h1>", html).group(1))
    assert unescape(shown) == " · ".join(names)
    rows = re.findall(r"<tr>\s*<td>(.*?)</td>", html)
    assert [unescape(row) for row in rows[: len(names)]] == list(names)


def test_ages_and_unknown_errors_are_reported_in_their_unit_over_samples():
    text = markdown(report_of(age_result("vanilla"), age_result("gai", noise=0.2)))
    assert "MAE in years, pooled over samples, all samples" in text
    assert "This holds over 10 blocks of 6 consecutive samples" in text
    for word in ("mask", "pixel", "metre", " m,", "example", "depth"):
        assert word not in text.replace("depthbal", "")
    text = markdown(report_of(pose_result("one"), pose_result("two", 50.0)))
    assert "epe in mm, mean over the bins of distance to the mean pose, all pixels" in text
    assert "| two | 50.0 −10.0 \\[−10.0, −10.0\\] |" in text


@pytest.mark.parametrize(
    ("main", "words"),
    [
        ("median_aligned", "scaled to the truth's median per image: not metric"),
        ("depth_aligned", "fitted to the truth in depth per image: not metric"),
        ("inverse_aligned", "fitted to the truth in inverse depth per image: not metric"),
        ("balanced", "balanced afterwards"),
    ],
)
def test_a_readout_that_saw_the_truth_is_said_to_be_not_metric(tmp_path, main, words):
    metric = depth_result("metric")
    sums = {(s, r): metric.scores.sums(s) for s in metric.scores.subsets for r in ("raw", main)}
    runs = with_sums(replace(metric, name="fitted"), sums, main), metric
    for report in (report_of(runs[0]), report_of(*runs)):
        text = markdown(report)
        write_page(report, tmp_path / "page.html")
        page = unescape((tmp_path / "page.html").read_text())
        lead = f"Predictions of fitted are {words}." if main != "balanced" else ""
        assert lead in text
        assert lead in page
        shown = re.search(r'(?s)<th scope="row">readout</th>.*?</tr>', page).group(0)
        assert words in shown
        assert f"readout: {words}" in text
        assert "_aligned" not in text
        assert {"key": main, "name": words} in page_data(page)["readouts"]
    assert f"The read-out differs: {words} for fitted; raw output for metric." in text


def test_a_report_is_written_again_but_nothing_else_is_overwritten(tmp_path):
    run = make_run(tmp_path / "run")
    page = write_report([run], run / "report.html")
    before = page.read_text()
    write_report([run], page)  # its own report
    assert page.read_text() == before
    for name in ("notes.html", "diary.md"):
        (tmp_path / name).write_text("<html>mine</html>")
    for name, error, message in (
        ("notes.html", RunFolderError, "not a report of depthbal"),
        ("diary.html", RunFolderError, r"diary\.md is not a report"),
        ("report.pdf", ConfigError, r"end with \.html"),
    ):
        with pytest.raises(error, match=message):
            write_report([run], tmp_path / name)
    assert (tmp_path / "notes.html").read_text() == "<html>mine</html>"
    assert not (tmp_path / "diary.html").exists()
    write_report([run], tmp_path / "notes.html", overwrite=True)
    assert "<!doctype html>" in (tmp_path / "notes.html").read_text().lower()


def test_a_refused_report_leaves_no_file(tmp_path, monkeypatch):
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b", mask_seed=1)]
    with pytest.raises(ConfigError, match="balanced mask"):
        write_report(runs, tmp_path / "report.html")
    monkeypatch.setattr("depthbal.reports.writing.MAX_BYTES", 1000)
    with pytest.raises(ConfigError, match="report fewer"):
        write_report(runs[:1], tmp_path / "report.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_the_resamples_and_their_seed_are_chosen_and_said(tmp_path):
    runs = [make_run(tmp_path / name, bias=0.1 * i) for i, name in enumerate("ab")]
    page = write_report(runs, tmp_path / "both.html", resamples=150, seed=3)
    text = page.with_suffix(".md").read_text()
    assert "150 resamples" in text
    assert "(seed 3)" in text
    assert np.isclose(len(page.read_text()), 2e6, rtol=0.5)


# ---- words ----


def test_numbers_are_text_with_a_true_minus_and_as_many_digits_as_say_something():
    assert [fixed(-1.2345, 2), fixed(0.5, 1, sign=True), fixed(None, 2)] == ["−1.23", "+0.5", "–"]
    assert fixed(-0.001, 2, sign=True) == "0.00"
    assert [digits_for(scale) for scale in (0.02, 0.3, 1.26, 7.1, 88.0, 0.0)] == [4, 3, 3, 2, 1, 3]
    assert [short(x) for x in (0.7999999999999999, 10.0, 25000000)] == ["0.8", "10", "25000000"]
    assert jsonable([1 / 3, float("nan"), 2.0]) == [0.3333333, None, 2]


def test_settings_and_curves_are_named_in_words():
    content = {"mask": {"seed": 0}, "edges": list(range(101)), "size": [72, 96], "none": None}
    expected = {"mask.seed": "0", "edges": "101 values, 0 to 100", "size": "72, 96", "none": "–"}
    assert flat(content) == expected
    names = ["val/rmse_bins", "train/loss_epoch", "val/own_error", "mine"]
    assert [curve_name(name) for name in names] == [
        "validation RMSE, mean over bins",
        "training loss, mean of the epoch",
        "validation own error",
        "mine",
    ]

import json
import re
from html import unescape

import numpy as np
import pytest
from markdown_it import MarkdownIt

from depthbal.errors import ConfigError, RunFolderError
from depthbal.evaluation import LabelBins
from depthbal.reports import compare, load_results, write_report
from depthbal.reports.markdown import markdown
from depthbal.reports.tradeoff import tradeoff_points
from tests.reports.in_memory import read_as_mean, result_of
from tests.reports.run_folders import make_age_run, make_pose_run, make_run
from tools.report import main


def test_markdown_opens_with_the_numbers_of_metrics_json(tmp_path):
    runs = [make_run(tmp_path / "mse", posthoc=(0.5,)), make_run(tmp_path / "gai", bias=0.3)]
    results = load_results(runs)
    text = markdown(results, compare(results, resamples=100))
    metrics = json.loads((runs[1] / "metrics.json").read_text())
    groups = ("overall", "many", "medium", "few")
    pooled = " | ".join(f"{metrics[group]['rmse']:.3f}" for group in groups)
    per_bin = metrics["all_pixels"]["per_bin_mean"]
    means = " | ".join(f"{per_bin[group]['rmse']:.3f}" for group in groups)
    assert f"| gai | clamped | {pooled} |" in text
    assert f"| gai | clamped | {means} |" in text
    assert "pooled over the pixels of the balanced mask" in text
    assert "mean over the non-empty bins of depth, all pixels" in text
    assert "- gai against mse, RMSE as the mean over the bins of depth" in text
    assert "balanced mask: drawn, seed 0" in text
    assert "mse, balanced afterwards (sigma 0.5) against mse" in text


def test_markdown_of_one_run_compares_nothing(tmp_path):
    results = load_results([make_run(tmp_path / "mse")])
    text = markdown(results)
    assert "## Protocol" in text
    assert "omparison" not in text
    assert "- mse: no example images" in text


def test_every_table_has_as_many_cells_in_all_rows(tmp_path):
    runs = [make_run(tmp_path / "a|b"), make_run(tmp_path / "gai", bias=0.3)]
    results = load_results(runs)
    for block in markdown(results, compare(results, resamples=100)).split("\n\n"):
        if block.startswith("|"):
            cells = {len(re.split(r"(?<!\\)\|", row)) for row in block.splitlines()}
            assert len(cells) == 1


def test_names_of_runs_are_no_html_in_markdown(tmp_path):
    names = ("<script>alert(1)", "<!-- a", "a < b")
    results = load_results([make_run(tmp_path / name) for name in names])
    text = markdown(results, compare(results, resamples=100))
    assert re.findall(r"<[A-Za-z/!?]", text) == ["<!"]  # the mark in the first line
    assert "&lt;script>alert(1) | clamped" in text
    assert "a < b | clamped" in text


def test_nothing_of_a_name_is_lost_to_the_rendering_of_markdown():
    names = ("gai*", "mse*", "_a_", "b`c`", "d\\_e", "~~f~~", "[g](h)", "i &amp; #")
    results = [made_up_result(name) for name in names]
    html = MarkdownIt().enable(["table", "strikethrough"]).render(markdown(results))
    shown = re.sub(r"<[^>]+>", "", re.search(r"(?s)<h1>(.*?)</h1>", html).group(1))
    assert unescape(shown) == " · ".join(names)
    rows = re.findall(r"<tr>\s*<td>(.*?)</td>", html)
    assert [unescape(row) for row in rows[: len(names)]] == list(names)


def made_up_result(name):
    bins = LabelBins([0.0, 1.0])
    return result_of(np.ones((40, 1, 2)), bins, ("count", "mpjpe"), name=name, main_metric="mpjpe")


def test_the_runs_of_a_method_are_named(tmp_path):
    runs = [make_run(tmp_path / f"gai-{seed}", 0.1, seed=seed) for seed in (10, 11)]
    results = load_results([*runs, make_run(tmp_path / "mse", lr=0.2)])
    text = markdown(results, compare(results, resamples=100))
    assert "- gai: mean of gai-10; gai-11." in text


def test_a_plain_loss_has_no_posterior_mean_in_text():
    results = [read_as_mean(made_up_result("mse")), read_as_mean(made_up_result("gai"), 0.5)]
    text = markdown(results, compare(results, resamples=100))
    assert "| mse | mean (no noise scale: the raw output) | 1" in text
    assert "| gai | posterior mean | 0.5" in text
    assert "mean (no noise scale: the raw output) for mse; posterior mean for gai" in text


def test_a_report_is_written_again_but_nothing_else_is_overwritten(tmp_path):
    run = make_run(tmp_path / "run")
    page = write_report([run], run / "report.html")
    before = page.read_text()
    write_report([run], page)  # its own report
    assert page.read_text() == before
    other = tmp_path / "notes.html"
    other.write_text("<html>mine</html>")
    with pytest.raises(RunFolderError, match="not a report of depthbal"):
        write_report([run], other)
    assert other.read_text() == "<html>mine</html>"
    (tmp_path / "diary.md").write_text("mine")
    with pytest.raises(RunFolderError, match=r"diary\.md is not a report"):
        write_report([run], tmp_path / "diary.html")
    assert not (tmp_path / "diary.html").exists()
    write_report([run], other, overwrite=True)
    assert "<!doctype html>" in other.read_text().lower()
    with pytest.raises(ConfigError, match=r"end with \.html"):
        write_report([run], tmp_path / "report.pdf")
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(RunFolderError, match="is a folder"):
        write_report([run], tmp_path / "folder.html")


def test_runs_that_cannot_be_compared_leave_no_file(tmp_path):
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b", mask_seed=1)]
    with pytest.raises(ConfigError, match="balanced mask"):
        write_report(runs, tmp_path / "report.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_runs_that_do_not_fit_a_page_are_refused_and_leave_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr("depthbal.reports.page.page.MAX_BYTES", 1000)
    run = make_run(tmp_path / "a")
    with pytest.raises(ConfigError, match="report fewer"):
        write_report([run], tmp_path / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_the_tool_writes_both_files_and_names_them(tmp_path, capsys):
    runs = [str(make_run(tmp_path / name, bias=0.1 * i)) for i, name in enumerate("ab")]
    main([*runs, "--out", str(tmp_path / "both.html"), "--resamples", "150", "--seed", "3"])
    assert str(tmp_path / "both.md") in capsys.readouterr().out
    assert "150 resamples" in (tmp_path / "both.md").read_text()
    assert "(seed 3)" in (tmp_path / "both.md").read_text()
    main([runs[0]])
    assert (tmp_path / "a" / "report.html").is_file()


def test_points_of_the_trade_off_are_the_files_numbers_and_sigmas_make_families(tmp_path):
    kinds = {"mse": {}, "gai-05": {"sigma": 0.5}, "gai-10": {"sigma": 1.0}}
    runs = [
        make_run(tmp_path / name, posthoc=(2.0,) * (name == "mse"), **k)
        for name, k in kinds.items()
    ]
    results = load_results(runs)
    comparison = compare(results, resamples=100)
    points = tradeoff_points(results, comparison.methods)
    assert [point.family for point in points] == ["mse", "mse, balanced afterwards", "gai", "gai"]
    assert [point.noise_sigma for point in points] == [None, 2.0, 0.5, 1.0]
    per_bin = json.loads((runs[2] / "metrics.json").read_text())
    means = per_bin["all_pixels"]["per_bin_mean"]
    assert (points[3].many, points[3].few) == pytest.approx(
        (means["many"]["rmse"], means["few"]["rmse"])
    )
    assert points[3].few_pooled == per_bin["few"]["rmse"]


def test_ages_are_reported_in_years_over_samples_without_mask_or_pictures(tmp_path):
    runs = [make_age_run(tmp_path / "vanilla", 8.0), make_age_run(tmp_path / "gai", 4.0)]
    text = (
        write_report(runs, tmp_path / "report.html", resamples=200).with_suffix(".md").read_text()
    )
    metrics = json.loads((runs[1] / "metrics.json").read_text())
    shots = " | ".join(f"{metrics[g]['mae']:.2f}" for g in ("overall", "many", "medium", "few"))
    assert f"| gai | {shots} |" in text
    assert "MAE in years, pooled over all samples" in text
    assert "This holds over 100 test scenes (200 samples)" in text
    for word in ("mask", "pixel", "metre", " m,", "example", "depth"):
        assert word not in text.replace("depthbal", "")


def test_errors_of_poses_are_reported_in_millimetres(tmp_path):
    runs = [make_pose_run(tmp_path / "mse", 1.0), make_pose_run(tmp_path / "bmc", 0.5)]
    results = load_results(runs)
    comparison = compare(results, resamples=200)
    assert comparison.metrics == ("mpjpe", "pa_mpjpe")
    found = comparison.pairs[0].differences["mpjpe", "overall", "pooled"]
    metrics = json.loads((runs[0] / "metrics.json").read_text())
    assert found.estimate == pytest.approx(-metrics["overall"]["mpjpe"] / 2)
    assert found.high < 0
    text = markdown(results, comparison)
    assert (
        "MPJPE in mm, mean over the non-empty bins of distance to the mean pose, all samples"
        in text
    )
    assert results[0].readouts == ("",)

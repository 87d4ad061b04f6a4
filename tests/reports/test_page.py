import re
from dataclasses import replace

import numpy as np
import pytest

from depthbal.evaluation import GROUPS
from depthbal.reports import writing
from depthbal.reports.pictures import MAX_EXAMPLES
from depthbal.reports.writing import MAX_BYTES, markdown, write_page
from tests.reports.made import (
    SHOTS,
    age_result,
    depth_result,
    drawn,
    example,
    page_data,
    pose_result,
    read_as_mean,
    report_of,
)


def figures(html, start=""):
    return set(re.findall(rf'data-figure="({start}[^"]+)"', html))


def answer(html, table):
    """Return the text of a table of the answer, and its exact numbers."""
    cells = re.search(rf'(?s)id="answer-{table}".*?</table>', html).group(0)
    return cells, [float(value) for value in re.findall(r'data-value="([^"]+)"', cells)]


def page_of(tmp_path, *results):
    write_page(report_of(*results), tmp_path / "report.html")
    return (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    return page_of(tmp_path_factory.mktemp("single"), depth_result())


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    runs = depth_result("first"), depth_result("second", noise=0.1)
    return page_of(tmp_path_factory.mktemp("pair"), *runs)


def test_loads_nothing_from_elsewhere(single):
    carried = re.sub(r'(?s)<script type="application/octet-stream".*?</script>', "", single)
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", carried)
    assert not re.findall(r"https?://|@import|url\(", carried)
    assert "default-src 'none'" in single


def test_numbers_per_bin_are_those_of_numpy(single):
    preds, truth, mask = (part.numpy() for part in drawn(40, seed=100, noise=0.3))
    tables = page_data(single)["bins"]
    for subset, chosen in (("all", np.ones_like(mask)), ("mask", mask)):
        table = tables[f"0/{subset}/raw"][0]
        for number in range(5):
            inside = chosen & (truth >= number) & (truth < number + 1)
            error = (preds - truth)[inside]
            assert table["count"][number] == inside.sum()
            assert table["rmse"][number] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-6)
            assert table["bias"][number] == pytest.approx(error.mean(), rel=1e-5)
            within = np.maximum(preds / truth, truth / preds)[inside] < 1.25
            assert table["delta1"][number] == pytest.approx(within.mean(), rel=1e-6)


def test_the_table_of_protocols_has_a_row_per_averaging_and_alignment(tmp_path):
    alignment = {"raw": "as predicted, in metres"}
    rows = [
        {"protocol": "kitti, kb-garg crop", "crop": "kb-garg", "cap": [1e-3, 80.0], "rmse": 4.5}
    ]
    rows[0] |= {"subset": "all", "averaging": "mean over images", "readout": "median_aligned"}
    rows[0]["alignment"] = "median_aligned"
    result = depth_result(protocol={"alignment": alignment, "same_pass": rows})
    html = page_of(tmp_path, result)
    table = re.search(r'(?s)id="protocols-table".*?</table>', html).group(0)
    shown = [re.findall(r'(?s)(?:"row"|"text")>(.*?)</t', one) for one in table.split("<tr>")[2:]]
    assert shown == [
        ["made up", "–", "–", "pixels, balanced mask", "none"],
        *(["made up", "–", "–", way, "none"] for way in ("pixels", "images", "bins")),
        ["kitti", "kb-garg", "0.001–80 m", "images", "median"],
    ]
    found = result.metrics
    exact = [float(x) for x in re.findall(r'<td data-value="([^"]+)">', table)]
    parts = [found["all_pixels"], *(found["all_pixels"][f"per_{w}_mean"] for w in ("image", "bin"))]
    assert all(part["overall"]["sq_rel"] in exact for part in (found, *parts))
    assert 4.5 in exact
    assert "SILog × 100" in table
    assert "as predicted, in metres" in html
    assert "same pass" not in html
    text = markdown(report_of(result))
    assert "| kitti | kb-garg | 0.001–80 m | images | median | 4.500 |" in text
    assert 'id="protocols-table"' not in page_of(tmp_path, depth_result())  # of older results


def test_a_plain_loss_has_no_posterior_mean_on_the_page(tmp_path):
    plain, balanced = read_as_mean(pose_result("mse")), read_as_mean(pose_result("gai"), 0.5)
    html = page_of(tmp_path, plain, balanced)
    name = "posterior mean (raw output of plain losses)"
    assert {"key": "mean", "name": name} in page_data(html)["readouts"]
    assert "mean (the raw output) for mse; posterior mean for gai" in html


def test_a_sigma_that_changes_over_steps_or_labels_has_a_figure_and_each_is_told(tmp_path, single):
    assert figures(single, "sigma") == {"sigma-training"}  # learned, but one number for all depths
    curves = {"train/noise_sigma": (np.arange(3.0), np.full(3, 0.6))}
    html = page_of(tmp_path, replace(depth_result(), curves=curves))
    assert 'data-figure="sigma' not in html
    assert re.search(r'<th scope="row">sigma</th>\s*<td[^>]*>0.6 m</td>', html)
    curves = {
        f"train/noise_sigma_{name}": (np.arange(3.0), np.full(3, 1.0 + k))
        for k, name in enumerate(("near", "middle", "far"))
    }
    html = page_of(tmp_path, depth_result(curves=curves, protocol={"noise_sigma": None}))
    assert figures(html, "sigma") == {"sigma-label"}
    assert page_data(html)["sigmaLabel"][0]["y"] == [1, 2, 3]


def test_earlier_sessions_are_rows_of_what_differed(tmp_path):
    now = {"torch": "2.14", "seed": 0, "command": "train --resume", "data": {"images": 9}}
    before = {"torch": "2.11", "seed": 0, "command": "train", "data": {"images": 9}}
    sessions = [{**before, "duration_s": 60.5}, now]
    versions = {**now, "earlier_sessions": sessions, "duration_s": 5.0, "total_duration_s": 65.5}
    html = page_of(tmp_path, replace(depth_result(), record=versions))
    table = re.search(r'(?s)<table class="facts"[^>]*data-file="Earlier sessions".*?</table>', html)
    rows = re.findall(r'(?s)<th scope="row">([^<]+)</th>\s*<td[^>]*>([^<]*)<', table.group(0))
    assert rows == [
        ("session 1", "60.5 s"),
        ("session 1, torch", "2.11"),
        ("session 1, command", "train"),
        ("session 2", "cut off before its end"),
    ]
    assert "earlier sessions" not in html
    assert "{&#39;" not in html
    assert re.search(r"total duration \(s\)</th>\s*<td[^>]*>65.5<", html)


def test_distribution_of_predictions_covers_all_of_them(single):
    table = page_data(single)["joint"]["raw"][0]
    assert sum(table["truth"]) == pytest.approx(100)
    assert sum(table["predicted"]) + table["below"] + table["beyond"] == pytest.approx(100)
    assert sum(table["rows"]) == 1600
    inside = [share for row, share in zip(table["row"], table["share"], strict=True) if row == 1]
    assert 0.9 < sum(inside) <= 1.002  # each truth bin's shares add up to what is not outside


def test_the_answer_holds_the_exact_numbers_and_the_worst_supported_bin_is_chosen(single):
    metrics = depth_result().metrics
    bins = metrics["all_pixels"]["per_bin_mean"]
    assert answer(single, "rmse-pooled")[1] == [metrics[g]["rmse"] for g in GROUPS]
    assert answer(single, "rmse-bins")[1] == [bins[g]["rmse"] for g in GROUPS]
    data = page_data(single)
    assert data["binnings"][0]["images"]["all"] == [40, 40, 40, 40, 6]
    assert data["binnings"][0]["shots"] == SHOTS
    assert data["defaults"]["bin"] != 4  # six images


def test_differences_are_against_the_first_run_with_their_intervals(pair):
    report = report_of(depth_result("first"), depth_result("second", noise=0.1))
    found = report.pairs[0].differences["rmse", "few", "bins"]
    cells, _ = answer(pair, "rmse-bins")
    change = f"{found.estimate:+.3f}", f"[{found.low:+.3f}, {found.high:+.3f}]"
    for part in (*change, 'class="change better"'):
        assert part.replace("-", "−") in cells.replace("-", "−")
    assert 'data-figure="difference"' in pair
    assert report.sentences[0] in pair


def test_seeds_of_one_method_are_one_row_with_their_mean(tmp_path):
    runs = [depth_result(f"a-{k}", noise=0.1 + k, method="a", seed=k) for k in range(2)]
    html = page_of(tmp_path, *runs)
    assert "mean of 2 seeds" in html
    means = [np.mean([run.metrics[g]["rmse"] for run in runs]) for g in GROUPS]
    assert answer(html, "rmse-pooled")[1] == pytest.approx(means, rel=1e-12)
    styles = {(run["colour"], run["dash"]) for run in page_data(html)["runs"]}
    assert len(styles) == 1


def test_an_evaluation_balanced_afterwards_has_its_runs_colour_and_other_dashes(tmp_path):
    plain, name = depth_result("plain"), "plain, afterwards"
    options = {"method": "b", "protocol": {"posthoc": {"noise_sigma": 1.0}}, "run": plain.run}
    after = depth_result(name, noise=0.2, **options)
    html = page_of(tmp_path, plain, depth_result("other"), after)
    styles = page_data(html)["runs"]
    assert styles[2]["colour"] == styles[0]["colour"] != styles[1]["colour"]
    assert styles[2]["dash"] != styles[0]["dash"]
    # names with commas stay apart
    assert "plain · other · plain, afterwards</title>" in html
    assert "config.yaml of plain; other; plain, afterwards" in html


def test_names_and_configs_of_users_are_text(tmp_path):
    evil = '<img src=x onerror=alert(1)>"&amp;</script>'
    result = replace(depth_result(), name=evil, config=f"a: {evil}")
    html = page_of(tmp_path, result)
    assert evil not in html
    assert html.count("&lt;img src=x onerror=alert(1)&gt;&#34;&amp;amp;&lt;/script&gt;") >= 3
    assert page_data(html)["runs"][0]["name"] == evil


def test_parts_without_data_are_left_out(tmp_path):
    html = page_of(tmp_path, age_result())
    data = page_data(html)
    assert [subset["name"] for subset in data["subsets"]] == ["all samples"]
    assert data["readouts"] == []
    assert (data["metrics"][0]["name"], data["metrics"][0]["unit"]) == ("MAE", "years")
    assert "δ < 1.25" not in [info["name"] for info in data["metrics"]]
    assert figures(html) == {"error", "bias"}
    for absent in ("Examples", "balanced mask", "depth", "pixel", "with the prior"):
        assert absent not in re.sub(r"(?s)<(script|style).*?</\1>|depthbal", "", html), absent


def test_a_page_does_not_grow_with_the_test_images(tmp_path):
    sizes = [len(page_of(tmp_path, depth_result(images=images))) for images in (1_000, 10_000)]
    assert abs(sizes[1] - sizes[0]) < 2_000


def test_many_large_runs_stay_below_the_limit(tmp_path):
    examples = tuple(example(k, "worst", 240, 320) for k in range(24))
    random = np.random.default_rng(0)
    curve = np.arange(100_000.0), random.random(100_000)
    curves = {f"val/metric {k}": curve for k in range(20)}
    runs = [depth_result(f"run {n}", examples=examples, curves=curves) for n in range(12)]
    html = page_of(tmp_path, *runs)
    assert len(html.encode()) < MAX_BYTES
    # noise compresses badly: what had to go is named
    assert len(re.findall(r"signed error of", html)) <= MAX_EXAMPLES


def test_the_last_to_go_are_the_read_outs_that_no_run_is_reported_in(tmp_path, monkeypatch):
    runs = depth_result("raw"), read_as_mean(depth_result("mean"))
    html = page_of(tmp_path, *runs)
    assert all(page_data(html)["bins"]["0/all/raw"])
    monkeypatch.setattr(writing, "MAX_BYTES", len(html) - 1)
    monkeypatch.setattr(writing, "ATTEMPTS", (writing.ATTEMPTS[0], writing.ATTEMPTS[-1]))
    small = page_of(tmp_path, *runs)
    assert "read-outs that no run is reported in: left out" in small
    data = page_data(small)
    there = {
        name: [row is not None for row in data["bins"][f"0/all/{name}"]] for name in ("raw", "mean")
    }
    assert there == {"raw": [True, False], "mean": [False, True]}


def test_at_most_24_predictions_are_shown_and_each_run_and_reason_has_its_share(tmp_path):
    reasons = ("best", "median", "worst", "rare")
    runs = [
        depth_result(name, examples=tuple(example(start + k, reasons[k // 6]) for k in range(24)))
        for start, name in ((0, "first"), (100, "second"))
    ]
    html = page_of(tmp_path, *runs)
    titles = re.findall(r'example-title"><b>([^<]+)</b>', html)
    assert len(titles) == MAX_EXAMPLES
    for who in ("first", "second"):
        for reason in ("best", "median", "worst", "most few-shot pixels"):
            assert titles.count(f"{reason} of {who}") == 3


def test_all_examples_share_one_colour_scale(tmp_path):
    near, far = example(0, "best"), example(1, "worst")
    near = replace(near, truth=near.truth * 0 + 1, pred=near.pred * 0 + 1)
    near.truth[0, 0] = np.inf  # sky
    far = replace(far, truth=far.truth * 0 + 9, pred=far.pred * 0 + 5)
    html = page_of(tmp_path, replace(depth_result(), examples=(near, far)))
    ends = re.findall(r'class="ends">(.*?)</div>', html)
    assert re.findall(r"<span>([^<]+)</span>", ends[0]) == ["1", "5", "9"]
    assert re.findall(r"<span>([^<]+)</span>", ends[1]) == ["≤ −4.00", "0", "≥ +4.00"]

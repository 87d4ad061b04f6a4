"""Results on the terminal."""

import pytest

from depthbal.commands.tables import print_metrics, try_report
from depthbal.evaluation import GROUPS

DEPTH_LABEL = {"name": "depth", "unit": "m"}
COLUMNS = ("rmse", "mae", "abs_rel", "log10", "delta1", "bias")


@pytest.fixture
def printed(monkeypatch, capsys):
    def text(metrics):
        print_metrics(metrics)
        return capsys.readouterr().out

    monkeypatch.setenv("COLUMNS", "80")
    return text


def test_headings_and_numbers_stay_whole_on_a_terminal_of_80_columns(printed):
    row = {**dict.fromkeys(COLUMNS, 12.3456), "bias": -12.3456, "count": 888_888_888}
    shots = dict.fromkeys(GROUPS, row)
    protocol = {"name": "nyud2_dir", "mask": {}, "readout": "clamped", "label": DEPTH_LABEL}
    protocol |= {"posthoc": {"noise_sigma": 0.873}}
    lines = printed({**shots, "all_pixels": shots, "protocol": protocol}).splitlines()
    assert max(map(len, lines)) <= 80
    words = " ".join(lines).split()
    for whole in (*COLUMNS, *GROUPS, "888,888,888", "12.346", "-12.346"):
        assert words.count(whole) >= 2


@pytest.mark.parametrize(("balanced", "times"), [(False, 2), (True, 0)])
def test_the_mean_of_a_loss_without_noise_is_called_the_raw_output(printed, balanced, times):
    row = {**dict.fromkeys(COLUMNS, 1.0), "count": 1}
    shots = dict.fromkeys(GROUPS, row)
    readout = {"raw": shots, "mean": {**shots, "few": {**row, "rmse": 0.5}} if balanced else shots}
    protocol = {"name": "nyud2_dir", "mask": {}, "readout": "mean"}
    protocol["label"] = DEPTH_LABEL
    text = printed({**shots, "all_pixels": shots, "readout": readout, "protocol": protocol})
    assert text.count("read-out mean") == 2
    assert text.count("read-out mean (the raw output)") == times


def test_a_report_that_cannot_be_written_is_a_warning_and_spoils_no_training(tmp_path):
    with pytest.warns(UserWarning, match=r"no report was written: .*nothing"):
        try_report([tmp_path / "nothing"], tmp_path / "report.html")


def test_labels_without_a_mask_have_one_table_of_their_own_metrics(printed):
    row = {"rmse": 9.0, "mae": 7.0, "gm": 4.0, "bias": 1.0, "bmae": 8.5, "count": 1234}
    protocol = {"name": "agedb", "label": {"name": "age", "unit": "years"}, "readout": "mean"}
    lines = printed({**dict.fromkeys(GROUPS, row), "protocol": protocol}).splitlines()
    assert lines[0].strip() == "Age in years, read-out mean"
    heading = next(line for line in lines if "shot" in line).split()
    assert heading == ["shot", "rmse", "mae", "bmae", "gm", "bias", "samples"]
    assert sum("8.50" in line for line in lines) == len(GROUPS)


def test_errors_that_were_measured_elsewhere_are_shown_by_their_names(printed):
    row = {"mpjpe": 99.5, "pa_mpjpe": None, "count": 2, "images": 2}
    protocol = {"name": "3dpw", "label": {"name": "distance", "unit": "mm"}}
    text = printed({**dict.fromkeys(GROUPS, row), "protocol": protocol})
    assert all(part in text for part in ("mpjpe", "pa_mpjpe", "99.50", " - "))

import io
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
from rich.console import Console

from depthbal.errors import ConfigError, RunFolderError
from depthbal.training.compare import compare_configs, missing_work, print_comparison
from depthbal.training.depth import DEPTH
from depthbal.training.runs import RunFolder
from depthbal.training.settings import different_settings
from tests.training.helpers import TOOLS, checkpoint_of, exit_code, tiny_config


class Lines:
    """What would be printed."""

    def __init__(self):
        self.rows = []

    def print(self, table):
        columns = [list(column.cells) for column in table.columns]
        self.rows = list(zip(*columns, strict=True))


def scores(value: float) -> dict:
    return dict.fromkeys(("overall", "many", "medium", "few"), value)


def test_the_table_names_seeds_and_compares_medians():
    lines = Lines()
    base = {7: scores(1.0), 40: scores(2.0), 3: scores(9.0)}
    print_comparison(lines, {"mse": base, "gai": {7: scores(1.0), 40: scores(1.0), 3: scores(4.0)}})
    assert [row[:3] for row in lines.rows] == [
        ("mse", "7", "1.000"),
        ("mse", "40", "2.000"),
        ("mse", "3", "9.000"),
        ("gai", "7", "1.000"),
        ("gai", "40", "1.000"),
        ("gai", "3", "4.000"),
        ("mse", "median", "2.000"),
        ("gai", "median", "1.000"),
        ("gai against mse", "", "-50 %"),
    ]


def test_a_run_is_trained_once_continued_where_cut_off_and_never_mixed_up(tmp_path, monkeypatch):
    def in_this_process(line, check):
        assert line[:2] == [sys.executable, str(TOOLS / "train.py")]
        return subprocess.CompletedProcess(line, exit_code(config, *line[2:]))

    def run_with(function):
        stand_in = SimpleNamespace(run=function)
        monkeypatch.setattr("depthbal.training.compare.subprocess", stand_in)

    run_with(in_this_process)
    config = tiny_config(tmp_path / "tiny.yaml", trainer={"max_epochs": 1})
    run = tmp_path / "out" / "tiny-5"

    def compare(*rest):
        return compare_configs([config], [5], tmp_path / "out", TOOLS / "train.py", rest)

    compare()
    metrics = json.loads((run / "metrics.json").read_text())
    expected = metrics["all_pixels"]["per_bin_mean"]["few"]["rmse"]
    before = (run / "checkpoints" / "last.ckpt").read_bytes()
    (run / "metrics.json").unlink()  # cut off before the end
    results = compare()
    assert results["tiny"][5]["few"] == expected
    assert json.loads((run / "versions.json").read_text())["earlier_sessions"]
    assert checkpoint_of(run)["epoch"] == 0
    assert (run / "checkpoints" / "last.ckpt").read_bytes() == before  # nothing was trained again

    run_with(lambda *_, **__: pytest.fail("trained again"))
    assert compare() == results
    with pytest.raises(RunFolderError, match=r"tiny-5.*noise_lr 0\.01, not 0\.5"):
        compare("--model.noise_lr", "0.5")


def test_only_what_differs_is_named(finished_run, tmp_path):
    config = tiny_config(tmp_path / "tiny.yaml")
    assert different_settings(DEPTH, RunFolder(finished_run), ["--config", str(config)]) == []
    (only,) = different_settings(
        DEPTH, RunFolder(finished_run), ["--config", str(config), "--data.n_train", "13"]
    )
    assert only == "data.init_args.n_train 12, not 13"


def test_a_run_that_does_not_exist_is_started(tmp_path):
    run = tmp_path / "run"
    assert missing_work(run, ["--seed_everything=1"]) == ["--seed_everything=1", "--out", str(run)]


def test_an_option_that_one_config_lacks_is_found_before_the_first_training(tmp_path, monkeypatch):
    stand_in = SimpleNamespace(run=lambda *_, **__: pytest.fail("a training began"))
    monkeypatch.setattr("depthbal.training.compare.subprocess", stand_in)
    gai = tiny_config(tmp_path / "gai.yaml")
    plain = {"class_path": "depthbal.losses.MSELoss"}
    mse = tiny_config(tmp_path / "mse.yaml", model={"criterion": plain})
    rest = ["--model.criterion.n_components", "8"]
    with pytest.raises(ConfigError, match=r"(?s)with \S*mse\.yaml: .*'n_components' is not"):
        compare_configs([gai, mse], [0], tmp_path / "out", TOOLS / "train.py", rest)


def test_names_stay_whole_on_a_terminal_of_80_columns():
    long, other = "rooms_gai_learned_depth-2", "rooms_mse_learned_depth-1"
    afterwards = f"{other}, balanced afterwards (sigma 0.873)"
    results = {name: {123: scores(12.3456)} for name in (other, afterwards, long)}
    console = Console(width=80, file=io.StringIO())
    print_comparison(console, results)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    words = " ".join(lines).split()
    assert words.count(long) == 3  # its seed, its median, its change
    assert words.count(f"{other},") == 3
    assert {"config", "seed", "overall", "many", "medium", "few", "12.346", "+0"} <= set(words)


def test_configs_of_one_name_are_refused(tmp_path):
    configs = [tmp_path / "a" / "gai.yaml", tmp_path / "b" / "gai.yaml"]
    with pytest.raises(ConfigError, match="same file name"):
        compare_configs(configs, [0], tmp_path, TOOLS / "train.py", [])

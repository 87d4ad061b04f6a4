"""Studies: configs x seeds x varied settings, gone on with, compared and reported."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import yaml

from depthbal.commands import main
from depthbal.commands.study import Study
from tests.test_tools import TINY_ROOMS

TINY = [setting.removeprefix("--") for setting in TINY_ROOMS]
RMSE = "all_pixels.per_bin_mean.overall.rmse"


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    out = tmp_path_factory.mktemp("studies") / "study"
    assert study(out, "--seeds", "0", "1", "--posthoc", "1") == 0
    return out


def study(out: Path, *more: str) -> int:
    configs = ["--configs", "rooms/mse", "rooms/gai"]
    return main("study", [*configs, *more, "--settings", *TINY, "--out", str(out)])


def table(out: Path) -> dict:
    return json.loads((out / "table.json").read_text())


def test_a_study_holds_runs_medians_and_one_report(studied):
    rows = table(studied)
    assert list(rows) == ["mse", "mse balanced afterwards, sigma 1", "gai"]
    assert rows["gai"]["runs"] == [str(studied / "gai-0"), str(studied / "gai-1")]
    for name in ("mse", "gai"):
        texts = [(studied / f"{name}-{seed}" / "metrics.json").read_text() for seed in (0, 1)]
        means = [json.loads(text)["all_pixels"]["per_bin_mean"] for text in texts]
        values = [mean["overall"]["rmse"] for mean in means]
        assert rows[name][RMSE]["values"] == values
        assert rows[name][RMSE]["median"] == pytest.approx(sum(values) / 2)
    assert len(set(rows["gai"][RMSE]["values"])) == 2  # the seeds differ
    assert "| gai | 2 |" in (studied / "table.md").read_text()
    assert (studied / "report.html").stat().st_size > 1e5


def test_finished_runs_are_read_and_one_that_was_cut_off_goes_on(studied, tmp_path, capsys):
    out = tmp_path / "study"
    shutil.copytree(studied, out)
    for name in ("metrics.json", "scores.npz"):
        (out / "gai-1" / name).unlink()
    before = table(studied)["gai"][RMSE]["values"]
    assert study(out, "--seeds", "0", "1") == 0
    shown = capsys.readouterr().out
    assert shown.count("is finished") == 3
    assert table(out)["gai"][RMSE]["values"] == pytest.approx(before)


def test_other_settings_for_a_run_that_is_there_are_refused(studied, capsys):
    arguments = ["--configs", "rooms/mse", "--settings", *TINY, "data.batch_size=2"]
    assert main("study", [*arguments, "--out", str(studied)]) == 2
    assert "data.init_args.batch_size 4, not 2" in capsys.readouterr().err


def test_a_varied_setting_is_in_the_names_and_fixed_configs_are_not_varied(tmp_path):
    key = "model.criterion.init_noise_sigma"
    options = {"configs": ["rooms/mse", "rooms/gai"], "settings": TINY, "out": tmp_path}
    work = Study({**options, "vary": {key: ["0.5", "2"]}, "fixed": ["mse"]}).work
    assert list(work) == ["mse", "gai-init_noise_sigma-0.5", "gai-init_noise_sigma-2"]
    ((run, (_, overrides)),) = work["gai-init_noise_sigma-2"].items()
    assert run == tmp_path / "gai-init_noise_sigma-2-0"
    assert f"--{key}=2" in overrides


def test_what_cannot_be_done_is_said_at_the_end_and_the_rest_is_done(tmp_path, capsys):
    bad = tmp_path / "bad.yaml"
    bad.write_text(
        "{base: rooms/mse, model: {init_args: {criterion: {init_args: {label_range: [1, 9]}}}}}"
    )
    configs = ["--configs", str(bad), "rooms/mse", "--posthoc", "auto"]
    out = tmp_path / "study"
    settings = ["--settings", *TINY, "data.n_val=0"]  # no error on a validation split
    assert main("study", [*configs, *settings, "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert "expected one label range" in said
    for text in (said, (out / "table.md").read_text()):
        assert "not balanced afterwards: " in text
        assert "no finite val/rmse up to epoch 0" in text
    rows = table(out)
    assert list(rows) == ["mse", "mse balanced afterwards, sigma auto"]
    saved = (out / "mse-0" / "checkpoints").iterdir()
    assert [path.name for path in saved] == ["last.ckpt"]  # nothing says which epoch was best
    assert rows["mse balanced afterwards, sigma auto"] == {"runs": []}


def test_a_sigma_comes_from_the_error_on_validation(studied, tmp_path):
    out = tmp_path / "study"
    shutil.copytree(studied, out)
    curves = out / "mse-0" / "metrics.csv"
    head, *rows = csv.reader(curves.read_text().splitlines())
    at = head.index("val/rmse")  # of so short a training it is that of knowing nothing
    rows = [[*row[:at], row[at] and "0.5", *row[at + 1 :]] for row in rows]
    curves.write_text("\n".join(map(",".join, [head, *rows])) + "\n")
    assert study(out, "--seeds", "0", "--posthoc", "auto") == 0
    (folder,) = table(out)["mse balanced afterwards, sigma auto"]["runs"]
    assert Path(folder).name.startswith("posthoc_0.")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"configs": ["rooms/gai"]}, "needs --out"),
        ({"out": "x"}, "needs --configs"),
        ({"configs": ["rooms/gai"], "out": "x", "seed": 1}, "unknown keys seed"),
        ({"configs": ["rooms/nope"], "out": "x"}, "no config file"),
    ],
)
def test_a_wrong_study_is_refused_before_any_training(tmp_path, capsys, content, said):
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(content))
    assert main("study", [str(file)]) == 2
    assert said in capsys.readouterr().err

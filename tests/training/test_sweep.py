"""The ablations: which runs they train, which numbers they read, and that nothing runs twice."""

import json
import runpy
import subprocess
import sys
from types import SimpleNamespace

import pytest

import depthbal
from depthbal import load_predictor
from depthbal.errors import ConfigError
from depthbal.training import compare
from depthbal.training.ablation import Subject
from depthbal.training.compare_posthoc import posthoc_metrics
from depthbal.training.depth import DEPTH
from depthbal.training.sweep import sweep_components, sweep_sigma
from tests.training.helpers import TOOLS, exit_code, tiny_config

WORDS = {"metric": "RMSE in metres"}


@pytest.fixture
def trained(monkeypatch):
    """Train in this process; the command lines of what was trained."""
    lines = []

    def in_this_process(line, check):
        lines.append(line)
        config = line[line.index("--config") + 1]
        return subprocess.CompletedProcess(line, exit_code(config, *line[2:]))

    monkeypatch.setattr(compare, "subprocess", SimpleNamespace(run=in_this_process))
    return lines


def subject_in(folder, **options) -> Subject:
    plain = tiny_config(
        folder / "plain.yaml",
        trainer={"max_epochs": 1},
        model={"criterion": {"class_path": "depthbal.losses.MSELoss"}},
    )
    balanced = tiny_config(folder / "balanced.yaml", trainer={"max_epochs": 1})
    return Subject(DEPTH, TOOLS / "train.py", plain, balanced, **options)


def score_of(path, part="per_bin_mean"):
    content = json.loads(path.read_text())["all_pixels"]
    return (content["per_bin_mean"] if part else content)["few"]["rmse"]


def test_sigma_is_swept_fixed_learned_and_afterwards(tmp_path, trained):
    subject, out = subject_in(tmp_path, posthoc=posthoc_metrics), tmp_path / "runs"

    def run():
        return sweep_sigma(subject, [0.5, 2.0], [3], out, [], unit="metres", **WORDS)

    study = run()
    assert sorted(path.name for path in out.iterdir()) == [
        "balanced-learned-3",
        "balanced-sigma0.5-3",
        "balanced-sigma2-3",
        "plain-3",
    ]
    assert len(trained) == 4
    rows = {row.name: row for row in study.rows}
    for sigma in (0.5, 2.0):
        run_folder = out / f"balanced-sigma{sigma:g}-3"
        row = rows[f"sigma {sigma:g}"]
        assert row.median("few") == score_of(run_folder / "metrics.json")
        assert row.median("few", natural=True) == score_of(run_folder / "metrics.json", None)
        assert row.sigma() == sigma
        afterwards = rows[f"plain, balanced afterwards, sigma {sigma:g}"]
        path = out / "plain-3" / f"metrics_posthoc_{sigma:g}.json"
        assert afterwards.median("few") == score_of(path)
    learned = load_predictor(out / "balanced-learned-3").criterion
    assert len(learned.noise_parameters()) == 1
    assert rows["learned"].sigma() == float(learned.noise_sigma) != 1.0
    assert rows["plain"].sigma() is None
    assert run().to_dict() == study.to_dict()
    assert len(trained) == 4  # nothing was trained again


def test_components_are_swept_over_seeds(tmp_path, trained):
    study = sweep_components(subject_in(tmp_path), [3], [0, 1], tmp_path / "runs", [], **WORDS)
    assert len(trained) == 4
    for seed in (0, 1):
        criterion = load_predictor(tmp_path / "runs" / f"balanced-K3-{seed}").criterion
        assert len(criterion.prior.weights) == 3
    row = study.rows[1]
    paths = [tmp_path / "runs" / f"balanced-K3-{seed}" / "metrics.json" for seed in (0, 1)]
    assert row.median("few") == pytest.approx(sum(map(score_of, paths)) / 2)
    assert study.rows[0].name == "plain"


def test_variants_that_start_from_the_plain_run_share_it_per_seed(tmp_path, trained):
    based = []

    def on_base(line, base):
        assert (tmp_path / "runs" / base / "metrics.json").is_file()  # finished before
        based.append(base)
        return [*line]

    subject = subject_in(tmp_path, on_base=on_base)
    sweep_components(subject, [1, 2], [5], tmp_path / "runs", [], **WORDS)
    assert len(trained) == 3
    assert based == [str(tmp_path / "runs" / "plain-5")] * 2


@pytest.mark.parametrize("sigmas", [[], [0.0], [-1.0]])
def test_bad_sigmas_are_refused_before_training(tmp_path, trained, sigmas):
    subject = subject_in(tmp_path)
    with pytest.raises(ConfigError, match="positive sigmas in metres"):
        sweep_sigma(subject, sigmas, [0], tmp_path, [], unit="metres", **WORDS)
    assert not trained


@pytest.mark.parametrize("components", [[], [0]])
def test_bad_numbers_of_components_are_refused_before_training(tmp_path, trained, components):
    with pytest.raises(ConfigError, match="at least 1"):
        sweep_components(subject_in(tmp_path), components, [0], tmp_path, [], **WORDS)
    assert not trained


def test_no_seeds_are_refused(tmp_path, trained):
    with pytest.raises(ConfigError, match="seeds"):
        sweep_components(subject_in(tmp_path), [1], [], tmp_path, [], **WORDS)


def tool(name, *arguments) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [name, *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(TOOLS / name), run_name="__main__")
    return end.value.code


@pytest.mark.parametrize(
    ("name", "option", "values", "rows"),
    [
        ("sweep_sigma.py", "--sigmas", [0.5], ["plain", "sigma 0.5", "learned"]),
        ("sweep_components.py", "--components", [2], ["plain", "K = 2"]),
    ],
)
def test_one_command_leaves_table_data_and_picture(
    name, option, values, rows, tmp_path, trained, capsys
):
    subject = subject_in(tmp_path)
    configs = ["--plain", subject.plain, "--balanced", subject.balanced]
    assert tool(name, *configs, option, *values, "--out", tmp_path / "out") == 0
    stem = {"sweep_sigma.py": "sigma", "sweep_components.py": "components"}[name]
    content = json.loads((tmp_path / "out" / f"{stem}.json").read_text())
    assert [row["name"] for row in content["rows"]][: len(rows)] == rows
    assert content["metric"] == "RMSE in metres"
    page = (tmp_path / "out" / f"{stem}.md").read_text()
    assert f"| {rows[1]} |" in page
    assert f"depthbal {depthbal.__version__}, torch " in page.splitlines()[-1]
    assert (tmp_path / "out" / f"{stem}.png").stat().st_size > 5000
    assert f"{stem}.md" in capsys.readouterr().out


@pytest.mark.parametrize("of", ["depth", "age"])
def test_a_bad_value_ends_the_command_in_one_line(of, tmp_path, capsys):
    arguments = ["--of", of, "--components", 0, "--out", tmp_path]
    assert tool("sweep_components.py", *arguments) == 2
    message = capsys.readouterr().err
    assert "at least 1" in message
    assert "Traceback" not in message


def test_an_age_ablation_re_trains_the_base_run_of_its_seed(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    import ablating

    known, rest = ablating.parse(["--of", "age", "--data.size=24"], None, "x", lambda parser: None)
    subject = ablating.subject_of(known)
    assert rest == ["--data.size=24"]
    assert subject.tool.name == "train_age.py"
    assert subject.on_base is not None
    assert known.out.name == "x-age"
    assert subject.plain.name == "vanilla.yaml"
    assert subject.balanced.name == "rrt_gai.yaml"

"""Runs of ages and human meshes, scored again by tools/evaluate.py."""

import json

import pytest
import torch

from depthbal.adapters.age.evaluation import evaluate_age
from depthbal.adapters.hmr.synthetic import write_synthetic
from depthbal.errors import ConfigError
from depthbal.training.tool import run_tool
from tests.adapters.age.helpers import GreyAges, train_age
from tests.adapters.age.helpers import tiny_config as age_config
from tools import evaluate, train_hmr


@pytest.fixture(scope="module")
def age_run(tmp_path_factory, cache_folder):
    folder = tmp_path_factory.mktemp("age")
    loss = {"class_path": "GAILoss", "init_args": {"noise": "learned", "init_noise_sigma": 5.0}}
    config = age_config(folder / "tiny.yaml", model={"criterion": loss})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache_folder))
        return train_age("--config", config, "--out", folder / "run")


def scored(run, *options):
    """The exit code of the tool."""
    return run_tool(evaluate.main, [str(run), "--device", "cpu", *options])


def read(path):
    return json.loads(path.read_text())


def test_the_best_epoch_of_an_age_run_is_scored_by_its_own_protocol(age_run, capsys):
    last = read(age_run / "metrics.json")
    best = age_run / "checkpoints" / "best.ckpt"
    content = torch.load(best, weights_only=True)
    content["state_dict"]["model.head.bias"] += 10
    content["state_dict"]["criterion.noise.log_sigma"].zero_()
    torch.save(content, best)
    assert scored(age_run, "--checkpoint", "best") == 0
    printed = capsys.readouterr().out
    assert "bMAE" in printed
    assert "metrics_best.json" in printed
    found = read(age_run / "metrics_best.json")
    assert found["protocol"]["name"] == "all samples"
    assert found["protocol"]["noise_sigma"] == 1.0
    moved = found["readout"]["raw"]["overall"]["bias"] - last["readout"]["raw"]["overall"]["bias"]
    assert moved == pytest.approx(10, rel=1e-4)
    assert found == evaluate_age(age_run, GreyAges(), "best")
    assert (age_run / "per_image_best.npz").is_file()
    assert scored(age_run) == 0
    assert read(age_run / "metrics.json") == last


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--posthoc", "1"], "--posthoc: only for runs of tools/train.py.*tools/train_age.py"),
        (["--protocol", "eigen", "--seed", "1"], "--protocol, --seed: only for runs of"),
        (["--trainer.max_epochs", "3"], "only --data.KEY"),
        (["--data.peek", "3"], "did you mean peak"),
        (["--data.batch_size", "-1"], "batch_size"),
    ],
)
def test_what_an_age_run_does_not_take_is_an_error(age_run, options, message):
    with pytest.raises(ConfigError, match=message):
        evaluate.main([str(age_run), *options])


def test_a_run_of_human_meshes_is_scored_again(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    root = write_synthetic(tmp_path / "data", rows={"lsp": 30}, test_rows=20)
    line = ["--config", str(train_hmr.CONFIGS / "paper.yaml"), "--data.root", str(root)]
    line += [
        "--model.model.init_args.features=64",
        "--model.prior_rows=200",
        "--trainer.max_epochs=1",
    ]
    line += ["--data.batch_size=8", "--data.num_workers=0", "--data.val_fraction=0.2"]
    assert run_tool(train_hmr.main, [*line, "--out", "run"]) == 0, capsys.readouterr().err
    run = tmp_path / "run"
    before = read(run / "metrics.json")
    for name, file in (("last", "metrics.json"), ("best", "metrics_best.json")):
        assert scored(run, "--checkpoint", name) == 0, capsys.readouterr().err
        found = read(run / file)
        assert found["protocol"]["checkpoint"] == name
        assert found["balanced"] == before["balanced"]  # one epoch is the best one too
    assert "MPJPE" in capsys.readouterr().out

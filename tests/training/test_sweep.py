"""The sweep over sigma."""

import json
import subprocess
from types import SimpleNamespace

import pytest
from matplotlib.image import imread

from depthbal.training import compare
from depthbal.training.sweep import draw_sweep, sweep_sigma
from tests.training.helpers import TOOLS, exit_code, tiny_config


def test_the_plain_loss_is_trained_once_and_the_balanced_one_at_every_sigma(tmp_path, monkeypatch):
    plain = tiny_config(
        tmp_path / "plain.yaml",
        trainer={"max_epochs": 1},
        model={"criterion": {"class_path": "depthbal.losses.MSELoss"}},
    )
    balanced = tiny_config(tmp_path / "balanced.yaml", trainer={"max_epochs": 1})
    trained = []

    def in_this_process(line, check):
        trained.append(line)
        config = line[line.index("--config") + 1]
        return subprocess.CompletedProcess(line, exit_code(config, *line[4:]))

    monkeypatch.setattr(compare, "subprocess", SimpleNamespace(run=in_this_process))
    out = tmp_path / "runs"

    def run():
        return sweep_sigma(plain, balanced, [0.5, 2.0], [3], out, TOOLS / "train.py", [])

    sweep = run()
    assert sorted(path.name for path in out.iterdir()) == [
        "balanced-sigma0.5-3",
        "balanced-sigma2-3",
        "plain-3",
    ]
    assert len(trained) == 3
    for sigma in (0.5, 2.0):
        metrics = json.loads((out / f"balanced-sigma{sigma:g}-3" / "metrics.json").read_text())
        expected = metrics["all_pixels"]["per_bin_mean"]["few"]["rmse"]
        assert sweep["trained"][sigma]["few"] == expected
        afterwards = json.loads((out / "plain-3" / f"metrics_posthoc_{sigma:g}.json").read_text())
        expected = afterwards["all_pixels"]["per_bin_mean"]["few"]["rmse"]
        assert sweep["afterwards"][sigma]["few"] == expected
    prior = (out / "balanced-sigma2-3" / "config.yaml").read_text()
    assert "init_noise_sigma: 2.0" in prior
    assert run() == sweep
    assert len(trained) == 3  # nothing was trained again


def test_the_picture_has_a_line_per_shot(tmp_path):
    scores = {"overall": 1.5, "many": 0.7, "medium": 1.0, "few": 2.5}
    sweep = {
        "plain": scores,
        "trained": {0.5: scores, 1.0: scores},
        "afterwards": {0.5: scores, 1.0: scores},
    }
    draw_sweep(sweep, tmp_path / "sigma.png")
    picture = imread(tmp_path / "sigma.png")
    assert picture.shape[2] == 4
    reds = (picture[..., 0] > 0.6) & (picture[..., 1] < 0.4) & (picture[..., 2] < 0.4)
    assert reds.sum() > 50


@pytest.mark.parametrize("sigmas", [[], [0.0], [-1.0]])
def test_bad_sigmas_are_refused_before_training(tmp_path, sigmas):
    with pytest.raises(ValueError, match="positive sigmas"):
        sweep_sigma(tmp_path, tmp_path, sigmas, [0], tmp_path, TOOLS / "train.py", [])

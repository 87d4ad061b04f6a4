"""The claim on which the product stands, on rooms small enough for a test."""

import json
from pathlib import Path

import pytest

from tests.training.helpers import command

SMALL = [
    "--seed_everything=0",
    "--trainer.max_epochs=10",
    "--trainer.accelerator=cpu",
    "--trainer.precision=32-true",
    "--data.size=[48,64]",
    "--data.n_train=320",
    "--data.n_val=8",
    "--data.n_test=160",
]


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    """Mean over depth bins of the RMSE per shot, of MSE and GAI after the same steps."""
    folder = tmp_path_factory.mktemp("claim")
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.delenv("DEPTHBAL_RUN", raising=False)
        for name in ("mse", "gai"):
            run = folder / name
            line = ["--config", f"rooms/{name}", "--out", run]
            assert command("train", *line, *SMALL) == 0
            metrics = json.loads(Path(run, "metrics.json").read_text())
            means = metrics["all_pixels"]["per_bin_mean"]
            found[name] = {group: means[group]["rmse"] for group in ("overall", "many", "few")}
    return found


def test_gai_lowers_the_mean_over_bins_of_the_rmse(scores):
    assert scores["gai"]["overall"] < 0.95 * scores["mse"]["overall"]


def test_gai_lowers_the_few_shot_rmse(scores):
    assert scores["gai"]["few"] < 0.9 * scores["mse"]["few"]


def test_gai_pays_little_for_it_at_common_depths(scores):
    assert scores["gai"]["many"] < 1.4 * scores["mse"]["many"]

import json
import logging
import shutil

import pytest

from depthbal.errors import ConfigError
from depthbal.losses import GAILoss, MSELoss
from depthbal.training import compare_posthoc
from depthbal.training.compare import compare_configs
from depthbal.training.compare_posthoc import balanced_sigmas, posthoc_rows
from tests.training.helpers import TOOLS, checkpoint_of, tiny_config, train_tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory, finished_run, cache_folder):
    """OUT with a finished run of MSE and one of GAI, and their configs."""
    folder = tmp_path_factory.mktemp("compare")
    mse = tiny_config(folder / "mse.yaml", model={"criterion": "depthbal.losses.MSELoss"})
    tiny_config(folder / "gai.yaml")
    seeds = ["--seed_everything=0", "--data.seed=0"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache_folder))
        train_tiny(mse, folder / "out" / "mse-0", *seeds)
        train_tiny(folder / "gai.yaml", folder / "out" / "gai-0", *seeds)
    return folder


def compare(folder, **options):
    configs = [folder / "mse.yaml", folder / "gai.yaml"]
    return compare_configs(configs, [0], folder / "out", TOOLS / "train.py", [], **options)


def test_the_plain_loss_has_a_row_balanced_with_the_balanced_runs_sigma(folder, monkeypatch):
    log_sigma = checkpoint_of(folder / "out" / "gai-0")["state_dict"]["criterion.noise.log_sigma"]
    sigma = float(f"{log_sigma.exp().item():.3g}")
    results = compare(folder)
    row = f"mse, balanced afterwards (sigma {sigma:g})"
    assert list(results) == ["mse", row, "gai"]
    file = folder / "out" / "mse-0" / f"metrics_posthoc_{sigma:g}.json"
    metrics = json.loads(file.read_text())
    assert results[row][0]["few"] == metrics["all_pixels"]["per_bin_mean"]["few"]["rmse"]
    assert results[row][0] != results["mse"][0]

    monkeypatch.setattr(compare_posthoc, "evaluate_run", lambda *_, **__: pytest.fail("again"))
    assert compare(folder) == results  # a finished evaluation is read


def test_a_given_sigma_and_none(folder):
    assert list(compare(folder, posthoc_sigma=2.5))[1] == "mse, balanced afterwards (sigma 2.5)"
    assert list(compare(folder, posthoc=False)) == ["mse", "gai"]
    with pytest.raises(ConfigError, match="positive sigma"):
        compare(folder, posthoc_sigma=-1.0)


def test_an_evaluation_of_fewer_epochs_is_repeated(folder, tmp_path):
    run = shutil.copytree(folder / "out" / "mse-0", tmp_path / "mse-0")
    path = compare_posthoc.posthoc_metrics(run, 1.0)
    content = json.loads(path.read_text())
    content["protocol"]["epochs"] = 1
    path.write_text(json.dumps(content))
    compare_posthoc.posthoc_metrics(run, 1.0)
    assert json.loads(path.read_text())["protocol"]["epochs"] == 2


def test_without_a_balanced_run_it_asks_for_a_sigma(folder, caplog):
    with caplog.at_level(logging.INFO, "depthbal"):
        assert posthoc_rows({"mse": {0: folder / "out" / "mse-0"}}) == {"mse": {}}
    assert "--posthoc SIGMA" in caplog.text


def test_different_sigmas_have_a_row_each():
    losses = [[GAILoss(init_noise_sigma=sigma)] for sigma in (1.0, 0.5, 1.0)]
    assert balanced_sigmas([[MSELoss()], *losses]) == [0.5, 1.0]

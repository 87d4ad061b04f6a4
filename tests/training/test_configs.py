"""How configs are put together, and what the shipped ones say."""

import pytest
import torch

from depthbal.errors import ConfigError
from depthbal.models import ResNetMFF, SmpDepth
from depthbal.training import FeatureSmoothing
from depthbal.training.cli import TrainCLI
from depthbal.training.configs import config_chain, expand_configs, last_config
from depthbal.training.depth import DEPTH
from tests.training.helpers import CONFIGS

LOSS_OF = {  # by the first word of a config's name
    "gai": "GAILoss",
    "bmc": "BMCLoss",
    "bni": "BNILoss",
    "mse": "MSELoss",
    "inverse": "ReweightedLoss",
    "sqrt": "ReweightedLoss",
    "lds": "ReweightedLoss",
    "fds": "MSELoss",
    "focal": "FocalRLoss",
}
DEPTH_FOLDERS = ("rooms", "nyud2", "nyuv2_labelled")
NYUD2 = [path for path in sorted((CONFIGS / "nyud2").glob("*.yaml")) if path.stem != "base"]
SHIPPED = [
    path
    for folder in DEPTH_FOLDERS
    for path in sorted((CONFIGS / folder).glob("*.yaml"))
    if path.stem != "base"
]


def named(paths):
    return [f"{path.parent.name}/{path.stem}" for path in paths]


def build(path, tmp_path, *overrides) -> TrainCLI:
    arguments = ["--config", str(path), "--out", str(tmp_path / "run")]
    if "nyu" in path.parent.name:
        for name in ("nyu2_train.csv", "nyu2_test.csv"):
            (tmp_path / name).touch()
        arguments += ["--data.root", str(tmp_path)]
    if path.parent.name == "nyud2":
        arguments += ["--model.model.weights", "null"]  # tests have no network
    return TrainCLI(DEPTH, expand_configs([*arguments, *overrides]))


def test_bases_come_before_differences_relative_to_the_file(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "root.yaml").write_text("trainer: {max_epochs: 1}\n")
    (tmp_path / "middle.yaml").write_text("base: root.yaml\n")
    leaf = tmp_path / "deep" / "leaf.yaml"
    leaf.write_text("base: ../middle.yaml\n")
    names = [path.name for path in config_chain(leaf)]
    assert names == ["root.yaml", "middle.yaml", "leaf.yaml"]
    expanded = expand_configs(["--a", "1", f"--config={leaf}", "--b", "2"])
    assert expanded[:2] == ["--a", "1"]
    assert expanded[2::2][:3] == ["--config"] * 3
    assert expanded[-2:] == ["--b", "2"]
    assert last_config(["-c", "one.yaml", "--config", "two.yaml"]).name == "two.yaml"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("base: me.yaml\n", "own base"),
        ("base: gone.yaml\n", "gone"),
        ("a: [\n", "YAML"),
        ("- 1\n", "keys"),
    ],
)
def test_a_broken_chain_is_named(tmp_path, content, message):
    (tmp_path / "me.yaml").write_text(content)
    with pytest.raises(ConfigError, match=message):
        config_chain(tmp_path / "me.yaml")


@pytest.mark.parametrize("path", SHIPPED, ids=named(SHIPPED))
def test_every_shipped_config_builds_the_loss_of_its_name(path, tmp_path):
    cli = build(path, tmp_path)
    assert type(cli.model.criterion).__name__ == LOSS_OF[path.stem.partition("_")[0]]
    assert cli.model.criterion.label_range == (0.7, 10.0)


@pytest.mark.parametrize("path", NYUD2, ids=named(NYUD2))
def test_the_nyud2_recipe_is_the_supplements(path, tmp_path):
    cli = build(path, tmp_path)
    optimizers = cli.model.configure_optimizers()
    optimizer, schedule = optimizers["optimizer"], optimizers["lr_scheduler"]["scheduler"]
    assert isinstance(cli.model.model, ResNetMFF)
    assert type(optimizer) is torch.optim.Adam
    weights = optimizer.param_groups[0]
    assert (weights["lr"], weights["weight_decay"]) == (1e-4, 1e-4)
    assert (schedule.step_size, schedule.gamma) == (5, 0.1)
    assert optimizers["lr_scheduler"]["interval"] == "epoch"
    assert (cli.trainer.max_epochs, cli.datamodule.batch_size) == (20, 32)
    assert cli.datamodule.val_fraction == 0
    assert cli.model.readout == ("raw" if path.stem == "gai_released" else "mean")
    if path.stem in ("gai", "bmc", "bni"):
        assert optimizer.param_groups[1]["lr"] == 1e-2
    if path.stem == "gai":
        assert cli.model.criterion.n_components == 16


@pytest.mark.parametrize(
    ("name", "weighting", "smoothing"),
    [
        ("inverse", "inverse", None),
        ("sqrt_inverse", "sqrt_inverse", None),
        ("lds", "inverse", "gaussian"),
        ("lds_fds", "inverse", "gaussian"),
    ],
)
def test_the_reweighted_rows_are_the_published_ones(name, weighting, smoothing, tmp_path):
    arguments = build(CONFIGS / "nyud2" / f"{name}.yaml", tmp_path).model.criterion.init_args
    assert (arguments["error"], arguments["weighting"]) == ("squared", weighting)
    assert (arguments["smoothing"], arguments["clip"]) == (smoothing, None)
    assert (arguments["kernel_size"], arguments["kernel_sigma"]) == (5, 2.0)


@pytest.mark.parametrize("path", NYUD2, ids=named(NYUD2))
def test_features_are_smoothed_in_the_fds_rows_only_and_as_published(path, tmp_path):
    cli = build(path, tmp_path)
    found = [c for c in cli.trainer.callbacks if isinstance(c, FeatureSmoothing)]
    assert len(found) == (path.stem in ("fds", "lds_fds"))
    for fds in found:
        kernel = {"kernel": "gaussian", "kernel_size": 5, "kernel_sigma": 2.0}
        assert fds.options == {**kernel, "momentum": 0.9, "clip": (0.2, 5.0)}
        assert (fds.start_epoch, fds.subset) == (1, "nyu2_train_FDS_subset.csv")
        assert fds.layer is None  # the published layer: see test_feature_layer


def test_the_released_recipe_fixes_sigma_and_reads_the_network_raw(tmp_path):
    cli = build(CONFIGS / "nyud2" / "gai_released.yaml", tmp_path)
    assert cli.model.criterion.noise_parameters() == []
    assert cli.model.criterion.noise_sigma.item() == 1.0
    assert cli.model.readout == "raw"


def test_the_labelled_set_is_trained_with_a_small_network_from_scratch(tmp_path):
    cli = build(CONFIGS / "nyuv2_labelled" / "gai.yaml", tmp_path)
    assert isinstance(cli.model.model, SmpDepth)
    assert cli.model.model.init_args["encoder"] == "mobilenet_v2"
    assert cli.model.model.init_args["weights"] is None
    assert cli.trainer.max_epochs == 20


def test_another_loss_replaces_the_configs_and_leaves_what_it_does_not_know(tmp_path):
    cli = build(CONFIGS / "rooms" / "gai.yaml", tmp_path, "--model.criterion", "BMCLoss")
    assert type(cli.model.criterion).__name__ == "BMCLoss"
    assert cli.model.criterion.label_range == (0.7, 10.0)


def test_loggers_and_callbacks_of_the_config_are_added_to_ours(tmp_path):
    cli = build(
        CONFIGS / "rooms" / "gai.yaml",
        tmp_path,
        "--trainer.callbacks=Timer",
        f"--trainer.logger={{class_path: CSVLogger, init_args: {{save_dir: {tmp_path}}}}}",
    )
    names = [type(callback).__name__ for callback in cli.trainer.callbacks]
    assert {"Timer", "RandomStates", "FiniteLoss", "SaveCheckpoint"} <= set(names)
    assert [type(logger).__name__ for logger in cli.trainer.loggers] == ["RunLogger", "CSVLogger"]

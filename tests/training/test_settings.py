"""How settings are put together, what the shipped configs say, and what is refused."""

from importlib.resources import files
from pathlib import Path

import pytest
import torch
import yaml

import depthbal.data
import depthbal.models
from depthbal.errors import ConfigError
from depthbal.losses.label_weights import smoothing_kernel
from depthbal.losses.log_labels import LogLabelLoss
from depthbal.models import ResNetMFF, SmpDepth
from depthbal.training import FeatureSmoothing
from depthbal.training.runs import RunFolder
from depthbal.training.settings import (
    build,
    find_config,
    lay_over,
    make_parser,
    parse,
    plain,
    read_config,
    split_configs,
)
from depthbal.training.train import _trainer
from tests.training.helpers import CONFIGS, command, tiny_config

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
    "dpt": "GAILoss",
    "bins": "BinsLoss",
}
SHIPPED = [
    path.relative_to(CONFIGS).with_suffix("").as_posix()
    for path in sorted(CONFIGS.rglob("*.yaml"))
    if path.stem not in ("base", "rrt_base") and not path.stem.startswith("study")
]
STUDIES = sorted(CONFIGS.rglob("study*.yaml"))
OF_HF = [name for name in SHIPPED if name.startswith("finetune/depth_anything")]
DEPTH = [name for name in SHIPPED if name.split("/")[0] not in ("age", "hmr") and name not in OF_HF]
NYUD2 = [name for name in DEPTH if name.startswith("nyud2/")]


@pytest.fixture(autouse=True)
def no_random_weights(monkeypatch):
    """Leave weights as memory was: filling 67 million of them takes a second."""
    for name in ("kaiming_normal_", "kaiming_uniform_", "normal_", "uniform_"):
        monkeypatch.setattr(torch.nn.init, name, lambda tensor, *_, **__: tensor)


def parsed(*arguments: str):
    """Return parser and settings of a command line; "nyud2/gai" stands for its config."""
    _ = depthbal.data.NYUD2DataModule, depthbal.data.FolderDataModule, depthbal.models.SmpDepth
    parser = make_parser()
    return parser, parse(parser, ["--config", *map(str, arguments)])


def built(*arguments: str):
    """Return task and trainer's callbacks of a command line."""
    name = str(arguments[0])
    if name.startswith(("nyud2/", "finetune/", "height/")):
        arguments += ("--model.model.weights=null",)  # tests have no network
    root = ["--data.root=."] if name.startswith("nyu") else []
    parser, settings = parsed(*arguments, *root)
    return build(parser, settings, "model"), settings


def test_bases_come_before_differences_relative_to_the_file(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "root.yaml").write_text("a: {x: 1, y: 1, z: 1}\n")
    (tmp_path / "middle.yaml").write_text("base: root.yaml\na: {y: 2, z: 2}\n")
    leaf = tmp_path / "deep" / "leaf.yaml"
    leaf.write_text("base: ../middle.yaml\na: {z: 3}\n")
    assert read_config(leaf) == {"a": {"x": 1, "y": 2, "z": 3}}
    over = tmp_path / "over.yaml"
    over.write_text("a: {x: 4}\n")
    line = ["--b", "2", f"--config={leaf}", "-c", str(over), "--d", "3"]
    names, rest = split_configs(line)
    assert (names, rest) == ([str(leaf), str(over)], ["--b", "2", "--d", "3"])
    assert lay_over(*map(read_config, names)) == {"a": {"x": 4, "y": 2, "z": 3}}


def test_another_class_drops_the_arguments_of_the_first():
    base = {"net": {"class_path": "A", "init_args": {"depth": 3, "width": 4}}, "rate": 1}
    same = lay_over(base, {"net": {"init_args": {"width": 5}}})
    kept = {"class_path": "A", "init_args": {"depth": 3, "width": 5}}
    assert same == {"net": kept, "rate": 1}
    other = {"class_path": "B", "init_args": {"width": 5}}
    assert lay_over(base, {"net": other}) == {"net": other, "rate": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("base: me.yaml\n", "own base"),
        ("base: gone.yaml\n", "gone"),
        ("a: [\n", "YAML"),
        ("- 1\n", "keys"),
    ],
)
def test_a_broken_config_is_named(tmp_path, content, message):
    (tmp_path / "me.yaml").write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_config(tmp_path / "me.yaml")


def test_shipped_configs_are_part_of_the_package_and_found_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = files("depthbal").joinpath("configs", "rooms", "gai.yaml").read_text()
    for name in ("rooms/gai", "rooms/gai.yaml", "configs/rooms/gai.yaml"):
        assert find_config(name).read_text() == expected
    with pytest.raises(ConfigError, match=r"no config file rooms/gia; shipped: .*rooms/gai,"):
        find_config("rooms/gia")


@pytest.mark.parametrize("name", [name for name in SHIPPED if name.startswith(("hmr", *OF_HF))])
def test_every_other_shipped_config_parses(name):  # those of ages: adapters/age/test_task.py
    _, settings = parsed(name, "--data.root=.")
    assert settings.model.class_path.startswith("depthbal.")
    assert settings.data.class_path.startswith("depthbal.")


@pytest.mark.parametrize("path", STUDIES, ids=[f"{p.parent.name}/{p.stem}" for p in STUDIES])
def test_every_shipped_study_is_of_shipped_configs(path):
    names = yaml.safe_load(path.read_text())["configs"]
    assert all(find_config(name).is_relative_to(CONFIGS) for name in names)


@pytest.mark.parametrize("name", DEPTH)
def test_every_depth_config_builds_the_loss_of_its_name(name):
    task, settings = built(name)
    loss = task.criterion.loss if isinstance(task.criterion, LogLabelLoss) else task.criterion
    assert type(loss).__name__ == LOSS_OF[name.split("/")[1].partition("_")[0]]
    assert task.criterion.label_range is None  # the data's, which the task takes
    if name.startswith("finetune/"):
        groups = task.configure_optimizers()["optimizer"].param_groups
        rates = {group["name"]: group["initial_lr"] for group in groups}
        assert rates == pytest.approx({"encoder": 5e-6, "weights": 5e-5})
    if not name.startswith("nyud2/"):  # a small network from scratch
        assert isinstance(task.model, SmpDepth)
        assert task.model.init_args["weights"] is None
        return
    optimizers = task.configure_optimizers()
    optimizer, schedule = optimizers["optimizer"], optimizers["lr_scheduler"]["scheduler"]
    assert isinstance(task.model, ResNetMFF)
    assert type(optimizer) is torch.optim.Adam
    weights = optimizer.param_groups[0]
    assert (weights["lr"], weights["weight_decay"]) == (1e-4, 1e-4)
    assert (schedule.step_size, schedule.gamma) == (5, 0.1)
    assert optimizers["lr_scheduler"]["interval"] == "epoch"
    data = settings.data.init_args
    assert (settings.trainer.max_epochs, data.batch_size, data.val_fraction) == (20, 32, 0)
    released = name == "nyud2/gai_released"  # sigma is fixed there and the network read raw
    assert task.readout == ("raw" if released else "mean")
    if name in ("nyud2/gai", "nyud2/bmc", "nyud2/bni"):
        assert optimizer.param_groups[1]["lr"] == 1e-2
    if released:
        assert task.criterion.noise_parameters() == []
        assert task.criterion.noise_sigma.item() == 1.0


@pytest.mark.parametrize("name", NYUD2)
def test_the_reweighted_and_smoothed_rows_are_the_published_ones(name):
    parser, settings = parsed(name, "--data.root=.")
    kernel = {"kernel_size": 5, "kernel_sigma": 2.0}
    row = name.removeprefix("nyud2/")
    if row in ("inverse", "sqrt_inverse", "lds", "lds_fds"):
        weights = {"weighting": "sqrt_inverse" if row == "sqrt_inverse" else "inverse"}
        smoothed = {"smoothing": "gaussian" if row.startswith("lds") else None}
        expected = {"error": "squared", "clip": None, **weights, **smoothed, **kernel}
        arguments = vars(settings.model.init_args.criterion.init_args)
        assert arguments.items() >= expected.items()
    callbacks = build(parser, settings, "trainer")["callbacks"] or []
    found = [c for c in callbacks if isinstance(c, FeatureSmoothing)]
    assert len(found) == (row in ("fds", "lds_fds"))
    for fds in found:
        assert fds.kernel.tolist() == smoothing_kernel("gaussian", 5, 2.0).tolist()
        assert (fds.momentum, fds.clip) == (0.9, (0.2, 5.0))
        assert (fds.start_epoch, fds.subset) == (1, "nyu2_train_FDS_subset.csv")
        assert fds.layer is None  # the published layer: see test_fds


def test_short_forms_are_enough_and_mean_the_same_in_any_order():
    config = ["--config", "rooms/gai"]
    options = [
        ["--trainer.max_epochs", "3"],
        ["--seed_everything=7"],
        ["--model.optimizer.lr=0.5"],
        ["--data.root=mine"],
        ["--data.scale", "0.001"],
        ["--data", "FolderDataModule"],
        ["--model.criterion.init_noise_sigma", "2.5"],
        ["--model.criterion=BMCLoss"],
        config,
    ]
    parser = make_parser()
    orders = options, options[::-1], sorted(options)
    settings, *others = (parse(parser, [x for option in order for x in option]) for order in orders)
    assert [one.as_dict() for one in others] == [settings.as_dict()] * 2
    assert (settings.trainer.max_epochs, settings.seed_everything) == (3, 7)
    assert settings.data.class_path == "depthbal.data.FolderDataModule"
    assert (settings.data.init_args.root, settings.data.init_args.scale) == ("mine", 0.001)
    task = build(parser, settings, "model")
    assert type(task.criterion).__name__ == "BMCLoss"
    assert task.criterion.noise_sigma.item() == 2.5
    assert task.make_optimizer([torch.nn.Parameter(torch.zeros(1))]).defaults["lr"] == 0.5
    twice = ["--trainer.max_epochs=1", *config, "--trainer.max_epochs=2"]  # the last one holds
    assert parse(parser, twice).trainer.max_epochs == 2


@pytest.mark.parametrize("name", ["rooms/gai", "optimizer.yaml"])
def test_an_optimizer_that_is_named_has_its_own_defaults_not_those_of_the_one_before(
    name, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    adam = {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.5}}
    tiny_config(Path("optimizer.yaml"), model={"optimizer": adam})

    def weights(*arguments):
        found = vars(parsed(name, *arguments)[1].model.init_args.optimizer.init_args)
        return found["lr"], found["weight_decay"]

    # the task's own is AdamW, that of the rooms too, with another rate
    assert weights() == ((2e-3, 1e-2) if name == "rooms/gai" else (0.5, 0.0))
    assert weights("--model.optimizer=SGD") == (1e-3, 0.0)
    assert weights("--model.optimizer", "AdamW") == ((2e-3 if "rooms" in name else 1e-3), 1e-2)
    assert weights("--model.optimizer=SGD", "--model.optimizer.lr=0.25") == (0.25, 0.0)


def test_null_takes_a_setting_away_however_deep_it_lies():
    options = ["--model.lr_scheduler=null", "--model.criterion.smoothing=null"]
    task, settings = built("nyud2/lds", *options, "--data.depth_size", "null")  # and its weights
    assert task.make_lr_scheduler is None
    assert task.criterion.init_args["smoothing"] is None
    assert settings.data.init_args.depth_size is None


def test_loggers_and_callbacks_of_the_config_are_added_to_ours(tmp_path):
    logger = f"{{class_path: CSVLogger, init_args: {{save_dir: {tmp_path}}}}}"
    options = ["--trainer.callbacks=Timer", f"--trainer.logger={logger}"]
    config = tiny_config(tmp_path / "tiny.yaml")
    parser, settings = parsed(config, *options)
    # a default that is an enumeration is written as its text
    written = plain(parser, settings)["trainer"]["callbacks"]
    assert written["init_args"]["interval"] == "step"
    task = build(parser, settings, "model")
    trainer = _trainer(parser, settings, RunFolder(tmp_path / "run"), task)
    names = [type(callback).__name__ for callback in trainer.callbacks]
    assert {"Timer", "RandomStates", "FiniteLoss", "SaveCheckpoint"} <= set(names)
    assert [type(logger).__name__ for logger in trainer.loggers] == ["RunLogger", "CSVLogger"]


def test_the_whole_config_is_printed_and_reads_back(tmp_path, capsys):
    config = tiny_config(tmp_path / "tiny.yaml")
    assert command("train", "--config", config, "--model.noise_lr=0.5", "--print_config") == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["model"]["init_args"]["noise_lr"] == 0.5
    assert printed["data"]["init_args"]["n_train"] == 12


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--trainer.max_epoch", "3"], "max_epoch"),
        (["--max_epochs", "3"], "max_epochs"),
        (["--model.criterion", "GAILos"], "GAILos"),
        (["--model.criterion.init_noise_sigmaa", "2"], "init_noise_sigmaa"),
        (["--model.criterion.init_noise_sigma", "-1"], "positive noise_sigma"),
        (["--model.optimizer.lrr", "2"], "lrr"),
        (["--data.n_train=many"], "Got value: many"),
        (["--data.size=24"], "several values. Got value: 24"),
        (["--data.max_depth", "80"], "give the range once, in its place: --data.depth_range LO HI"),
        (["--trainer.accelerator", "abacus"], "abacus"),
        (["--trainer.limit_test_batches=1"], "whole test split"),
        (["--config"], "--config needs"),
        (["--resume"], "--resume"),
        (["mine.yaml"], "mine.yaml"),
        (["--config=typo.yaml"], "max_epochz"),
    ],
)
def test_a_mistake_is_one_clear_message_that_names_it(
    tmp_path, monkeypatch, capsys, arguments, named
):
    monkeypatch.chdir(tmp_path)
    config = tiny_config(tmp_path / "tiny.yaml")
    (tmp_path / "typo.yaml").write_text("model: {init_args: {max_epochz: 3}}")
    assert command("train", "--config", config, *arguments) == 2
    message = capsys.readouterr().err
    assert named in message
    for inner in ("Traceback", "Subtypes", "NoneType"):
        assert inner not in message
    assert not (tmp_path / "runs").exists()

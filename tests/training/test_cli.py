"""What is refused before anything is built, downloaded or written."""

import pytest

from depthbal.adapters.age.application import AGE
from depthbal.errors import ConfigError, DataError, RunFolderError
from depthbal.training.depth import DEPTH
from depthbal.training.settings import parsed_settings
from depthbal.training.train import train
from tests.training.helpers import CONFIGS, tiny_config, train_tiny


@pytest.mark.parametrize("root", ["nowhere", "nowhere.h5", "."])
def test_a_wrong_root_is_named_before_weights_are_downloaded(tmp_path, monkeypatch, root):
    def download(*_):
        pytest.fail("weights were asked for")

    monkeypatch.setattr("depthbal.models.resnet_mff.torchvision_state_dict", download)
    with pytest.raises(DataError, match=str(tmp_path / root)):
        train_tiny(
            CONFIGS / "nyud2" / "gai.yaml",
            tmp_path / "run",
            "--data.root",
            str(tmp_path / root),
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("config", "tool"),
    [
        ("age/vanilla.yaml", "tools/train_age.py"),
        ("age/rrt_gai.yaml", "tools/train_age.py"),  # names no data of its own
        ("age/drawn/fds.yaml", "tools/train_age.py"),
        ("hmr/paper.yaml", "tools/train_hmr.py"),
    ],
)
def test_a_config_of_another_tool_is_answered_with_the_command_to_type(tmp_path, config, tool):
    path = CONFIGS / config
    with pytest.raises(ConfigError) as caught:
        train_tiny(path, tmp_path / "run")
    assert str(caught.value).endswith(f"type: python {tool} --config {path}")


def test_a_depth_config_or_run_given_to_another_tool_is_sent_back(finished_run, tmp_path):
    config = tiny_config(tmp_path / "tiny.yaml")
    for option, path in (("--config", config), ("--resume", finished_run)):
        with pytest.raises(ConfigError) as caught:
            train([option, str(path)], config, AGE)
        assert str(caught.value).endswith(f"type: python tools/train.py {option} {path}")


@pytest.mark.parametrize("limit", ["1", "0.5", "0"])
def test_a_limit_that_the_evaluation_would_not_keep_is_refused(tmp_path, limit):
    config = tiny_config(tmp_path / "tiny.yaml")
    with pytest.raises(ConfigError, match=r"limit_test_batches .*whole test split.*--data\.n_test"):
        train_tiny(config, tmp_path / "run", "--trainer.limit_test_batches", limit)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("limit", ["null", "1.0"])
def test_a_limit_that_limits_nothing_is_none(finished_run, tmp_path, limit):
    with pytest.raises(ConfigError, match="is complete"):  # so the setting was taken
        train(["--resume", str(finished_run), f"--trainer.limit_test_batches={limit}"], tmp_path)


def test_a_callback_whose_default_is_an_enumeration_is_written_into_the_config(tmp_path):
    config = tiny_config(tmp_path / "tiny.yaml")
    settings = parsed_settings(DEPTH, ["--config", str(config), "--trainer.callbacks=Timer"])
    assert settings["trainer"]["callbacks"]["init_args"]["interval"] == "step"


def test_a_config_without_its_option_is_answered_with_the_option(tmp_path):
    config = tiny_config(tmp_path / "tiny.yaml")
    with pytest.raises(ConfigError, match=rf"given with --config {config}"):
        train([str(config), "--out", str(tmp_path / "run")], config)


def test_a_checkpoint_in_place_of_its_run_is_answered_with_the_run(finished_run):
    file = finished_run / "checkpoints" / "last.ckpt"
    with pytest.raises(RunFolderError, match=rf"is a file; .*holds it: {finished_run}$"):
        train(["--resume", str(file)], file)


def test_early_stopping_on_a_metric_that_is_not_logged_names_those_that_are(tmp_path):
    callback = {"class_path": "EarlyStopping", "init_args": {"monitor": "val/loss"}}
    config = tiny_config(tmp_path / "tiny.yaml", trainer={"callbacks": [callback]})
    with pytest.raises(ConfigError, match=r"`val/loss` which is not available.*val/rmse"):
        train_tiny(config, tmp_path / "run")


@pytest.mark.parametrize(
    ("argument", "expected"),
    [("--data.n_train=many", "int"), ("--data.size=24", "tuple")],
)
def test_a_value_of_another_type_is_shown_with_the_type_that_was_expected(
    tmp_path, argument, expected
):
    config = tiny_config(tmp_path / "tiny.yaml")
    with pytest.raises(ConfigError) as caught:
        parsed_settings(DEPTH, ["--config", str(config), argument])
    name, _, given = argument.removeprefix("--data.").partition("=")
    text = f"setting {name}: Expected a <class '{expected}'>. Got value: {given}"
    assert text in str(caught.value)

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import depthbal
from depthbal.data import RoomsDataModule
from depthbal.errors import ConfigError, DataError, RunFolderError
from depthbal.losses import GAILoss
from depthbal.models import SmpDepth
from depthbal.priors import GaussianMixture, Histogram
from tests.training.helpers import (
    CONFIGS,
    ROOMS,
    DropoutNet,
    Poison,
    PressCtrlC,
    callback,
    checkpoint_of,
    exit_code,
    tiny_config,
    train_tiny,
)


def test_a_run_folder_is_complete(finished_run):
    expected = {
        "config.yaml",
        "versions.json",
        "histogram.json",
        "prior.json",
        "metrics.csv",
        "metrics.json",
        "per_image.npz",
        "examples.npz",
        "report.html",
        "report.md",
        "checkpoints",
        "predictions",
    }
    assert {path.name for path in finished_run.iterdir()} == expected
    saved = {path.name for path in (finished_run / "checkpoints").iterdir()}
    assert saved == {"last.ckpt", "best.ckpt"}
    assert len(list((finished_run / "predictions").glob("*.png"))) == 4


def test_the_last_checkpoint_holds_plain_types_and_describes_itself(finished_run):
    content = checkpoint_of(finished_run)
    entry = content["depthbal"]
    assert entry["format"] == 1
    assert entry["version"] == depthbal.__version__
    assert entry["model"]["name"] == "SmpDepth"
    assert entry["model"]["init_args"]["encoder"] == "mobilenet_v2"
    assert entry["criterion"]["name"] == "GAILoss"
    assert entry["readout"] == "mean"
    assert entry["label_range"] == [0.7, 10.0]
    assert set(entry["input"]) >= {"short_side", "mean", "std"}
    assert {key.split(".")[0] for key in content["state_dict"]} == {"model", "criterion"}
    assert "hyper_parameters" not in content


def test_prior_and_histogram_in_the_folder_are_those_in_the_checkpoint(finished_run):
    histogram = Histogram.load(finished_run / "histogram.json")
    data = RoomsDataModule(n_train=12, n_val=4, n_test=4, size=(24, 32), num_workers=0)
    data.setup("fit")
    counted = Histogram.regular(0.7, 10.0, 0.1)
    for index in range(12):
        image, depth = data.train_set.source.load(index)
        counted.update(data.count_transform(image, depth, 0)[1])
    assert histogram.counts.tolist() == counted.counts.tolist()
    written = GaussianMixture.load(finished_run / "prior.json")
    state = checkpoint_of(finished_run)["state_dict"]
    restored = GAILoss(noise="learned")
    restored.load_state_dict(
        {k.removeprefix("criterion."): v for k, v in state.items() if k.startswith("criterion.")}
    )
    assert torch.allclose(restored.prior.means, written.means, atol=1e-12)
    assert torch.allclose(restored.prior.weights, written.weights, atol=1e-12)


def test_best_is_the_epoch_with_the_lowest_mean_over_bins(tmp_path):
    # the learning rate grows until it ruins the network
    growing = {
        "class_path": "torch.optim.lr_scheduler.StepLR",
        "init_args": {"step_size": 1, "gamma": 30.0},
    }
    config = tiny_config(tmp_path / "tiny.yaml", model={"lr_scheduler": growing})
    run = train_tiny(config, tmp_path / "run", "--trainer.max_epochs", "3")
    with (run / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["val/rmse_bins"]]
    scores = [float(row["val/rmse_bins"]) for row in rows]
    best = scores.index(min(scores))
    assert best < 2  # else best and last would not differ
    assert checkpoint_of(run, "best")["epoch"] == best
    assert checkpoint_of(run, "last")["epoch"] == 2
    # a resumed run must know the score to beat
    states = checkpoint_of(run, "last")["callbacks"]
    remembered = [s["best_model_score"] for key, s in states.items() if "val/rmse_bins" in key]
    assert [score.item() for score in remembered] == [pytest.approx(min(scores))]


def test_without_validation_there_is_no_best_checkpoint(tmp_path):
    config = tiny_config(tmp_path / "tiny.yaml")
    run = train_tiny(config, tmp_path / "run", "--data.n_val", "0", "--trainer.max_epochs", "1")
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["last.ckpt"]


def test_versions_say_what_the_run_was_made_with(finished_run):
    versions = json.loads((finished_run / "versions.json").read_text())
    assert versions["torch"] == torch.__version__.split("+")[0]
    assert versions["seed"] == 0
    assert versions["device"] == "cpu"
    assert versions["duration_s"] > 0
    assert versions["data"]["images"] == {"train": 12, "val": 4, "test": 4}
    assert {"python", "platform", "git_commit", "command", "pytorch-lightning"} <= set(versions)


def test_the_saved_config_repeats_the_run_exactly(finished_run, tmp_path):
    again = train_tiny(finished_run / "config.yaml", tmp_path / "again")
    first, second = (checkpoint_of(run)["state_dict"] for run in (finished_run, again))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_seed_changes_the_result(finished_run, tmp_path):
    other = train_tiny(finished_run / "config.yaml", tmp_path / "other", "--seed_everything", "1")
    key = "model.network.encoder.features.0.0.weight"
    first, second = (checkpoint_of(run)["state_dict"] for run in (finished_run, other))
    assert not torch.equal(first[key], second[key])


def test_a_loss_is_named_by_its_short_name(tmp_path):
    config = tiny_config(tmp_path / "tiny.yaml")
    run = train_tiny(config, tmp_path / "run", "--model.criterion", "MSELoss")
    assert checkpoint_of(run)["depthbal"]["criterion"]["name"] == "MSELoss"
    assert not (run / "prior.json").exists()
    assert (run / "histogram.json").exists()


def test_foreign_network_and_loss_train_and_are_evaluated(tmp_path):
    config = tiny_config(
        tmp_path / "tiny.yaml",
        model={
            "model": {"class_path": "tests.training.helpers.DropoutNet"},
            "criterion": {"class_path": "torch.nn.SmoothL1Loss"},
            "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.01}},
        },
    )
    run = train_tiny(config, tmp_path / "run")
    entry = checkpoint_of(run)["depthbal"]
    assert entry["model"] == {
        "name": f"tests.training.helpers.{DropoutNet.__name__}",
        "init_args": None,
    }
    assert entry["criterion"]["name"].endswith("SmoothL1Loss")
    assert json.loads((run / "metrics.json").read_text())["overall"]["rmse"] > 0


def test_the_first_free_folder_is_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = tiny_config(tmp_path / "tiny.yaml")
    for name in ("tiny", "tiny-2"):
        assert exit_code(config, "--trainer.max_epochs", "1") == 0
        assert (tmp_path / "runs" / name / "metrics.json").is_file()


def test_an_existing_run_is_an_error_before_any_work(run, monkeypatch):
    monkeypatch.setattr(RoomsDataModule, "setup", lambda *_: pytest.fail("work was done"))
    before = checkpoint_of(run)["global_step"]
    with pytest.raises(RunFolderError, match="--overwrite"):
        train_tiny(run / "config.yaml", run)
    assert checkpoint_of(run)["global_step"] == before


def test_overwrite_replaces_a_run_and_keeps_it_while_the_new_one_cannot_start(run, tmp_path):
    config = tiny_config(tmp_path / "tiny.yaml")
    missing = tmp_path / "missing"
    with pytest.raises(DataError):
        train_tiny(
            config, run, "--overwrite", "--data", "NYUD2DataModule", "--data.root", str(missing)
        )
    assert checkpoint_of(run)["epoch"] == 1
    train_tiny(config, run, "--overwrite", "--trainer.max_epochs", "1")
    assert checkpoint_of(run)["epoch"] == 0


def test_overwrite_deletes_nothing_but_runs(tmp_path):
    config = tiny_config(tmp_path / "tiny.yaml")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").touch()
    with pytest.raises(RunFolderError, match="not a run folder"):
        train_tiny(config, tmp_path / "home", "--overwrite")
    assert (tmp_path / "home" / "thesis.tex").exists()


class PlacedRooms(RoomsDataModule):
    """Data of somebody's own, found in a folder."""

    def __init__(self, place: Path = Path("somewhere"), **settings: Any) -> None:
        super().__init__(**settings)
        self.place = place

    def check_root(self) -> None:
        if not self.place.is_dir():
            raise DataError(f"no rooms in {self.place}")


def test_data_that_take_a_path_are_looked_for_before_the_network_is_built(tmp_path, monkeypatch):
    data = {"class_path": f"{__name__}.PlacedRooms", "init_args": ROOMS["init_args"]}
    config = tiny_config(tmp_path / "tiny.yaml", data=data)
    run = train_tiny(config, tmp_path / "run", "--data.place", str(tmp_path))
    assert f"place: {tmp_path}" in (run / "config.yaml").read_text()
    monkeypatch.setattr(SmpDepth, "__init__", None)  # building one would fail
    with pytest.raises(DataError, match="no rooms in somewhere"):
        train_tiny(config, tmp_path / "other")


def test_missing_data_leave_no_run_folder(tmp_path):
    config = CONFIGS / "nyuv2_labelled" / "gai.yaml"
    with pytest.raises(DataError, match="root"):
        train_tiny(config, tmp_path / "run", "--data.root", str(tmp_path / "missing"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--trainer.max_epoch", "3"], "max_epoch"),
        (["--data.n_trian", "3"], "n_trian"),
        (["--model.criterion", "GAILos"], "GAILoss"),
        (["--model.criterion.init_noise_sigmaa", "2"], "init_noise_sigmaa"),
        (["--model.criterion.label_range", "[10.0, 0.7]"], "label_range"),
        (["--data.n_train", "0"], "n_train"),
        (["--trainer.accelerator", "abacus"], "abacus"),
        (["--config", "/nowhere.yaml"], "/nowhere.yaml"),
        (["--resume", "/nowhere"], "/nowhere"),
        (["--resume"], "--resume"),
    ],
)
def test_a_mistake_is_one_clear_message_that_names_it(
    tmp_path, monkeypatch, capsys, arguments, named
):
    monkeypatch.chdir(tmp_path)
    config = tiny_config(tmp_path / "tiny.yaml")
    assert exit_code(config, *arguments) == 2
    message = capsys.readouterr().err
    assert named in message
    assert "Traceback" not in message
    assert not (tmp_path / "runs").exists()


def test_a_typo_in_a_config_file_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = tiny_config(tmp_path / "typo.yaml", trainer={"max_epochz": 3})
    assert exit_code(config) == 2
    assert "max_epochz" in capsys.readouterr().err


@pytest.mark.parametrize(
    "settings",
    [
        ["--data.min_depth", "1.0"],
        ["--data.max_depth", "80"],
        ["--model.max_depth", "80"],
        ["--data.max_depth", "80", "--model.max_depth", "80"],
        ["--model.criterion.label_range", "[0.7, 80]"],
    ],
)
def test_different_depth_limits_of_data_task_and_loss_are_refused(tmp_path, settings):
    config = tiny_config(tmp_path / "tiny.yaml")
    named = "data.max_depth.*model.max_depth.*criterion.label_range.*give all"
    with pytest.raises(ConfigError, match=named):
        train_tiny(config, tmp_path / "run", *settings)
    assert not (tmp_path / "run").exists()


def test_depths_to_80_metres_are_trained_where_all_settings_say_so(tmp_path):
    config = tiny_config(tmp_path / "tiny.yaml")
    limits = ["--data.max_depth=80.7", "--model.max_depth=80.7"]
    limits += ["--model.criterion.label_range=[0.7, 80.7]", "--trainer.max_epochs=1"]
    run = train_tiny(config, tmp_path / "run", *limits)
    assert checkpoint_of(run)["depthbal"]["label_range"] == [0.7, 80.7]


def test_a_diverged_training_stops_and_keeps_the_checkpoint(tmp_path, capsys):
    trainer = {"max_epochs": 3, "accelerator": "cpu", "devices": 1, **callback(Poison)}
    config = tiny_config(tmp_path / "tiny.yaml", trainer=trainer)
    assert exit_code(config, "--out", str(tmp_path / "run")) == 2
    assert "NaN or infinite" in capsys.readouterr().err
    content = checkpoint_of(tmp_path / "run")
    assert content["epoch"] == 0
    assert all(torch.isfinite(value).all() for value in content["state_dict"].values())


def test_ctrl_c_keeps_the_checkpoint_and_says_how_to_go_on(tmp_path, capsys):
    trainer = {"max_epochs": 3, "accelerator": "cpu", "devices": 1, **callback(PressCtrlC)}
    config = tiny_config(tmp_path / "tiny.yaml", trainer=trainer)
    assert exit_code(config, "--out", str(tmp_path / "run")) == 130
    assert f"--resume {tmp_path / 'run'}" in capsys.readouterr().err
    assert checkpoint_of(tmp_path / "run")["epoch"] == 0


def test_a_refused_value_is_explained_in_one_line(tmp_path, capsys):
    config = tiny_config(tmp_path / "tiny.yaml")
    setting = ["--model.criterion.init_noise_sigma", "-1", "--out", str(tmp_path / "run")]
    assert exit_code(config, *setting) == 2
    message = capsys.readouterr().err
    assert "positive noise_sigma" in message
    assert "Subtypes" not in message
    assert "NoneType" not in message


def test_a_training_ends_with_a_report_that_shows_its_numbers(finished_run):
    page = (finished_run / "report.html").read_text(encoding="utf-8")
    text = (finished_run / "report.md").read_text(encoding="utf-8")
    rmse = json.loads((finished_run / "metrics.json").read_text())["overall"]["rmse"]
    assert f"{rmse:.3f}" in page
    assert f"{rmse:.3f}" in text


def test_a_report_that_cannot_be_written_spoils_no_training(tmp_path, monkeypatch, recwarn):
    def broken(*_):
        raise RunFolderError("no space for pictures")

    monkeypatch.setattr("depthbal.training.train.write_report", broken)
    run = train_tiny(tiny_config(tmp_path / "tiny.yaml", trainer={"max_epochs": 1}), tmp_path / "r")
    assert (run / "metrics.json").is_file()
    assert any("no space for pictures" in str(entry.message) for entry in recwarn)

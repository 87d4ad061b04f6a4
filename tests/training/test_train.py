"""What a training leaves behind, where it goes, and what is refused before it starts."""

import json
from pathlib import Path

import cv2
import pytest
import torch
import yaml

import depthbal
from depthbal import load_predictor
from depthbal.data import RoomsDataModule
from depthbal.errors import ConfigError, DataError, DepthbalError, RunFolderError
from depthbal.evaluation import Scores
from depthbal.priors import GaussianMixture, Histogram
from depthbal.training import open_run
from depthbal.training.train import _fit
from tests.training.helpers import (
    DROPOUT_NET,
    GAI,
    SIZES,
    STEP_LR,
    DropoutNet,
    Poison,
    callback,
    checkpoint_of,
    command,
    logged,
    metrics_of,
    same_weights,
    tiny_config,
    train_tiny,
    unet,
)


@pytest.fixture
def config(tmp_path):
    return tiny_config(tmp_path / "tiny.yaml")


def test_a_run_folder_is_complete(finished_run):
    files = {"config.yaml", "run.json", "prior.json", "metrics.csv", "metrics.json", "scores.npz"}
    files |= {"examples.npz", "report.html", "report.md", "checkpoints", "predictions"}
    assert {path.name for path in finished_run.iterdir()} == files
    saved = {path.name for path in (finished_run / "checkpoints").iterdir()}
    assert saved == {"last.ckpt", "best.ckpt"}
    assert len(list((finished_run / "predictions").glob("*.png"))) == 4
    record = json.loads((finished_run / "run.json").read_text())
    expected = {"depthbal": depthbal.__version__, "seed": 0, "device": "cpu"}
    expected |= {"torch": torch.__version__.split("+")[0]}
    assert {key: record[key] for key in expected} == expected
    assert record["duration_s"] > 0
    assert record["data"]["images"] == {"train": 12, "val": 4, "test": 4}
    assert {"python", "platform", "threads", "git_commit", "command"} <= set(record)
    metrics, scores = metrics_of(finished_run), Scores.load(finished_run)
    assert scores.result() == metrics
    assert scores.names == [f"rooms/test/{index:05d}" for index in range(4)]
    for name in ("report.html", "report.md"):
        shown = (finished_run / name).read_text(encoding="utf-8")
        assert f"{metrics['overall']['rmse']:.3f}" in shown


def test_the_last_checkpoint_holds_plain_types_and_describes_itself(finished_run):
    content = checkpoint_of(finished_run)
    entry = content["depthbal"]
    expected = {"format": 2, "version": depthbal.__version__, "readout": "mean"}
    expected |= {"label": ["depth", "m"], "label_range": [0.7, 10.0]}
    assert {key: entry[key] for key in expected} == expected
    assert entry["model"]["class_path"] == "depthbal.models.SmpDepth"
    assert entry["model"]["init_args"]["encoder"] == "tu-test_resnet"
    assert entry["criterion"]["class_path"] == "depthbal.losses.GAILoss"
    assert set(entry["input"]) >= {"short_side", "mean", "std"}
    assert {key.split(".")[0] for key in content["state_dict"]} == {"model", "criterion"}
    assert "hyper_parameters" not in content


def test_prior_and_histogram_in_the_folder_are_those_in_the_checkpoint(finished_run):
    written = json.loads((finished_run / "prior.json").read_text())
    data = RoomsDataModule(**SIZES)
    data.setup("fit")
    counted = Histogram.regular(0.7, 10.0, 0.1)
    for index in range(12):
        image, depth = data.train_set.source.load(index)
        counted.update(data.count_transform(image, depth, 0)[1])
    run = open_run(finished_run)
    assert run.histogram().counts.tolist() == counted.counts.tolist()
    assert checkpoint_of(finished_run)["depthbal"]["histogram"] == written["histogram"]
    prior = GaussianMixture.from_dict(written["prior"])
    restored = run.task().criterion.prior
    assert torch.allclose(restored.means, prior.means, atol=1e-12)
    assert torch.allclose(restored.weights, prior.weights, atol=1e-12)


def test_the_saved_config_repeats_the_run_exactly_and_a_seed_changes_it(finished_run, tmp_path):
    again = train_tiny(finished_run / "config.yaml", tmp_path / "again")
    assert same_weights(again, finished_run)
    one = ["--seed_everything=1", "--trainer.max_epochs=1"]
    other = train_tiny(finished_run / "config.yaml", tmp_path / "other", *one)
    first, second = (checkpoint_of(run)["state_dict"] for run in (finished_run, other))
    key = next(key for key, value in first.items() if value.ndim == 4)  # hardly trained
    assert not torch.allclose(first[key], second[key], atol=0.1)


def test_best_is_the_epoch_with_the_lowest_mean_over_bins(tmp_path):
    growing = {**STEP_LR, "init_args": {"step_size": 1, "gamma": 30.0}}  # ruins the network
    config = tiny_config(tmp_path / "tiny.yaml", model={"lr_scheduler": growing})
    run = train_tiny(config, tmp_path / "run", "--trainer.max_epochs", "4")
    scores = [float(row["val/rmse_bins"]) for row in logged(run) if row["val/rmse_bins"]]
    best = scores.index(min(scores))
    assert best < 3  # else best and last would not differ
    assert checkpoint_of(run, "best")["epoch"] == best
    assert checkpoint_of(run, "last")["epoch"] == 3
    # a resumed run must know the score to beat
    states = checkpoint_of(run, "last")["callbacks"]
    remembered = [s["best_model_score"] for key, s in states.items() if "val/rmse_bins" in key]
    assert [score.item() for score in remembered] == [pytest.approx(min(scores))]


def test_a_foreign_network_and_loss_train_are_evaluated_and_predict(tmp_path):
    foreign = {"model": DROPOUT_NET, "criterion": {"class_path": "torch.nn.SmoothL1Loss"}}
    foreign["optimizer"] = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.01}}
    run = train_tiny(tiny_config(tmp_path / "tiny.yaml", model=foreign), tmp_path / "run")
    entry = checkpoint_of(run)["depthbal"]
    path = f"{DropoutNet.__module__}.{DropoutNet.__name__}"
    assert entry["model"] == {"class_path": path, "init_args": {"channels": 4}}
    assert entry["criterion"]["class_path"].endswith("SmoothL1Loss")
    assert metrics_of(run)["overall"]["rmse"] > 0
    # a run's own config may be trusted; a checkpoint imports nothing
    task = open_run(run).task("best")
    assert isinstance(task.model, DropoutNet)
    predictor = load_predictor(run, classes=[DropoutNet])
    image, depth = RoomsDataModule(**SIZES).test_source().load(0)
    assert predictor.predict(image).shape == depth.shape
    assert command("evaluate", run, "--checkpoint", "best", "--device", "cpu") == 0
    assert (run / "eval" / "best" / "metrics.json").is_file()
    cv2.imwrite(str(tmp_path / "room.png"), image)
    assert command("predict", run, tmp_path / "room.png", "--out", tmp_path) == 0
    assert command("export", run, "--format", "torch") == 0


class Squares(DropoutNet):
    """A network of squares of 32 pixels."""

    def forward(self, images):
        assert images.shape[-2:] == (32, 32), "Input height (24) does not match (32)"
        return super().forward(images)


class Near(DropoutNet):
    """A network of depths up to 8 m."""

    max_depth = 8.0


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (f"model={__name__}.Squares", r"of 24 x 32 pixels: Input height \(24\).*crop_size"),
        (f"model={__name__}.Near", "end at 8 m, those of the data at 10 m; give it another end"),
        ("criterion.label_range=[0.7, 80]", "one label range, that of the data"),
        ("reset=[head]", "DropoutNet has no part 'head'; it has .*layers"),
        ("cache_features=true", "needs a frozen backbone"),
        ("weights_from=nowhere", "nowhere"),
        ("weights_from={}", "holds SmpDepth .*this training has DropoutNet"),
    ],
)
def test_what_cannot_be_trained_is_said_before_there_is_a_folder(
    config, finished_run, tmp_path, setting, message
):
    with pytest.raises(DepthbalError, match=message):
        train_tiny(config, tmp_path / "run", f"--model.{setting.format(finished_run)}")
    assert not (tmp_path / "run").exists()


def test_the_first_free_folder_is_taken(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "tiny").mkdir(parents=True)
    assert command("train", "--config", config, "--trainer.max_epochs", "1") == 0
    assert (tmp_path / "runs" / "tiny-2" / "metrics.json").is_file()


def test_overwrite_alone_replaces_a_run_and_only_when_the_new_one_can_start(
    run, config, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(RoomsDataModule, "setup", lambda *_: pytest.fail("work was done"))
        with pytest.raises(RunFolderError, match="--overwrite"):
            train_tiny(config, run)
    missing = ["--data", "NYUD2DataModule", "--data.root", str(tmp_path / "missing")]
    with pytest.raises(DataError):
        train_tiny(config, run, *missing, overwrite=True)
    assert checkpoint_of(run)["epoch"] == 1
    train_tiny(config, run, "--trainer.max_epochs", "1", overwrite=True)
    assert checkpoint_of(run)["epoch"] == 0
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").touch()
    with pytest.raises(RunFolderError, match="not a run folder"):
        train_tiny(config, tmp_path / "home", overwrite=True)
    assert (tmp_path / "home" / "thesis.tex").exists()


@pytest.mark.parametrize(
    ("config", "root"),
    [("nyud2/gai", "nowhere"), ("nyud2/gai", "."), ("nyuv2_labelled/gai", "nowhere.h5")],
)
def test_a_wrong_root_is_named_before_a_network_is_built(tmp_path, monkeypatch, config, root):
    monkeypatch.setattr(torch.nn.Conv2d, "__init__", lambda *_, **__: pytest.fail("built"))
    with pytest.raises(DataError, match=str(tmp_path / root)):
        train_tiny(Path(config), tmp_path / "run", "--data.root", str(tmp_path / root))
    assert not (tmp_path / "run").exists()


COMBINED = [GAI, {"class_path": "L1Loss"}]


@pytest.mark.parametrize(
    ("criterion", "head"),
    [
        ({"class_path": "GAILoss"}, "bounded"),
        ({"class_path": "BMCLoss", "init_args": {"memory": 5}}, "log"),
        ({"class_path": "CombinedLoss", "init_args": {"losses": COMBINED}}, "linear"),
        ({"class_path": "BinsLoss", "init_args": {"n_bins": 64}}, "bins"),
        ({"class_path": "torch.nn.L1Loss"}, "bounded"),
    ],
)
def test_a_range_that_is_given_once_reaches_everything(tmp_path, criterion, head):
    model = {"model": unet(head={"kind": head}), "criterion": criterion}
    config = tiny_config(tmp_path / "tiny.yaml", model=model)
    options = ["--data.depth_range", "1", "8.5", "--trainer.max_epochs", "1"]
    run = train_tiny(config, tmp_path / "run", *options)
    assert run.joinpath("config.yaml").read_text().count("8.5") == 1
    entry = checkpoint_of(run)["depthbal"]
    assert entry["label_range"] == [1.0, 8.5]
    histogram, bins = Histogram.from_dict(entry["histogram"]), Scores.load(run).bins
    assert (histogram.edges[0], histogram.edges[-1], bins.ends) == (1.0, 8.5, (1.0, 8.5))
    task, predictor = open_run(run).task(), load_predictor(run)
    image = RoomsDataModule(**SIZES).test_source().load(0)[0]
    for opened in (task, predictor):
        assert getattr(opened.criterion, "label_range", (1.0, 8.5)) == (1.0, 8.5)
        assert head != "bounded" or opened.model.output_head.label_range == (1.0, 8.5)
    assert (predictor.label_range, task.label.range) == ((1.0, 8.5), (1.0, 8.5))
    depth = predictor.predict(image)
    assert predictor.readout == "mean"
    assert isinstance(task.criterion, torch.nn.L1Loss) or (depth.min() >= 1 and depth.max() <= 8.5)


def test_logarithms_go_through_training_evaluation_prediction_and_balancing(tmp_path, capsys):
    model = {"model": unet(head={"kind": "log"}), "criterion": {"class_path": "MSELoss"}}
    config = tiny_config(tmp_path / "tiny.yaml", model=model)
    options = ["--model.label_transform", "log", "--data.bin_spacing", "log"]
    options += ["--data.depth_range", "1", "9", "--trainer.max_epochs", "1"]
    run = train_tiny(config, tmp_path / "mse", *options)
    balanced = ["--model.criterion", "GAILoss", "--model.criterion.init_noise_sigma", "0.2"]
    gai = train_tiny(config, tmp_path / "gai", *options, *balanced)
    widths = Scores.load(gai).bins.edges[-32:]
    assert widths[1:] / widths[:-1] == pytest.approx(1.07, abs=0.002)
    assert Scores.load(gai).given["noise_sigma"] == pytest.approx(0.2)
    assert Scores.load(gai).given["noise_unit"] == "of logarithms"
    predictor, task = load_predictor(gai), open_run(gai).task()
    image, _ = RoomsDataModule(**SIZES).test_source().load(0)
    depth, (low, high) = predictor.predict_with_interval(image)
    assert ((depth > 1) & (depth < 9) & (low < depth) & (depth < high)).all()
    raw = torch.tensor([0.5, 2.0, 30.0])
    assert torch.equal(predictor.criterion.readout(raw), task.criterion.readout(raw))
    assert not torch.equal(predictor.criterion.readout(raw), raw)
    evaluate = ["evaluate", run, "--device", "cpu"]
    assert command(*evaluate, "--posthoc", "0.2", "--relative-to", "log_uniform") == 0
    given = Scores.load(run / "eval" / "posthoc_0.2_to_log_uniform").given
    assert given["posthoc"]["noise_unit"] == "of logarithms"
    assert given["posthoc"]["relative_to"] == "log_uniform"
    assert command(*evaluate, "--posthoc", "auto") == 2
    assert "give --posthoc SIGMA" in capsys.readouterr().err
    cv2.imwrite(str(tmp_path / "room.png"), image)
    image = tmp_path / "room.png"
    assert command("predict", run, image, "--out", tmp_path, "--posthoc", "0.2") == 0
    assert command("export", gai, "--format", "torch") == 0


def test_a_run_keeps_its_range_whatever_data_it_meets(config, tmp_path, capsys):
    run = train_tiny(config, tmp_path / "run", "--data.depth_range", "1", "8.5")
    assert command("evaluate", run, "--device", "cpu", "--data.depth_range", "1", "9") == 0
    scores = Scores.load(run / "eval" / "depth_range_1,9")
    assert scores.given["data"]["depth_range"] == [1.0, 9.0]
    assert scores.bins.ends == (1.0, 8.5)  # and shots of the training
    more = ["train", "--resume", run, "--trainer.max_epochs", "3"]
    assert command(*more, "--data.depth_range", "1", "9") == 2
    assert "expected one label range" in capsys.readouterr().err
    assert command(*more) == 0
    assert checkpoint_of(run)["depthbal"]["label_range"] == [1.0, 8.5]


def test_a_diverged_training_stops_and_keeps_the_checkpoint(tmp_path, capsys):
    trainer = {"max_epochs": 3, "accelerator": "cpu", "devices": 1, **callback(Poison)}
    config = tiny_config(tmp_path / "tiny.yaml", trainer=trainer)
    assert command("train", "--config", config, "--out", tmp_path / "run") == 2
    assert "NaN or infinite" in capsys.readouterr().err
    content = checkpoint_of(tmp_path / "run")
    assert content["epoch"] == 0
    assert all(torch.isfinite(value).all() for value in content["state_dict"].values())


def test_a_training_starts_from_the_weights_of_another_run_but_for_what_is_reset(tmp_path, config):
    first = train_tiny(config, tmp_path / "first", "--trainer.max_epochs=1")
    second = ["--model.criterion=MSELoss", f"--model.weights_from={first}"]
    second += ["--model.reset=[layers.4]", "--model.freeze=[layers.0,layers.1]"]
    run = train_tiny(config, tmp_path / "second", *second, "--trainer.max_epochs=1")
    before, after = (checkpoint_of(run)["state_dict"] for run in (first, run))
    for name, value in before.items():
        if name.startswith(("model.layers.0.", "model.layers.1.")):  # statistics included
            assert torch.equal(after[name], value), name
    assert not torch.equal(after["model.layers.4.weight"], before["model.layers.4.weight"])
    stored = yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"]
    assert stored["weights_from"] == str(first)


def test_early_stopping_on_a_metric_that_is_not_logged_is_a_setting_to_mend():
    class Stopped:
        def fit(self, *_, **__):
            raise RuntimeError("Early stopping conditioned on metric `val/x`, not available")

    with pytest.raises(ConfigError, match=r"--trainer.callbacks: .*`val/x`"):
        _fit(Stopped(), None, None, None)

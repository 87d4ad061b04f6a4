"""Trainings on pictures of which a part is only known to lie beyond the range."""

import json
import re

import numpy as np
import pytest
import torch
from torch import nn

import depthbal
from depthbal.errors import ConfigError
from depthbal.evaluation import Scores
from depthbal.losses import BMCLoss, BNILoss, CombinedLoss, GAILoss, GradientLoss, MSELoss
from depthbal.predictor import Predictor
from depthbal.reports import write_report
from depthbal.training import DepthTask
from tests.data.make_files import SkyDataModule, sky_pair
from tests.training.helpers import fit_prior, metrics_of, tiny_config, train_tiny

RANGE = (2.0, 40.0)
DATA = {"class_path": "tests.data.make_files.SkyDataModule", "init_args": {}}
COLOURS = {"class_path": "tests.training.test_beyond.Colours"}
ADAM = {"class_path": "torch.optim.Adam", "init_args": {"lr": 2.0}}


class Colours(nn.Conv2d):
    """Depth as a linear function of a pixel's colour."""

    def __init__(self) -> None:
        super().__init__(3, 1, 1)

    def initialise_bias(self, depth_m: float) -> None:
        nn.init.constant_(self.bias, depth_m)


def config(path, loss, epochs=10, **model):
    criterion = {"class_path": f"depthbal.losses.{loss}", "init_args": {}}
    if loss != "MSELoss":
        criterion["init_args"]["init_noise_sigma"] = 2.0
    model = {"model": COLOURS, "criterion": criterion, "optimizer": ADAM, **model}
    return tiny_config(path, model=model, data=DATA, trainer={"max_epochs": epochs})


@pytest.mark.parametrize("loss", ["BNILoss", "BMCLoss", "MSELoss"])
def test_sky_that_is_trained_on_goes_far_and_sky_that_is_left_out_stays_near(tmp_path, loss):
    runs = {}
    for censor in (True, False):
        file = config(tmp_path / f"{censor}.yaml", loss, censor=censor)
        runs[censor] = train_tiny(file, tmp_path / f"{censor}")
    near = {censor: metrics_of(run)["beyond"]["nearer_than_half"] for censor, run in runs.items()}
    assert near[True] < 0.1 < 0.9 < near[False]
    counted = [
        json.loads((run / "prior.json").read_text())["histogram"]["beyond"] for run in runs.values()
    ]
    assert counted == [sum(np.isinf(sky_pair(i)[1]).sum() for i in range(12)), 0]
    write_report([*runs.values()], tmp_path / "report.html")
    text = (tmp_path / "report.md").read_text()
    count = Scores.load(runs[True]).beyond()[:-1].sum()
    assert f"Of {count:,} test pixels that are known to lie beyond 40 m, nearer than 20 m" in text
    assert re.search(r"are predicted [\d.]+ % by \w+, [\d.]+ % by \w+\.", text)  # not 1e+02
    assert "## Predictions of what lies beyond" in text
    assert "Predictions of what lies beyond" in (tmp_path / "report.html").read_text()


def test_predictions_of_any_program_are_counted_in_the_same_way(tmp_path):
    data = SkyDataModule()
    found = depthbal.evaluate(
        lambda image: np.where(image[..., 1] > 200, 15.5, 3 + image[..., 2] / 3.0),
        data,
        tmp_path,
        protocol="whole",
    )["beyond"]
    sky = sum(np.isinf(sky_pair(i)[1]).sum() for i in range(100, 104))
    assert (found["count"], found["nearer"], found["nearer_than_half"]) == (sky, 1.0, 1.0)
    assert found["bins"] == [{"from_m": 15.0, "to_m": 16.0, "count": sky}]


@pytest.mark.parametrize("criterion", [BNILoss(label_range=RANGE), MSELoss(label_range=RANGE)])
def test_pictures_whose_sky_is_cut_off_are_trained_on_as_if_they_never_had_one(criterion):
    data = SkyDataModule()
    data.setup()
    task, nothing = DepthTask(Colours(), criterion), data.train_histogram()
    nothing.beyond = 0.0
    fit_prior(task, nothing)
    batch = next(iter(data.train_dataloader()))
    preds = task.predict(batch)
    expected = criterion(preds, batch["depth"], batch["depth"] >= 2)
    assert task.training_loss(preds, batch) == expected


@pytest.mark.parametrize(
    "criterion",
    [
        GAILoss(label_range=RANGE, n_components=4),
        BMCLoss(label_range=RANGE),
        CombinedLoss([BNILoss(label_range=RANGE), GradientLoss()]),
    ],
    ids=lambda one: type(one).__name__,
)
def test_the_task_gives_the_prior_and_every_batch_their_share(criterion):
    data = SkyDataModule()
    data.setup()
    task = DepthTask(Colours(), criterion)
    fit_prior(task, data.train_histogram())
    batch = next(iter(data.train_dataloader()))
    preds = task.predict(batch)
    loss = task.training_loss(preds, batch)
    beyond = batch["beyond"]
    expected = criterion(preds, batch["depth"], batch["depth"] >= 2, beyond)
    assert loss == expected
    (gradient,) = torch.autograd.grad(loss, preds)
    assert (gradient[beyond & (preds < 40)] < 0).all()
    predictor = Predictor(task.model, criterion, data.input_spec())
    assert predictor.read_out(preds, ("mean",))["mean"].max() <= 40


LAPLACE = {"class_path": "BNILoss", "init_args": {"family": "laplace"}}
BOTH = {"class_path": "CombinedLoss", "init_args": {"losses": [{"class_path": "GAILoss"}, LAPLACE]}}


@pytest.mark.parametrize("criterion", [LAPLACE, BOTH])
def test_a_loss_that_cannot_is_refused_with_the_way_out_and_leaves_no_folder(tmp_path, criterion):
    file = config(tmp_path / "c.yaml", "BNILoss", criterion=criterion)
    with pytest.raises(ConfigError, match=r"gaussian.*--model\.censor false"):
        train_tiny(file, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_module_that_knows_nothing_of_it_is_trained_on_the_rest():
    data = SkyDataModule()
    data.setup()
    batch = next(iter(data.train_dataloader()))
    task, preds = DepthTask(Colours(), nn.L1Loss()), torch.zeros(batch["depth"].shape)
    counted = batch["depth"] >= 2
    assert task.training_loss(preds, batch) == batch["depth"][counted].mean()
    plain = DepthTask(Colours(), MSELoss(label_range=RANGE), censor=False)
    expected = (batch["depth"][counted] ** 2).mean()
    assert plain.training_loss(preds, batch) == pytest.approx(float(expected))

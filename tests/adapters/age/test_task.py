"""The task: what is trained, in which mode and precision, and what chooses the best epoch."""

import pytest
import torch
from torch import nn

from depthbal.adapters.age import AgeRegressor
from depthbal.adapters.age.task import AgeTask, AgeValidation
from depthbal.errors import ConfigError
from depthbal.evaluation import LabelBins
from depthbal.losses import BMCLoss, L1Loss
from tests.adapters.age.helpers import tiny_config, train_age, weights_of


def task(**settings) -> AgeTask:
    torch.manual_seed(0)
    return AgeTask(AgeRegressor("test_resnet", library="timm"), L1Loss(), **settings)


BATCH = {
    "image": torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)),
    "label": torch.tensor([20.0, 40.0, 60.0, 80.0]),
}


def test_a_frozen_backbone_stays_in_evaluation_mode_and_gets_no_gradient():
    frozen = task(retrain=True, base_run="somewhere").train()
    assert frozen.model.head.training
    assert not any(part.training for part in frozen.model.backbone.modules())
    before = {name: value.clone() for name, value in frozen.model.backbone.state_dict().items()}
    frozen.compute_loss(BATCH).backward()
    assert all(parameter.grad is None for parameter in frozen.model.backbone.parameters())
    assert frozen.model.head.weight.grad.abs().sum() > 0
    assert all(torch.equal(before[k], v) for k, v in frozen.model.backbone.state_dict().items())


def test_a_whole_network_is_trained_with_its_running_statistics():
    whole = task().train()
    assert all(part.training for part in whole.model.modules())
    before = {name: value.clone() for name, value in whole.model.backbone.state_dict().items()}
    whole.compute_loss(BATCH).backward()
    assert all(parameter.grad is not None for parameter in whole.model.backbone.parameters())
    assert any(not torch.equal(before[k], v) for k, v in whole.model.backbone.state_dict().items())


def test_the_loss_of_features_is_that_of_their_images():
    frozen = task(retrain=True, base_run="somewhere")
    with torch.no_grad():
        features = frozen.model.features(BATCH["image"])
    of_features = frozen.compute_loss({"features": features, "label": BATCH["label"]})
    assert torch.equal(of_features, frozen.compute_loss(BATCH))


def test_ages_are_predicted_in_float32_under_autocast():
    model = task()
    model.model.initialise_bias(80.0)
    features = torch.rand(4, model.model.head.in_features)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        labels = model.predict(features.bfloat16())
    assert labels.dtype == torch.float32
    exact = model.model.head(features.bfloat16().float()).squeeze(-1)
    assert torch.equal(labels, exact)
    assert not torch.equal(labels, labels.bfloat16().float())


def test_the_loss_takes_the_label_range_of_the_training_ages(tmp_path):
    criterion = {"class_path": "BMCLoss"}
    config = tiny_config(tmp_path / "tiny.yaml")
    run = train_age("--config", config, "--out", tmp_path / "run", "--model.criterion=BMCLoss")
    entry = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["depthbal"]
    assert criterion["class_path"] == entry["criterion"]["name"]
    assert entry["label_range"] == [19.5, 59.5]
    assert any(name.startswith("model.head") for name in weights_of(run))


def test_a_label_range_that_is_given_stays():
    criterion = BMCLoss(label_range=(0.0, 120.0))
    assert AgeTask(AgeRegressor("test_resnet", library="timm"), criterion).label_range() == (0, 120)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"retrain": True}, "--base RUN"), ({"base_run": "run"}, "train a head only")],
)
def test_half_a_retraining_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        task(**settings)


def test_a_network_without_a_head_is_refused():
    with pytest.raises(ConfigError, match="Linear has no backbone, features, head"):
        AgeTask(nn.Linear(2, 1), L1Loss())


def test_the_best_epoch_has_the_lowest_mean_over_ages_of_the_mae():
    validation = AgeValidation(LabelBins([19.5, 20.5, 21.5, 22.5]))
    validation.update(torch.tensor([22.0, 24.0, 20.0]), torch.tensor([20.0, 20.0, 20.0]))
    validation.update(torch.tensor([30.0, 1.0]), torch.tensor([22.0, float("nan")]))
    values = validation.compute()
    assert values["val/mae"] == pytest.approx((2 + 4 + 0 + 8) / 4)
    assert values["val/bmae"] == pytest.approx(((2 + 4 + 0) / 3 + 8) / 2)
    validation.reset()
    assert validation.compute() == {}

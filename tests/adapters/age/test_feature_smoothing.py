"""FDS for ages: the published rows, and the features of the regressor's head."""

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset

from depthbal.adapters.age.application import AGE
from depthbal.adapters.age.model import AgeRegressor
from depthbal.adapters.age.task import AgeTask
from depthbal.errors import ConfigError
from depthbal.losses import L1Loss
from depthbal.training import FeatureSmoothing
from depthbal.training.settings import parsed_settings
from tests import reference

CONFIGS = Path(__file__).resolve().parents[3] / "configs" / "age"
WITH_FDS = ["fds", "lds_fds", "sqrt_inverse_fds", "rrt_fds", "rrt_lds_fds", "drawn/fds"]
EDGES = [9.5, 10.5, 11.5, 12.5]


def settings_of(name: str) -> dict:
    """All settings of a config; a re-training takes those of its base run first."""
    names = ["vanilla", name] if name.startswith("rrt") else [name]
    line = [part for n in names for part in ("--config", str(CONFIGS / f"{n}.yaml"))]
    return parsed_settings(AGE, line)


@pytest.mark.parametrize("name", WITH_FDS)
def test_the_rows_with_fds_smooth_as_published(name):
    settings = settings_of(name)
    callback = settings["trainer"]["callbacks"][0]
    assert callback["class_path"].endswith("FeatureSmoothing")
    kernel = {"kernel": "gaussian", "kernel_size": 5, "kernel_sigma": 2.0}
    published = {**kernel, "momentum": 0.9, "clip": [0.1, 10.0], "start_epoch": 1}
    assert {**callback["init_args"], **published} == callback["init_args"]
    if name.startswith("rrt"):
        assert settings["model"]["cache_features"] is False


@pytest.mark.parametrize(
    ("name", "loss", "arguments"),
    [
        ("inverse", "ReweightedLoss", {"weighting": "inverse", "clip": [5, 1000]}),
        ("sqrt_inverse", "ReweightedLoss", {"weighting": "sqrt_inverse", "clip": None}),
        ("sqrt_inverse_fds", "ReweightedLoss", {"weighting": "sqrt_inverse", "smoothing": None}),
        ("lds", "ReweightedLoss", {"weighting": "sqrt_inverse", "smoothing": "gaussian"}),
        ("lds_fds", "ReweightedLoss", {"weighting": "sqrt_inverse", "smoothing": "gaussian"}),
        ("focal_r", "FocalRLoss", {"beta": 0.2, "gamma": 1.0, "activation": "sigmoid"}),
        ("fds", "L1Loss", {}),
        ("rrt_fds", "L1Loss", {}),
        ("rrt_lds_fds", "ReweightedLoss", {"smoothing": "gaussian"}),
    ],
)
def test_the_rows_have_the_published_losses_of_absolute_errors(name, loss, arguments):
    criterion = settings_of(name)["model"]["criterion"]
    assert criterion["class_path"].endswith(loss)
    found = criterion.get("init_args") or {}
    assert found.get("error", "absolute") == "absolute"
    assert arguments.items() <= found.items()


class Faces(Dataset):
    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> dict:
        image = torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(index))
        return {"image": image + index % 3, "label": torch.tensor(10.0 + index % 3)}


class CachedFeatures(Faces):
    def __getitem__(self, index: int) -> dict:
        return {"features": torch.zeros(96), "label": torch.tensor(10.0)}


def fit(task, callback, data, epochs=1):
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[callback],
    )
    trainer.fit(task, DataLoader(data, batch_size=6))


def age_task() -> AgeTask:
    torch.manual_seed(0)
    model = AgeRegressor("test_resnet", library="timm")
    return AgeTask(model, L1Loss(label_range=(9.5, 12.5)))


def test_the_features_of_the_regressors_head_are_collected_per_age():
    task, fds = age_task(), FeatureSmoothing(edges=EDGES, clip=(0.1, 10.0))
    fit(task, fds, Faces())
    task.train()
    with torch.no_grad():  # as training sees them: by the batch's own statistics
        batches = [torch.stack([Faces()[i]["image"] for i in r]) for r in (range(6), range(6, 12))]
        rows = torch.cat([task.model.features(batch) for batch in batches]).double()
    bins = torch.tensor([i % 3 for i in range(12)])
    for bin_, (_, mean, variance) in enumerate(reference.fds_moments(rows, bins, 3)):
        torch.testing.assert_close(fds.smoothing.mean[bin_], mean, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(fds.smoothing.variance[bin_], variance, rtol=1e-4, atol=1e-7)


def test_batches_without_images_are_refused():
    with pytest.raises(ConfigError, match="batches of this training have features, label: give"):
        fit(age_task(), FeatureSmoothing(edges=EDGES), CachedFeatures())

"""Training a regressor of poses: the published loss values, what counts, and what stays frozen."""

import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import yaml

from depthbal.adapters.hmr.backbone import ResNet50Features, freeze
from depthbal.adapters.hmr.datamodule import HmrDataModule
from depthbal.adapters.hmr.layout import TRAINING
from depthbal.adapters.hmr.network import SpinNetwork
from depthbal.adapters.hmr.rotations import rotmats_of
from depthbal.adapters.hmr.synthetic import FEATURES, write_synthetic
from depthbal.adapters.hmr.task import ENTRIES, HmrTask, fit_pose_prior
from depthbal.errors import ConfigError, DataError
from depthbal.losses import BMCLoss, GAILoss, MSELoss
from depthbal.priors import GaussianMixture
from depthbal.training.configs import config_chain
from tests.training.helpers import CONFIGS

ROWS = {"mpi_inf_3dhp": 60, "coco": 100}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic(tmp_path_factory.mktemp("spin"), rows=ROWS, test_rows=40)


def data_in(root: Path, **options: Any) -> HmrDataModule:
    data = HmrDataModule(str(root), batch_size=16, num_workers=0, **options)
    data.setup("fit")
    return data


def preset(name: str) -> dict[str, Any]:
    """Return a preset's settings of the model, read as YAML alone."""
    model: dict[str, Any] = {}
    for file in config_chain(CONFIGS / "hmr" / f"{name}.yaml"):
        model |= yaml.safe_load(file.read_text())["model"]
    return model


# ---- the published recipe ----


@pytest.mark.parametrize(
    ("pred", "w_mse", "w_deb", "expected"),
    [(0.0, 1, 1, 0.0), (1.0, 1, 1, 0.5), (1.0, 2, 1, 1.5), (1.0, 1, 2, 0.0)],
)
@pytest.mark.parametrize("sigma", [1.0, 2.0])
def test_the_released_loss_has_its_published_values(
    pred: float, w_mse: float, w_deb: float, expected: float, sigma: float
) -> None:
    # MMHuman3D, tests/test_models/test_losses/test_balanced_mse_loss.py: shape (1, 3, 2)
    loss = BMCLoss(event_dim=1, mse_weight=2 * w_mse, balance_weight=w_deb, init_noise_sigma=sigma)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a batch with a single target
        value = loss(torch.full((1, 6), pred), torch.zeros(1, 6)) / (2 * 6)
    assert value.item() == pytest.approx(expected, abs=1e-6)


def test_the_preset_is_the_released_formula_of_weights_60_and_5() -> None:
    settings = preset("published")
    criterion = BMCLoss(**settings["criterion"]["init_args"])
    draw = torch.Generator().manual_seed(0)
    preds, target = (torch.randn(7, ENTRIES, generator=draw) for _ in range(2))
    var = torch.tensor(1.0)  # of the initial sigma
    apart = torch.cdist(preds.double(), target.double()).square()
    balance = torch.logsumexp(-apart / (2 * var), dim=1)
    released = (60 * apart.diagonal() / var + 5 * balance) / ENTRIES * var
    value = settings["pose_weight"] * criterion(preds, target) / ENTRIES
    lacking = 5 * var / ENTRIES * np.log(7)  # the released sum is no mean
    assert value.item() == pytest.approx((released.mean() - lacking).item(), rel=1e-5)
    assert settings["betas_weight"] == pytest.approx(60 * 0.001)


# ---- what counts ----


def batch_of(valid: list[bool], seed: int = 0) -> dict[str, torch.Tensor]:
    draw, count = torch.Generator().manual_seed(seed), len(valid)
    return {
        "input": torch.randn(count, FEATURES, generator=draw),
        "pose": 0.3 * torch.randn(count, 72, generator=draw),
        "betas": torch.randn(count, 10, generator=draw),
        "valid": torch.tensor(valid),
        "index": torch.arange(count),
    }


def network() -> SpinNetwork:
    torch.manual_seed(0)
    return SpinNetwork(features=FEATURES, dropout=0.0)


@pytest.mark.parametrize("criterion", [BMCLoss(event_dim=1), MSELoss(event_dim=1)])
def test_rows_without_a_body_are_neither_learned_from_nor_candidates(criterion: Any) -> None:
    task = HmrTask(network(), criterion)
    batch = batch_of([True, False, True, True])
    alone = {name: values[batch["valid"]] for name, values in batch.items()}
    changed = {**batch, "pose": batch["pose"].clone(), "betas": batch["betas"].clone()}
    changed["pose"][1], changed["betas"][1] = 2.0, torch.nan
    values = [task.compute_loss(b) for b in (batch, alone, changed)]
    torch.testing.assert_close(values[1], values[0])
    torch.testing.assert_close(values[2], values[0])


@pytest.mark.parametrize("name", ["mse", "paper", "published"])
def test_a_batch_without_bodies_is_zero_with_a_gradient_path(name: str) -> None:
    kinds = {"mse": MSELoss, "paper": GAILoss, "published": BMCLoss}
    criterion = kinds[name](**preset(name)["criterion"]["init_args"])
    if name == "paper":
        ones = np.ones((1, ENTRIES))
        criterion.set_prior(GaussianMixture([1.0], 0 * ones, ones))
    task = HmrTask(network(), criterion)
    loss = task.compute_loss(batch_of([False, False, False]))
    loss.backward()
    assert loss.item() == 0
    gradients = [p.grad for p in task.model.head.parameters() if p.grad is not None]
    assert gradients
    assert all((gradient == 0).all() for gradient in gradients)


def test_plain_training_minimises_spins_weighted_errors() -> None:
    task = HmrTask(network(), MSELoss(event_dim=1))
    batch = batch_of([True] * 4)
    preds = task.model(batch["input"])
    pose = (preds.rotmats - rotmats_of(batch["pose"])).square().mean()
    shape = (preds.betas - batch["betas"]).square().mean()
    torch.testing.assert_close(task.compute_loss(batch), pose + 0.001 * shape)


def test_a_loss_for_scalars_is_refused() -> None:
    with pytest.raises(ConfigError, match="event_dim 1"):
        HmrTask(network(), MSELoss())


# ---- the prior ----


def test_directions_in_which_poses_hardly_vary_are_pulled_by_the_preset() -> None:
    """The gradient along a dead direction is kept by the floor and by the surplus of the data."""
    settings = preset("paper")
    arguments = settings["criterion"]["init_args"] | {"init_noise_sigma": 0.2}
    draw = np.random.default_rng(0)
    labels = np.stack([draw.normal(size=500), 1e-4 * draw.normal(size=500)], axis=1)

    def pull(floor: float | None, **changes: Any) -> float:
        """Return the force towards the label off the labels' line, as a share of MSE's."""
        loss = GAILoss(**(arguments | changes))
        loss.set_prior(GaussianMixture.fit(labels, 1, covariance_type="diag", variance_floor=floor))
        preds = torch.tensor([[0.0, 0.5]], requires_grad=True)
        loss(preds, torch.zeros(1, 2)).backward()
        assert preds.grad is not None
        return float(preds.grad[0, 1]) / (2 * 0.5)

    var, floor = 0.2**2, settings["prior_floor"]
    assert pull(None, balance_weight=1.0) < 1e-3  # what a plain fit does: nothing
    assert pull(floor, balance_weight=1.0) == pytest.approx(floor / (floor + var), rel=1e-3)
    weight = arguments["balance_weight"]
    kept = 1 - weight * var / (floor + var)
    assert pull(floor) == pytest.approx(kept, rel=1e-3)
    assert kept > 0.2


def test_the_prior_is_that_of_the_rows_that_training_draws(root: Path) -> None:
    data = data_in(root, mixing="published")
    prior = fit_pose_prior(data, components=4, rows=3000)
    assert data.train_set is not None
    poses = rotmats_of(torch.from_numpy(data.train_set.people.pose)).flatten(1).double()
    group = data.train_set.people.group
    # published: .15 and .20 of 3DHP and COCO, renormalised, evenly within each
    weights = torch.from_numpy(
        np.where(
            group == "coco",
            0.20 / 0.35 / (group == "coco").sum(),
            0.15 / 0.35 / (group != "coco").sum(),
        )
    )
    mean = weights @ poses
    variance = weights @ (poses - mean).square()
    torch.testing.assert_close(prior.weights @ prior.means, mean, atol=2e-3, rtol=0)
    spread = prior.weights @ (prior.variances + (prior.means - mean).square())
    torch.testing.assert_close(spread, variance, atol=2e-3, rtol=0)
    assert prior.variances.shape == (4, ENTRIES)


def test_the_prior_has_no_variance_below_its_floor(root: Path) -> None:
    prior = fit_pose_prior(data_in(root), components=2, rows=500, floor=0.02)
    assert prior.variances.min() == 0.02


# ---- what stays ----


def trained(data: HmrDataModule, task: HmrTask) -> pl.Trainer:
    trainer = pl.Trainer(
        max_steps=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(task, datamodule=data)
    return trainer


def test_the_backbone_and_its_statistics_are_bit_identical_after_training_on_pictures(
    tmp_path: Path,
) -> None:
    root = write_synthetic(tmp_path, rows={"coco": 6}, test_rows=2)
    pixels = np.random.default_rng(0).integers(0, 256, (230, 230, 3), dtype=np.uint8)
    names = {"coco": np.load(root / TRAINING["coco"].rows)["imgname"].tolist()}
    names["3dpw"] = np.load(root / "dataset_extras" / "3dpw_test.npz")["imgname"].tolist()
    for folder, files in names.items():
        for name in files:
            path = root / "images" / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), pixels)
    for file in (root / "features").iterdir():
        file.unlink()
    data = HmrDataModule(str(root), augment=True, batch_size=2, num_workers=0, val_fraction=0.2)
    torch.manual_seed(0)
    torch.save({"model": ResNet50Features().state_dict()}, tmp_path / "spin_official_nofc.pth")
    model = SpinNetwork(str(tmp_path / "spin_official_nofc.pth"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trained(data, HmrTask(model, MSELoss(event_dim=1)))
    after = model.state_dict()
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert {name for name in before if name.startswith("backbone.")} <= same
    assert "head.decpose.weight" not in same
    assert "head.fc1.weight" not in same


def test_features_of_another_width_name_the_setting(root: Path) -> None:
    task = HmrTask(SpinNetwork(features=32), MSELoss(event_dim=1))
    with pytest.raises(ConfigError, match=r"init_args\.features 64"):
        task.check_data(data_in(root))
    with pytest.raises(ConfigError, match="augment true needs the backbone"):
        task.check_data(data_in(root, augment=True))
    task.model.backbone = freeze(ResNet50Features())
    with pytest.raises(ConfigError, match=r"64 numbers .* expects 32; delete the file .*weights"):
        task.check_data(data_in(root))
    task.model.features = 64
    with pytest.raises(
        DataError, match=r"100 of 100 pictures are missing: (\S+\.jpg, ){5}\.\.\.; "
    ):
        task.check_data(data_in(root, augment=True, datasets=["coco"]))


def test_training_starts_at_the_folders_mean_pose_and_writes_its_prior_into_the_loss(
    tmp_path: Path,
) -> None:
    root = write_synthetic(tmp_path, rows=ROWS, test_rows=10)
    mean = dict(np.load(root / "smpl_mean_params.npz"))
    mean["cam"] = np.array([0.8, 0.1, 0.2], np.float32)
    np.savez(root / "smpl_mean_params.npz", **mean)
    criterion = GAILoss(event_dim=1, n_components=3, noise="learned")
    task = HmrTask(network(), criterion, prior_rows=300)
    trained(HmrDataModule(str(root), batch_size=16, num_workers=0), task)
    assert task.model.head.init_cam.tolist() == [pytest.approx([0.8, 0.1, 0.2])]
    assert criterion.prior is not None
    assert criterion.prior.means.shape == (3, ENTRIES)
    assert task.histogram is not None
    assert len(task.histogram.counts) == 100

"""Training and scoring: the published loss, what counts, runs that open again."""

import json
import shutil
import statistics
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from depthbal import load_predictor
from depthbal.adapters.hmr import HmrDataModule, HmrTask, SpinNetwork
from depthbal.adapters.hmr.body import rotmats_of
from depthbal.adapters.hmr.files import read_people, rows_file
from depthbal.adapters.hmr.synthetic import FEATURES, write_people
from depthbal.adapters.hmr.task import fit_pose_prior
from depthbal.commands import main
from depthbal.errors import ConfigError
from depthbal.evaluation import Scores, balanced_errors
from depthbal.losses import BMCLoss, GAILoss, MSELoss
from depthbal.training.runs import open_run
from depthbal.training.settings import read_config

ENTRIES = 24 * 9


def preset(name):
    """Return the task's settings in a shipped config, and its criterion."""
    settings = read_config(f"hmr/{name}")["model"]["init_args"]
    kinds = {"MSELoss": MSELoss, "GAILoss": GAILoss, "BMCLoss": BMCLoss}
    kind = kinds[settings["criterion"]["class_path"].rpartition(".")[2]]
    return settings, kind(**settings["criterion"]["init_args"])


def batch_of(valid, seed=0):
    draw, count = torch.Generator().manual_seed(seed), len(valid)
    return {
        "features": torch.randn(count, FEATURES, generator=draw),
        "pose": 0.3 * torch.randn(count, 72, generator=draw),
        "betas": torch.randn(count, 10, generator=draw),
        "valid": torch.tensor(valid),
    }


def task_of(criterion):
    torch.manual_seed(0)
    return HmrTask(SpinNetwork(features=FEATURES, dropout=0.0), criterion)


def loss_of(task, batch):
    return task.training_loss(task.predict(batch), batch)


# ---- the loss ----


def test_the_preset_is_the_released_formula_of_weights_60_and_5():
    settings, criterion = preset("published")
    draw = torch.Generator().manual_seed(0)
    preds, target = (torch.randn(7, ENTRIES, generator=draw) for _ in range(2))
    var = 1.0  # of the initial sigma
    apart = torch.cdist(preds.double(), target.double()).square()
    balance = torch.logsumexp(-apart / (2 * var), dim=1)
    released = (60 * apart.diagonal() / var + 5 * balance) / ENTRIES * var
    value = settings["pose_weight"] * criterion(preds, target) / ENTRIES
    lacking = 5 * var / ENTRIES * np.log(7)  # the released sum is no mean
    assert value.item() == pytest.approx((released.mean() - lacking).item(), rel=1e-5)
    assert settings["betas_weight"] == pytest.approx(60 * 0.001)


def test_plain_training_minimises_spins_weighted_errors():
    task, batch = task_of(MSELoss(event_dim=1)), batch_of([True] * 4)
    preds = task.predict(batch)
    pose = (preds.rotmats - rotmats_of(batch["pose"])).square().mean()
    shape = (preds.betas - batch["betas"]).square().mean()
    torch.testing.assert_close(loss_of(task, batch), pose + 0.001 * shape)
    with pytest.raises(ConfigError, match="event_dim 1"):
        task_of(MSELoss())


@pytest.mark.parametrize("criterion", [BMCLoss(event_dim=1), MSELoss(event_dim=1)])
def test_rows_without_a_body_are_neither_learned_from_nor_candidates(criterion):
    task, batch = task_of(criterion), batch_of([True, False, True, True])
    alone = {name: values[batch["valid"]] for name, values in batch.items()}
    changed = {**batch, "pose": batch["pose"].clone(), "betas": batch["betas"].clone()}
    changed["pose"][1], changed["betas"][1] = 2.0, torch.nan
    values = [loss_of(task, b) for b in (batch, alone, changed)]
    torch.testing.assert_close(values[1], values[0])
    torch.testing.assert_close(values[2], values[0])


# ---- the prior ----


def test_the_prior_is_that_of_the_rows_that_training_draws(root):
    shares = {"mpi_inf_3dhp": 0.15, "coco": 0.2, "lsp": 0.0001}
    data = HmrDataModule(str(root), mixing=shares)
    data.setup("fit")
    prior = fit_pose_prior(data, components=4, rows=3000, floor=0.002)
    people = data.train_set.people
    poses = rotmats_of(torch.from_numpy(people["pose"])).flatten(1).double()
    sets = np.array([file.split("/")[-3] for file in people["file"].tolist()])
    weights = np.array([shares[name] / (sets == name).sum() for name in sets])
    weights = torch.from_numpy(weights / weights.sum())
    mean = weights @ poses
    torch.testing.assert_close(prior.weights @ prior.means, mean, atol=2e-3, rtol=0)
    assert prior.variances.shape == (4, ENTRIES)
    assert prior.variances.min() == 0.002


# ---- runs ----

SMALL = ["--model.prior_rows=200", "--data.num_workers=0", "--data.batch_size=8"]
SMALL += ["--trainer.accelerator=cpu", "--trainer.max_epochs=1"]


def run(root, out, *more, config="paper", features="--model.model.features=64"):
    line = ["--config", f"hmr/{config}", "--data.root", str(root), "--out", str(out), features]
    return main("train", [*line, *SMALL, *more])


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_a_run_is_trained_scored_opened_and_scored_again(root, tmp_path, capsys):
    out = tmp_path / "run"
    assert run(root, out, features="--model.model.features=32") == 2
    assert "features: set --model.model.features 64" in capsys.readouterr().err
    assert run(root, out, "--data.val_fraction=0.3") == 0, capsys.readouterr().err
    metrics = metrics_of(out)
    assert (metrics["overall"]["count"], len(metrics["bins"])) == (40, 100)
    protocol = metrics["protocol"]
    assert protocol["main_metric"] == "mpjpe"
    assert protocol["ground_truth"].startswith("gendered: 40 of 40 bodies by the model of their")
    scores = Scores.load(out)
    assert set(scores.groups) == {"sequence_000", "sequence_001"}
    errors = scores.sums().sum(1)[:, scores.terms.index("mpjpe")]
    for distance, block in metrics["balanced"].items():
        far = scores.column(distance)
        farthest = np.argsort(-far)[:4]
        assert block["mpjpe"]["tail10"] == pytest.approx(errors[farthest].mean())
        assert block["mpjpe"] == balanced_errors({"e": errors}, far, scores.groups)["e"]
    angles = np.linalg.norm(np.load(rows_file(root, "3dpw"))["pose"].reshape(40, 24, 3), axis=-1)
    # the mean pose is the rest pose: angles are lengths of the vectors
    np.testing.assert_allclose(scores.column("geodesic"), angles.mean(1), rtol=1e-4)
    assert "val/mpjpe_bins" in (out / "metrics.csv").read_text()
    prior = json.loads((out / "prior.json").read_text())
    assert prior["prior"]["kind"] == "GaussianMixture"
    assert main("evaluate", [str(out), "--checkpoint", "best"]) == 0, capsys.readouterr().err
    best = metrics_of(out / "eval" / "best")  # of the only epoch
    assert best["balanced"] == metrics["balanced"]
    task = open_run(out).task()
    assert isinstance(task, HmrTask)
    assert torch.equal(task.model.head.fc1.weight, load_predictor(out).model.head.fc1.weight)


def test_pictures_are_seen_by_a_frozen_backbone_whose_features_are_computed_once(
    tmp_path, checkpoint, capsys
):
    root = write_people(tmp_path / "few", rows={"lsp": 6}, test_rows=3)
    pixels = np.random.default_rng(0).integers(0, 256, (230, 230, 3), dtype=np.uint8)
    for name in ("lsp", "3dpw"):
        for file in read_people(root, name)["file"].tolist():
            Path(file).parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(file, pixels)
    shutil.rmtree(root / "features")
    line = ["--data.batch_size=3"]
    assert run(root, tmp_path / "run", *line) == 2
    assert "needs --model.model.weights" in capsys.readouterr().err
    pictures = {"config": "mse", "features": f"--model.model.weights={checkpoint}"}
    heads, before = [], torch.load(checkpoint, weights_only=True)["model"]
    for name, more in {"cached": [], "augmented": ["--data.augment=true"]}.items():
        out = tmp_path / name
        assert run(root, out, *line, *more, **pictures) == 0, capsys.readouterr().err
        found = torch.load(out / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        heads.append(found["model.head.fc1.weight"])
        for key, value in found.items():
            if key.startswith("model.backbone."):
                assert torch.equal(value, before[key.removeprefix("model.backbone.")]), key
    assert not torch.equal(*heads)
    assert metrics_of(tmp_path / "cached")["overall"]["count"] == 3
    found = load_predictor(tmp_path / "cached").outputs(pixels)
    assert {key: value.shape for key, value in found.items()} == {
        "rotmats": (24, 3, 3), "betas": (10,), "cam": (3,)
    }  # fmt: skip
    next((root / "images" / "lsp").rglob("*.jpg")).unlink()
    assert run(root, tmp_path / "none", *line, **pictures) == 2
    assert "1 of 6 pictures are missing" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


# ---- the claim of the demonstration, on less data ----


def tail_error(root, criterion, seed):
    """Train with a plain loop and return the mean MPJPE of the farthest 10 % of the test poses."""
    data = HmrDataModule(str(root), batch_size=32, num_workers=0, seed=seed, val_fraction=0.0)
    data.setup("fit")
    task = task_of(criterion)
    task.model.head.iterations = 1  # affine all the same, and three times as fast
    if isinstance(criterion, GAILoss):
        criterion.set_prior(fit_pose_prior(data, components=8, rows=500, floor=1e-2))
    groups = [{"params": task.model.parameters(), "lr": 1e-3}]
    groups += [{"params": criterion.noise_parameters(), "lr": 3e-2}]
    optimizer = torch.optim.Adam([group for group in groups if group["params"]])
    loader = data.train_dataloader()
    for epoch in range(6):
        loader.sampler.set_epoch(epoch)
        for batch in loader:
            optimizer.zero_grad()
            loss_of(task, batch).backward()
            optimizer.step()
    task.eval()
    scores = task.make_scores(data, "test")
    with torch.inference_mode():
        for batch in data.test_dataloader():
            task.score(batch, scores)
    scores.compute()
    return task.result(scores)["balanced"]["vertex"]["mpjpe"]["tail10"]


def test_gai_lowers_the_error_of_the_farthest_tenth_in_the_median_of_five_seeds(tmp_path):
    ratios = []
    for seed in range(5):
        root = write_people(tmp_path / str(seed), seed, rows={"coco": 400}, test_rows=300)
        gai = GAILoss(
            event_dim=1, noise="learned", init_noise_sigma=0.3, mse_weight=1, balance_weight=0.95
        )
        ratios.append(tail_error(root, gai, seed) / tail_error(root, MSELoss(event_dim=1), seed))
    assert statistics.median(ratios) < 0.95, ratios

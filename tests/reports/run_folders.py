"""Run folders as a training and an evaluation leave them, made in milliseconds."""

import json
import warnings

import numpy as np
import torch
import yaml

from depthbal.evaluation import (
    LABEL_TERMS,
    DepthBins,
    Evaluation,
    Label,
    LabelBins,
    SampleEvaluation,
    balanced_mask,
)
from depthbal.priors import GaussianMixture, Histogram
from depthbal.io import write_json

BINS = DepthBins(np.arange(11.0), ["many"] * 4 + ["medium"] * 2 + ["few"] * 4)
READOUTS = ("raw", "clamped")


def depths(images=40, seed=0):
    """Return (images, 1, 8, 8) metres, mostly near."""
    rng = np.random.default_rng(seed)
    far = rng.uniform(1, 10, (images, 1, 1, 1))
    maps = np.minimum(far * rng.random((images, 1, 8, 8)) + 0.3, 9.9)
    return torch.from_numpy(maps.astype(np.float32))


def settings(seed=0, lr=0.1, sigma=None):
    loss = {"class_path": "depthbal.losses.MSELoss", "init_args": {"label_range": [0.7, 10.0]}}
    if sigma is not None:
        arguments = {"init_noise_sigma": sigma, "noise": "fixed"}
        loss = {"class_path": "depthbal.losses.GAILoss", "init_args": arguments}
    return {
        "seed_everything": seed,
        "model": {"criterion": loss, "noise_lr": lr},
        "data": {"class_path": "Rooms", "init_args": {"seed": seed, "size": [8, 8]}},
    }


def make_run(
    path,
    bias=0.1,
    *,
    seed=0,
    lr=0.1,
    sigma=None,
    target=None,
    bins=BINS,
    mask_seed=0,
    posthoc=(),
    prefix="test",
    protocol=None,
    interval=False,
    preds=None,
):
    """Write a run folder whose network errs by ``bias`` metres, or gives ``preds``; return it."""
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump(settings(seed, lr, sigma)))
    write_json(path / "versions.json", {"depthbal": "0.1.0", "seed": seed})
    curves = "epoch,step,train/loss_step,val/rmse\n0,9,1.5,\n0,9,,2.5\n1,19,0.5,\n1,19,,nan\n"
    (path / "metrics.csv").write_text(curves)
    Histogram(np.arange(11.0), np.arange(10.0, 0.0, -1.0)).save(path / "histogram.json")
    if sigma is not None:
        GaussianMixture([1.0, 2.0], [2.0, 5.0], [1.0, 1.0]).save(path / "prior.json")
    evaluate(path, bias, target, bins, mask_seed, prefix, protocol, None, interval, preds)
    for value in posthoc:
        evaluate(path, bias / 2, target, bins, mask_seed, prefix, protocol, value, interval)
    return path


def evaluate(
    path, bias, target, bins, mask_seed, prefix, protocol, posthoc, interval=False, preds=None
):
    target = depths() if target is None else target
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of bins with few pixels
        mask = balanced_mask(list(target), bins, mask_seed)
    facts = {"name": "nyud2_dir", "checkpoint": "last", "epochs": 2, "mask": mask.describe()}
    facts["data"] = {"source": "made up", "min_depth": 0.7, "max_depth": 10.0}
    if posthoc is not None:
        facts["posthoc"] = {"noise_sigma": posthoc}
    evaluation = Evaluation(bins, READOUTS, "clamped", {**facts, **(protocol or {})})
    noise = torch.randn(target.shape, generator=torch.Generator().manual_seed(1)) * 0.2
    preds = target + bias + noise if preds is None else preds
    evaluation.update(
        {"raw": preds, "clamped": preds.clamp(0.7, 10)},
        target,
        target > 0,
        torch.from_numpy(np.stack(list(mask.mask)))[:, None],
        [f"{prefix}/{i}" for i in range(len(target))],
        **({"interval": (preds - 0.2, preds + 0.2)} if interval else {}),
    )
    suffix = "" if posthoc is None else f"_posthoc_{posthoc:g}"
    write_json(path / f"metrics{suffix}.json", evaluation.result())
    np.savez_compressed(path / f"per_image{suffix}.npz", **evaluation.per_image())


def make_age_run(path, spread, people=100):
    """Write a run folder of ages: one number per image, no balanced mask, two images a person."""
    write_json(path / "versions.json", {"depthbal": "0.1.0", "seed": 0})
    (path / "config.yaml").write_text(yaml.safe_dump({"seed_everything": 0, "spread": spread}))
    rng = np.random.default_rng(0)
    ages = rng.integers(0, 80, 2 * people)
    preds = torch.from_numpy(ages + rng.normal(0, spread, len(ages))).float()
    evaluation = Evaluation(
        LabelBins.from_counts(np.arange(81.0), np.arange(80, 0, -1), 50, 20),
        ("clamped",),
        "clamped",
        {"name": "age", "epochs": 1},
        terms=LABEL_TERMS,
        label=Label("age", "years"),
        main_metric="mae",
    )
    groups = [f"person {i // 2}" for i in range(len(ages))]
    evaluation.update({"clamped": preds}, torch.from_numpy(ages).float(), groups=groups)
    return _save(path, evaluation)


def make_pose_run(path, scale, samples=60):
    """Write a run folder of errors that were computed elsewhere, by distance to the mean pose."""
    write_json(path / "versions.json", {"depthbal": "0.1.0", "seed": 0})
    (path / "config.yaml").write_text(yaml.safe_dump({"seed_everything": 0, "scale": scale}))
    rng = np.random.default_rng(0)
    distance = rng.uniform(0, 400, samples)
    evaluation = SampleEvaluation(
        LabelBins(np.arange(0, 405.0, 5.0), ["many"] * 40 + ["few"] * 40),
        ("mpjpe", "pa_mpjpe"),
        {"name": "poses", "epochs": 1},
        Label("distance to the mean pose", "mm"),
    )
    errors = {name: scale * rng.uniform(50, 90, samples) for name in ("mpjpe", "pa_mpjpe")}
    tensors = {name: torch.from_numpy(error) for name, error in errors.items()}
    evaluation.update(tensors, torch.from_numpy(distance), groups=[str(i) for i in range(samples)])
    return _save(path, evaluation)


def _save(path, evaluation):
    write_json(path / "metrics.json", evaluation.result())
    evaluation.save_per_image(path / "per_image.npz")
    return path


def add_examples(path, count=3):
    """Write examples.npz of an evaluation."""
    rng = np.random.default_rng(0)
    arrays = {
        "index": np.arange(count),
        "name": np.array([f"test/{i}" for i in range(count)]),
        "reason": np.array(["best", "worst", "rare"] * 20)[:count],
        "rmse": rng.random(count),
    }
    for i in range(count):
        arrays[f"image_{i:02d}"] = rng.integers(0, 255, (6, 8, 3)).astype(np.uint8)
        arrays[f"truth_{i:02d}"] = rng.random((6, 8)).astype(np.float32)
        arrays[f"pred_{i:02d}"] = rng.random((6, 8)).astype(np.float32)
    np.savez_compressed(path / "examples.npz", **arrays)


def change_json(path, change):
    """Rewrite a JSON file by a function that changes its content."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def change_npz(path, **changes):
    """Rewrite arrays of an npz file; None removes one."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    arrays |= changes
    np.savez_compressed(path, **{name: a for name, a in arrays.items() if a is not None})

"""Results with everything that a page can show, made of drawn numbers."""

import base64
import gzip
import json
import re
from dataclasses import replace

import numpy as np
import torch

from depthbal.evaluation import DepthBins, Label, LabelBins, binned_sums
from depthbal.evaluation.terms import LABEL_TERMS, TERMS
from depthbal.priors import GaussianMixture, Histogram
from depthbal.reports.results import Example
from tests.reports.in_memory import result_of

EDGES = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
SHOTS = ["many", "many", "medium", "few", "few"]
DEPTH_BINS = DepthBins(EDGES, SHOTS, shot_rule="drawn")
AGE_BINS = LabelBins(EDGES, SHOTS, shot_rule="drawn")


def drawn(images: int, seed: int, noise: float, pixels: int = 40):
    """Return preds, truths and mask (images, pixels); only 6 images reach the last bin."""
    random = np.random.default_rng(seed)
    truth = random.uniform(0.05, 4.0, (images, pixels))
    truth[:6, :5] = random.uniform(4.0, 4.99, truth[:6, :5].shape)
    preds = np.maximum(truth * 0.9 + random.normal(0.0, noise, truth.shape) + 0.2, 0.01)
    mask = random.random(truth.shape) < 0.3
    return (torch.tensor(array) for array in (preds, truth, mask))


def depth_result(name="run", seed=0, noise=0.3, images=40, **changes):
    """Return a depth result with all optional parts."""
    preds, truth, mask = drawn(images, seed=100, noise=noise)
    sums = binned_sums(preds, truth, None, DEPTH_BINS, TERMS).numpy()
    on_mask = binned_sums(preds, truth, mask, DEPTH_BINS, TERMS).numpy()
    result = result_of(
        sums,
        DEPTH_BINS,
        TERMS,
        mask=on_mask,
        name=name,
        seed=seed,
        main_metric="rmse",
        config="model:\n  name: made up\n",
        protocol={"data": {"source": "drawn numbers"}},
    )
    joint, _, _ = np.histogram2d(
        truth.numpy().ravel(), preds.numpy().ravel(), [EDGES, [-99, *EDGES, 99]]
    )
    covered = np.stack([sums[:, :, 0].sum(0) * 0.6, sums[:, :, 0].sum(0)], axis=1)
    rows = {shot: {"coverage": 0.6, "count": 100} for shot in ("overall", "many", "medium", "few")}
    steps = np.arange(1.0, 9.0)
    return replace(
        result,
        metrics={
            **result.metrics,
            "calibration": {"level": 0.6827, "interval": "central", "mask": rows, "all": rows},
        },
        joint={("all", "raw"): joint.astype(np.int64)},
        coverage={"all": covered},
        curves={
            "train/loss_epoch": (steps, 1 / steps),
            "val/rmse": (steps, 2 / steps),
            "train/noise_sigma": (steps, 1 - steps / 20),
        },
        histogram=Histogram(EDGES, [50, 40, 6, 3, 1]),
        prior=GaussianMixture([0.7, 0.3], [1.0, 2.0], [0.5, 1.0]),
        versions={"depthbal": "0", "seed": seed, "data": {"fingerprint": "c0ffee"}},
        examples=tuple(example(k, reason) for k, reason in enumerate(("best", "worst", "rare"))),
        noise_sigma=0.6,
        **changes,
    )


def example(index: int, reason: str, height: int = 6, width: int = 8) -> Example:
    random = np.random.default_rng(index)
    truth = random.uniform(0.5, 4.0, (height, width)).astype(np.float32)
    truth[0, 0] = 0
    return Example(
        name=f"image {index}",
        reason=reason,
        rmse=0.1 * index,
        index=index,
        image=random.integers(0, 256, (height, width, 3), dtype=np.uint8),
        truth=truth,
        pred=truth + np.float32(0.5),
    )


def age_result(name="ages", images=60, noise=0.5):
    """Return a result of one label per image: no mask, no read-outs, no pictures."""
    preds, truth, _ = drawn(images, seed=3, noise=noise, pixels=1)
    sums = binned_sums(preds, truth, None, AGE_BINS, LABEL_TERMS).numpy()
    return result_of(
        sums,
        AGE_BINS,
        LABEL_TERMS,
        name=name,
        main_metric="mae",
        label=Label("age", "years"),
    )


def pose_result(name="poses", error=60.0):
    """Return a result of errors that were computed elsewhere, by a label with a long name."""
    return result_of(
        np.ones((40, 5, 2)) * [1.0, error],
        AGE_BINS,
        ("count", "mpjpe"),
        name=name,
        main_metric="mpjpe",
        label=Label("distance to the mean pose", "mm"),
    )


def unmasked(result, number: int, images: int):
    """Return a result whose mask has no pixel of a bin in the first images."""
    masked = result.sums["mask", "raw"].copy()
    masked[:images, number] = 0
    sums = {**result.sums, ("mask", "raw"): masked}
    return replace(result, sums=sums, pooled={key: part.sum(0) for key, part in sums.items()})


def page_data(html: str):
    """Return the numbers that a page carries for its figures."""
    packed = re.search(r'id="packed-data">([^<]*)<', html).group(1)
    return json.loads(gzip.decompress(base64.b64decode(packed)))

"""Results in memory and run folders, made of drawn numbers in milliseconds."""

import base64
import gzip
import json
import re
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import yaml

from depthbal.evaluation import (
    DEPTH,
    LABEL_TERMS,
    TERMS,
    DepthBins,
    Label,
    LabelBins,
    Scores,
    balanced_mask,
)
from depthbal.io import write_json
from depthbal.priors import GaussianMixture, Histogram
from depthbal.reports import Example, Result, compare
from tests.evaluation.helpers import sums_of

EDGES = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
SHOTS = ["many", "many", "medium", "few", "few"]
DEPTH_BINS = DepthBins(EDGES, SHOTS, shot_rule="drawn")
AGE_BINS = LabelBins(EDGES, SHOTS, shot_rule="drawn")


def report_of(*results, resamples=100):
    """Return the report of results, compared where they are several."""
    return compare(results, resamples)


# ---- in memory ----


def scores_of(sums, bins, terms, main="raw", joint=None, coverage=None, groups=None, **options):
    """Return scores of {(subset, read-out): (images, bins, terms)}."""
    readouts = tuple(dict.fromkeys(readout for _, readout in sums))
    subsets = [subset for subset in dict.fromkeys(s for s, _ in sums) if subset != "all"]
    images = len(next(iter(sums.values())))
    scores = Scores(bins, readouts, main, terms=terms, subsets=subsets, **options)
    table = {"names": np.array([f"{i:05d}" for i in range(images)])}
    table["groups"] = np.array([""] * images if groups is None else groups, dtype=np.str_)
    for subset in scores.subsets:
        filled = sums[subset, main][..., list(terms).index("count")] > 0
        table[f"lengths_{subset}"] = filled.sum(1)
        table[f"cells_{subset}"] = filled.nonzero()[1]
        table[f"coverage_{subset}"] = np.zeros((len(bins), 2)) if coverage is None else coverage
        for readout in readouts:
            table[f"sums_{subset}_{readout}"] = np.asarray(sums[subset, readout], float)[filled]
            empty = np.zeros((len(bins), len(bins) + 2), dtype=np.int64)
            table[f"joint_{subset}_{readout}"] = empty if joint is None else joint
    scores._table, scores._batches = table, images
    return scores


def result_of(
    sums,
    bins,
    terms=("count", "loss"),
    *,
    mask=None,
    name="run",
    method=None,
    seed=0,
    main_metric="loss",
    label=DEPTH,
    config="",
    protocol=None,
    **tables,
):
    """Return a result of (images, bins, terms) sums, and of others on a balanced mask."""
    stored = {} if mask is None else {("mask", "raw"): mask}
    stored["all", "raw"] = sums
    tables |= {"main_metric": main_metric, "label": label, "protocol": protocol}
    scores = scores_of(stored, bins, terms, **tables)
    path = Path("/nowhere") / name
    settings = {"method": method or name}
    return Result(name, scores, path, path, config=config, settings=settings, seed=seed)


def with_sums(result, sums, main=None):
    """Return a result of other sums, {(subset, read-out): sums}."""
    old = result.scores
    scores = scores_of(
        sums,
        old.bins,
        old.terms,
        main or old.main,
        old.joint("all") if old.joint("all").any() else None,
        old.coverage("all"),
        old.groups,
        main_metric=old.main_metric,
        label=old.label,
        protocol=old.given,
    )
    return replace(result, scores=scores)


def read_as_mean(result, factor=1.0):
    """Return a result whose main read-out is a mean; its errors are those of "raw" by a factor."""
    scores = result.scores
    by = {"raw": 1.0, "mean": np.where(np.array(scores.terms) == "count", 1.0, factor)}
    sums = {(s, r): scores.sums(s) * f for s in scores.subsets for r, f in by.items()}
    return with_sums(result, sums, main="mean")


def drawn(images, seed, noise, pixels=40):
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
    sums = sums_of(preds, truth, None, DEPTH_BINS)
    joint, _, _ = np.histogram2d(
        truth.numpy().ravel(), preds.numpy().ravel(), [EDGES, [-99, *EDGES, 99]]
    )
    result = result_of(
        sums,
        DEPTH_BINS,
        TERMS,
        mask=sums_of(preds, truth, mask, DEPTH_BINS),
        name=name,
        seed=seed,
        method=changes.pop("method", None),
        main_metric="rmse",
        config="model:\n  name: made up\n",
        protocol={
            "name": "made up",
            "data": {"source": "drawn numbers"},
            "noise_sigma": 0.6,
            **changes.pop("protocol", {}),
        },
        joint=joint.astype(np.int64),
        coverage=np.stack([sums[:, :, 0].sum(0) * 0.6, sums[:, :, 0].sum(0)], axis=1),
    )
    steps = np.arange(1.0, 9.0)
    parts = {
        "curves": {
            "train/loss_epoch": (steps, 1 / steps),
            "val/rmse": (steps, 2 / steps),
            "train/noise_sigma": (steps, 1 - steps / 20),
        },
        "histogram": Histogram(EDGES, [50, 40, 6, 3, 1]),
        "prior": GaussianMixture([0.7, 0.3], [1.0, 2.0], [0.5, 1.0]),
        "record": {"depthbal": "0", "seed": seed, "data": {"fingerprint": "c0ffee"}},
        "examples": tuple(example(k, r) for k, r in enumerate(("best", "worst", "rare"))),
    }
    return replace(result, **(parts | changes))


def example(index, reason, height=6, width=8):
    random = np.random.default_rng(index)
    truth = random.uniform(0.5, 4.0, (height, width)).astype(np.float32)
    truth[0, 0] = 0
    image = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    pred = truth + np.float32(0.5)
    return Example(f"image {index}", reason, 0.1 * index, index, image, truth, pred)


def age_result(name="ages", images=60, noise=0.5):
    """Return a result of one label per image: no mask, no read-outs, no pictures."""
    preds, truth, _ = drawn(images, seed=3, noise=noise, pixels=1)
    sums = sums_of(preds, truth, None, AGE_BINS, LABEL_TERMS)
    label = Label("age", "years")
    return result_of(sums, AGE_BINS, LABEL_TERMS, name=name, main_metric="mae", label=label)


def pose_result(name="poses", error=60.0, **options):
    """Return a result of errors that were computed elsewhere, by a label with a long name."""
    sums, terms = np.ones((40, 5, 2)) * [1.0, error], ("count", "epe")
    label = Label("distance to the mean pose", "mm")
    return result_of(sums, AGE_BINS, terms, name=name, main_metric="epe", label=label, **options)


def emptied(result, number, images=None, subsets=("mask", "all")):
    """Return a result with no pixel of a bin in the first images of some subsets."""
    sums = {(subset, "raw"): result.scores.sums(subset) for subset in result.scores.subsets}
    for subset in subsets:
        sums[subset, "raw"][:images, number] = 0
    return with_sums(result, sums)


def page_data(html):
    """Return the numbers that a page carries for its figures."""
    packed = re.search(r'id="packed-data">([^<]*)<', html).group(1)
    return json.loads(gzip.decompress(base64.b64decode(packed)))


# ---- run folders ----

RUN_BINS = DepthBins(np.arange(11.0), ["many"] * 4 + ["medium"] * 2 + ["few"] * 4)


def depths(images=40, seed=0):
    """Return (images, 1, 8, 8) metres, mostly near."""
    rng = np.random.default_rng(seed)
    far = rng.uniform(1, 10, (images, 1, 1, 1))
    maps = np.minimum(far * rng.random((images, 1, 8, 8)) + 0.3, 9.9)
    return torch.from_numpy(maps.astype(np.float32))


def make_run(
    path,
    bias=0.1,
    *,
    seed=0,
    lr=0.1,
    sigma=None,
    posthoc=(),
    weights=None,
    examples=0,
    **evaluation,
):
    """Write a run folder whose network errs by ``bias`` metres; return it."""
    loss = {"class_path": "GAILoss", "init_args": {"init_noise_sigma": sigma}}
    task = {"criterion": loss if sigma else "MSELoss", "noise_lr": lr, "weights_from": weights}
    settings = {
        "seed_everything": seed,
        "model": {"class_path": "Task", "init_args": task},
        "data": {"class_path": "Rooms", "init_args": {"seed": seed, "size": [8, 8]}},
    }
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump(settings))
    write_json(path / "run.json", {"depthbal": "0.1.0", "seed": seed})
    curves = "epoch,step,train/loss_step,val/rmse\n0,9,1.5,\n0,9,,2.5\n1,19,0.5,\n1,19,,nan\n"
    (path / "metrics.csv").write_text(curves)
    histogram = Histogram(np.arange(11.0), np.arange(10.0, 0.0, -1.0))
    prior = GaussianMixture([1.0, 2.0], [2.0, 5.0], [1.0, 1.0]).to_dict() if sigma else None
    write_json(path / "prior.json", {"histogram": histogram.to_dict(), "prior": prior})
    evaluate(path, bias, {"noise_sigma": sigma} if sigma else {}, **evaluation)
    for value in posthoc:
        facts = {"posthoc": {"noise_sigma": value}}
        evaluate(path / "eval" / f"posthoc_{value:g}", bias / 2, facts, **evaluation)
    if examples:
        found = [example(i, ("best", "worst", "rare")[i % 3]) for i in range(examples)]
        arrays = {n: [getattr(e, n) for e in found] for n in ("index", "name", "reason", "rmse")}
        for i, one in enumerate(found):
            arrays |= {f"{part}_{i:02d}": getattr(one, part) for part in ("image", "truth", "pred")}
        np.savez_compressed(path / "examples.npz", **arrays)
    return path


def evaluate(
    path, bias, facts, target=None, bins=RUN_BINS, mask_seed=0, prefix="test", protocol=(), **given
):
    """Write the scores of predictions that err by ``bias``; True for ``interval`` gives those."""
    target = depths() if target is None else target
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of bins with few pixels
        mask = balanced_mask(list(target), bins, mask_seed)
    facts |= {"name": "nyud2_dir", "checkpoint": "last", "epochs": 2, "mask": mask.describe()}
    facts["data"] = {"source": "made up", "depth_range": [0.7, 10.0]}
    options = {"label": given.get("label", DEPTH), "main_metric": given.get("main", "rmse")}
    options |= {"subsets": ("mask",), "protocol": facts | dict(protocol)}
    scores = Scores(bins, ("raw", "clamped"), "clamped", **options)
    noise = torch.randn(target.shape, generator=torch.Generator().manual_seed(1)) * 0.2
    preds = target + bias + noise
    scores.update(
        {"raw": preds, "clamped": preds.clamp(0.7, 10)},
        target,
        target > 0,
        [f"{prefix}/{i}" for i in range(len(target))],
        given.get("groups"),
        (preds - 0.2, preds + 0.2) if given.get("interval") else None,
        subsets={"mask": torch.from_numpy(np.stack(list(mask.mask)))[:, None]},
    )
    scores.save(path)

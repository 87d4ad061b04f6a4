"""Results and runs made up for tests."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from depthbal.evaluation import DEPTH, Label, LabelBins, summarise
from depthbal.reports.results import RunResult


def result_of(
    sums,
    bins: LabelBins,
    terms=("count", "loss"),
    *,
    mask=None,
    name="run",
    groups=None,
    names=None,
    method=None,
    seed=0,
    main_metric="loss",
    label: Label = DEPTH,
    config="",
    protocol=None,
) -> RunResult:
    """Return a result of (images, bins, terms) sums, and of others on a balanced mask."""
    images = len(sums)
    stored = {("all", "raw"): np.asarray(sums, dtype=np.float64)}
    if mask is not None:
        stored = {("mask", "raw"): np.asarray(mask, dtype=np.float64), **stored}
    blocks = {key: summarise(torch.as_tensor(value), bins, terms) for key, value in stored.items()}
    top = blocks[next(iter(blocks))]
    metrics = {"protocol": {"name": "made up", **(protocol or {})}, **top}
    if mask is not None:
        metrics["all_pixels"] = blocks["all", "raw"]
    return RunResult(
        name=name,
        path=Path("/nowhere") / name,
        file=Path("/nowhere") / name / "metrics.json",
        metrics=metrics,
        sums=stored,
        pooled={key: value.sum(0) for key, value in stored.items()},
        counts=stored["all", "raw"][..., list(terms).index("count")],
        joint={},
        coverage={},
        terms=tuple(terms),
        bins=bins,
        names=tuple(names or (f"{i:05d}" for i in range(images))),
        groups=tuple(groups if groups is not None else [""] * images),
        main="raw",
        label=label,
        main_metric=main_metric,
        curves={},
        histogram=None,
        prior=None,
        config=config,
        versions={},
        examples=(),
        method=method or name,
        seed=seed,
        noise_sigma=None,
        posthoc=False,
        gaps=(),
    )


def read_as_mean(result: RunResult, factor=1.0) -> RunResult:
    """Return a result whose main read-out is a mean; its errors are those of "raw" by a factor."""
    sums = {**result.sums}
    for (subset, _), values in result.sums.items():
        sums[subset, "mean"] = values * np.where(np.array(result.terms) == "count", 1.0, factor)
    pooled = {key: values.sum(0) for key, values in sums.items()}
    top = summarise(torch.as_tensor(sums[result.headline, "mean"]), result.bins, result.terms)
    return replace(result, main="mean", sums=sums, pooled=pooled, metrics={**result.metrics, **top})

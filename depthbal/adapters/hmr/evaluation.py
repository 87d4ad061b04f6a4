"""Scoring a re-trained SPIN on the test set: plain and balanced errors, by both distances."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from depthbal.adapters.hmr.datamodule import HmrDataModule
from depthbal.adapters.hmr.distance import balanced_error
from depthbal.adapters.hmr.layout import TEST
from depthbal.adapters.hmr.network import SpinNetwork
from depthbal.adapters.hmr.rotations import rotmats_of
from depthbal.checkpoint import read_checkpoint
from depthbal.errors import RunFolderError
from depthbal.evaluation import Label, LabelBins, SampleEvaluation
from depthbal.models.weights import load_exactly
from depthbal.priors import Histogram
from depthbal.priors.files import write_json
from depthbal.rebuilding import part_of_state
from depthbal.training.noise_values import noise_facts
from depthbal.training.regression_task import RegressionTask
from depthbal.training.runs import CheckpointName, RunFolder

ERRORS = ("mpjpe", "pa_mpjpe", "mpvpe")
LABEL = Label("distance to the mean pose", "mm")
MANY_SHARE, FEW_SHARE = 0.0074, 0.00285
"""A region with more, or fewer, of the training bodies is many-shot, or few-shot, as for depth."""


def evaluate_trained(
    run: RunFolder,
    task: RegressionTask,
    data: HmrDataModule,
    checkpoint: CheckpointName,
    device: str | torch.device,
) -> dict[str, Any]:
    """Score a checkpoint with the objects of its training; write and return the result."""
    path = run.require_checkpoint(checkpoint)
    content = read_checkpoint(path)
    network = cast(SpinNetwork, task.model)
    load_exactly(network, part_of_state(content["state_dict"], "model."), str(path))
    facts = {
        "name": TEST.name,
        "checkpoint": checkpoint,
        "epochs": int(content["epoch"]) + 1,
        **noise_facts(task.criterion),
    }
    if data.test_set is not None and data.test_set.features is None:
        data.use_backbone(network.backbone, device)
    return evaluate_network(run, network, data, facts, device)


@torch.inference_mode()
def evaluate_network(
    run: RunFolder,
    network: SpinNetwork,
    data: HmrDataModule,
    facts: dict[str, Any],
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """Score a network on the test set and write metrics.json and per_image.npz into its run folder.

    Beside what `SampleEvaluation` gives, "balanced" holds, for either distance and every error,
    the mean over 100 bins and those of the farthest 10 and 5 % of the samples with intervals, and
    how many samples each bin has.

    Args:
        run: The run folder, whose histogram.json says which regions are rare in training.
        network: The trained network.
        data: Set up, with features or pictures.
        facts: For the protocol.
        device: Where to compute.

    Returns:
        The content of metrics.json.

    Raises:
        RunFolderError: The run has no histogram.
        DataError: A body model or the joint regressor is missing.
    """
    evaluation = SampleEvaluation(run_bins(run), ERRORS, facts | _protocol(data), LABEL, "mpjpe")
    measure = data.measure().to(device)
    network = network.to(device).eval()
    assert data.test_set is not None
    files = data.test_set.people.files
    kept: list[dict[str, Tensor]] = []
    for batch in track(data.test_dataloader(), "Evaluating", transient=True):
        preds = network(batch["input"].to(device))
        truth = rotmats_of(batch["pose"]).to(device), batch["betas"].to(device)
        errors, distances = measure((preds.rotmats, preds.betas), truth, batch["gender"].to(device))
        names = files[batch["index"].numpy()].tolist()
        evaluation.update(errors, distances.vertex, names, [sequence_of(name) for name in names])
        kept.append({**errors, **distances._asdict()})
    columns = {name: torch.cat([part[name] for part in kept]).cpu().numpy() for name in kept[0]}
    metrics = {**evaluation.result(), "balanced": balanced(columns, evaluation.groups)}
    checkpoint = facts.get("checkpoint", "last")
    write_json(run.metrics(checkpoint=checkpoint), metrics)
    evaluation.save_per_image(run.per_image(checkpoint=checkpoint))
    return metrics


def sequence_of(picture: str) -> str:
    """Return the name of a picture's folder, which is that of the video it is a frame of."""
    return Path(picture).parent.name


def balanced(columns: dict[str, Any], sequences: Any = None) -> dict[str, Any]:
    """Return the balanced errors by both distances, JSON-able.

    Args:
        columns: ``mpjpe``, ``pa_mpjpe``, ``mpvpe`` in mm, ``vertex`` in mm and ``geodesic`` in
            radians, (N,) each.
        sequences: (N,) whose samples resemble each other; None or a single one takes all samples
            for independent.
    """
    several = sequences is not None and len(np.unique(sequences)) > 1
    groups = sequences if several else None
    described: dict[str, Any] = {}
    for distance in ("vertex", "geodesic"):
        far = columns[distance]
        results = {name: balanced_error(columns[name], far, groups=groups) for name in ERRORS}
        first = results[ERRORS[0]]
        described[distance] = {
            "unit": "mm" if distance == "vertex" else "radians, mean over 24 joints",
            "bins": len(first.counts),
            "bins_used": first.bins_used,
            "counts": first.counts.tolist(),
            "edges": first.edges.tolist(),
            "independent": "sequences" if several else "samples",
        }
        for name, result in results.items():
            ends = result.intervals.items()
            intervals = {key: [_number(end) for end in pair] for key, pair in ends}
            values = {key: _number(value) for key, value in result.values.items()}
            described[distance][name] = {**values, "intervals_95": intervals}
    return described


def run_bins(run: RunFolder) -> LabelBins:
    """Return the 100 regions of the training bodies' distance to the mean pose, with shots.

    Raises:
        RunFolderError: The run has no histogram.
    """
    if not run.histogram.is_file():
        raise RunFolderError(f"{run.path} lacks histogram.json, which defines its regions")
    histogram = Histogram.load(run.histogram)
    shares = histogram.counts / histogram.total
    rule = f"many above {MANY_SHARE:.3%} of all training bodies, few below {FEW_SHARE:.3%}"
    return LabelBins.from_counts(histogram.edges, shares, MANY_SHARE, FEW_SHARE, shot_rule=rule)


def _protocol(data: HmrDataModule) -> dict[str, Any]:
    assert data.test_set is not None
    people = data.test_set.people
    known = int((people.gender >= 0).sum()) if data.ground_truth == "gendered" else 0
    return {
        "data": data.describe_test(),
        "ground_truth": _truth(known, len(people)),
        "predictions": "by the neutral model, for mpvpe by that of the truth, as released",
        "joints": "14 of Human3.6M's regressor, relative to the pelvis",
        "distance": "mean vertex distance to the neutral body in the mean pose, nothing aligned",
        "balanced": "all: mean over the non-empty of 100 equal parts of the test set's range of "
        "the distance; tail10, tail5: mean over the farthest 10 and 5 % of the samples",
    }


def _truth(known: int, people: int) -> str:
    """Return by which models the true bodies are, some of them by that of a known gender."""
    if known == people:
        return "gendered, bodies by the model of the person's gender"
    if known:
        return f"gendered for {known} of {people}, neutral for the rest, whose gender is not known"
    return "neutral, bodies by the neutral model"


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None

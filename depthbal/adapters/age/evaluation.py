"""Score a run of one label per image on the test split."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch import Tensor, nn

from depthbal.adapters.age.data import LabelDataModule
from depthbal.checkpoint import read_checkpoint
from depthbal.evaluation import GROUPS, LABEL_TERMS, Evaluation, Label
from depthbal.predictor import Predictor, load_predictor
from depthbal.priors.files import write_json
from depthbal.training.callbacks import show_progress
from depthbal.training.noise_values import noise_facts
from depthbal.training.runs import CheckpointName, RunFolder

READOUTS = ("raw", "clamped", "mean")
MEANING = "bmae, bmse: mean over the bins with test samples of mae, mse in each"
BALANCED = {"bmae": "mae", "bmse": "mse"}
"""Balanced metrics, and those whose mean over the bins with test samples they are."""


def evaluate_age(
    run: str | Path,
    data: LabelDataModule,
    checkpoint: CheckpointName = "last",
    *,
    model: nn.Module | None = None,
    criterion: nn.Module | None = None,
    device: str | torch.device = "cpu",
) -> dict[str, Any]:
    """Evaluate a run on the test split and write metrics.json and per_image.npz into its folder.

    The best checkpoint's stand beside them: metrics_best.json, per_image_best.npz.

    Args:
        run: The run folder.
        data: The data; their bins and shots are used.
        checkpoint: The last epoch, or the best on the validation split.
        model: A network whose class is not ours; its weights are replaced by the checkpoint's.
        criterion: A loss whose class is not ours, likewise.
        device: Where to compute.

    Returns:
        The content of the metrics file: `Evaluation.result`, with `bmae` and `bmse` beside `mae`
        and `mse` in overall, many, medium, few and bins.

    Raises:
        RunFolderError: No such run or checkpoint.
        CheckpointError: The checkpoint is damaged or of a class that must be passed.
        DataError: The test split is missing or damaged.
    """
    folder = RunFolder(Path(run))
    path = folder.require_checkpoint(checkpoint)
    content = read_checkpoint(path)
    entry = content["depthbal"]
    predictor = load_predictor(
        path,
        model=model if entry["model"]["init_args"] is None else None,
        criterion=criterion if entry["criterion"]["init_args"] is None else None,
        device=device,
    )
    evaluation = score_split(
        data,
        predictor,
        {
            "checkpoint": checkpoint,
            "epochs": int(content["epoch"]) + 1,
            **noise_facts(predictor.criterion),
        },
    )
    metrics = with_balanced(evaluation.result())
    write_json(folder.metrics(checkpoint=checkpoint), metrics)
    evaluation.save_per_image(folder.per_image(checkpoint=checkpoint))
    return metrics


def score_split(
    data: LabelDataModule, predictor: Predictor, facts: Mapping[str, Any]
) -> Evaluation:
    """Return the evaluation of a network on the test split.

    Args:
        data: The data.
        predictor: The network, in evaluation mode, with its read-outs.
        facts: What the protocol shall say besides.
    """
    data.prepare_data()
    data.setup("test")
    protocol = {"name": "all samples", **facts, "balanced": MEANING, "data": data.describe_test()}
    label = Label(data.label, data.unit)
    evaluation = Evaluation(
        data.bins(),
        READOUTS,
        predictor.readout,
        protocol,
        terms=LABEL_TERMS,
        label=label,
        main_metric="mae",
    )
    assert data.test_set is not None
    source, device = data.test_set.source, predictor.mean.device
    independent = getattr(source, "independent", False)  # in a folder, persons may recur
    batches = data.test_dataloader()
    for batch in track(batches, "Evaluating", transient=True, disable=not show_progress()):
        with torch.no_grad():
            raw: Tensor = predictor.model(batch["image"].to(device))
        names = [source.name(index) for index in batch["index"].tolist()]
        evaluation.update(
            predictor.read_out(raw),
            batch["label"].to(device),
            names=names,
            groups=names if independent else None,
            interval=predictor.interval(raw),
        )
    return evaluation


def with_balanced(result: dict[str, Any]) -> dict[str, Any]:
    """Return a result of `Evaluation` with the balanced metrics in its groups and bins.

    bMAE and bMSE are the means over the bins (integer ages) with test samples of the MAE and MSE in
    each; in a bin of its own they are its MAE and MSE.

    Source: Ren et al., CVPR 2022 (supplement 2.2).

    Example:
        >>> row = {"mae": 2.0, "mse": 5.0, "count": 3}
        >>> balanced = {"mae": 4.0, "mse": 20.0}
        >>> groups = dict.fromkeys(GROUPS, row)
        >>> means = dict.fromkeys(GROUPS, balanced)
        >>> with_balanced({**groups, "bins": [row], "per_bin_mean": means})["few"]["bmae"]
        4.0
    """
    out = dict(result)
    for group in GROUPS:
        out[group] = _balanced(result[group], result["per_bin_mean"][group])
    if "bins" in result:
        out["bins"] = [_balanced(row, row) for row in result["bins"]]
    if "readout" in result:
        out["readout"] = {name: with_balanced(block) for name, block in result["readout"].items()}
    return out


def _balanced(row: dict[str, Any], means: dict[str, Any]) -> dict[str, Any]:
    return {**row, **{name: means[plain] for name, plain in BALANCED.items()}}

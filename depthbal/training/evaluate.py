"""Score a run's network on the test split."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from rich.progress import track
from torch import nn

from depthbal.checkpoint import read_checkpoint
from depthbal.data import DepthDataModule
from depthbal.data.histogram import DepthOnly
from depthbal.errors import RunFolderError
from depthbal.evaluation import (
    BalancedMask,
    DepthBins,
    EigenEvaluation,
    Evaluation,
    balanced_mask,
    load_balanced_mask,
)
from depthbal.predictor import Predictor, load_predictor
from depthbal.priors import Histogram
from depthbal.priors.files import write_json
from depthbal.training.callbacks import show_progress
from depthbal.training.examples import make_examples, save_examples, save_pictures
from depthbal.training.noise_values import noise_facts
from depthbal.training.posthoc import posthoc_sigma
from depthbal.training.run_config import load_datamodule, require_depth
from depthbal.training.runs import CheckpointName, RunFolder
from depthbal.training.scoring import Crops, ScoredSplit, WholeImages, score

Protocol = Literal["nyud2_dir", "eigen"]
READOUTS = ("raw", "clamped", "mean")


def evaluate_run(
    run: str | Path,
    checkpoint: CheckpointName = "last",
    protocol: Protocol = "nyud2_dir",
    *,
    datamodule: DepthDataModule | None = None,
    model: nn.Module | None = None,
    criterion: nn.Module | None = None,
    data_overrides: Sequence[str] = (),
    device: str | torch.device = "cpu",
    seed: int = 0,
    posthoc: float | Literal["auto"] | None = None,
) -> dict[str, Any]:
    """Evaluate a run on its test split and write the result into its folder.

    Writes metrics.json, per_image.npz, examples.npz and, for the balanced protocol, the examples as
    pictures in predictions/. Other evaluations stand beside them: the eigen protocol adds
    ``_eigen`` to the names, the best checkpoint ``_best`` (metrics_best.json,
    per_image_eigen_best.npz, predictions_best/), balancing afterwards ``_posthoc_SIGMA``
    (metrics_posthoc_1.json).
    Nothing is fitted: prior and histogram come from the run.

    Args:
        run: The run folder.
        checkpoint: The last epoch, or the best on the validation split.
        protocol: "nyud2_dir": balanced mask, pooled over pixels; "eigen": Eigen's crop of the full
            image, mean over images.
        datamodule: The data; None rebuilds them from the run's config.yaml.
        model: A network whose class is not ours; its weights are replaced by the checkpoint's.
        criterion: A loss whose class is not ours, likewise.
        data_overrides: Settings of the data that win, such as ``["--data.root", "/elsewhere"]``.
        device: Where to compute.
        seed: Of the balanced mask's draw.
        posthoc: Balance the predictions of a network trained with a plain loss, with this noise
            scale in metres, before they are read out; "auto" takes the error on the validation
            split.

    Returns:
        The content of the metrics file.

    Raises:
        RunFolderError: No such run or checkpoint.
        CheckpointError: The checkpoint is damaged or of a class that must be passed.
        DataError: The test split is missing or damaged.
        ConfigError: The run cannot be balanced afterwards.
    """
    folder = RunFolder(Path(run))
    path = folder.require_checkpoint(checkpoint)
    require_depth(folder)
    content = read_checkpoint(path)
    ours = {
        part: content["depthbal"][part]["init_args"] is not None for part in ("model", "criterion")
    }
    balance = None if posthoc is None else posthoc_sigma(run, checkpoint, posthoc)
    sigma = None if balance is None else balance.noise_sigma
    predictor = load_predictor(
        path,
        model=None if ours["model"] else model,
        criterion=None if ours["criterion"] else criterion,
        device=device,
        posthoc_sigma=sigma,
    )
    data = datamodule if datamodule is not None else load_datamodule(folder, data_overrides)
    data.prepare_data()
    data.setup("test")
    facts: dict[str, Any] = {
        "name": protocol,
        "checkpoint": checkpoint,
        "epochs": int(content["epoch"]) + 1,
        "data": data.describe_test(),
    }
    if balance is None:
        facts |= noise_facts(predictor.criterion)
    else:
        facts |= {"posthoc": balance.describe(), "noise_sigma": balance.noise_sigma}
    scored = _score_eigen if protocol == "eigen" else _score_balanced
    evaluation, split = scored(folder, data, predictor, facts, seed)
    metrics = evaluation.result()
    examples = make_examples(evaluation, split, predictor)
    write_json(folder.metrics(protocol, checkpoint, sigma), metrics)
    evaluation.save_per_image(folder.per_image(protocol, checkpoint, sigma))
    save_examples(folder.examples(protocol, checkpoint, sigma), examples)
    if protocol == "nyud2_dir":
        save_pictures(folder.predictions(checkpoint, sigma), examples)
    return metrics


def run_bins(folder: RunFolder, data: DepthDataModule) -> DepthBins:
    """Return the benchmark's bins and shots, or those of the run's training histogram.

    Raises:
        RunFolderError: The histogram is missing.
    """
    if data.benchmark == "nyud2_dir":
        return DepthBins.nyud2()
    if not folder.histogram.is_file():
        raise RunFolderError(f"{folder.path} lacks histogram.json, which defines its shots")
    return DepthBins.from_histogram(Histogram.load(folder.histogram))


class SplitDepths:
    """The test split's depth maps, in order, read again at every iteration.

    Args:
        data: A data module whose test split is built.
    """

    def __init__(self, data: DepthDataModule) -> None:
        assert data.test_set is not None
        self.maps = DepthOnly(data.test_set.source, data.eval_transform)

    def __iter__(self) -> Iterator[torch.Tensor]:
        for index in track(
            range(len(self.maps)), "Reading test depth", transient=True, disable=not show_progress()
        ):
            yield self.maps[index]


def choose_mask(data: DepthDataModule, bins: DepthBins, seed: int) -> BalancedMask:
    """Return the published balanced mask where the data have it, else draw one."""
    depths = SplitDepths(data)
    if data.balanced_mask_file is not None:
        return load_balanced_mask(data.balanced_mask_file, depths, bins)
    return balanced_mask(depths, bins, seed)


def _score_balanced(
    folder: RunFolder, data: DepthDataModule, predictor: Predictor, facts: dict[str, Any], seed: int
) -> tuple[Evaluation, ScoredSplit]:
    bins = run_bins(folder, data)
    mask = choose_mask(data, bins, seed)
    evaluation = Evaluation(bins, READOUTS, predictor.readout, {**facts, "mask": mask.describe()})
    split = Crops(data, predictor)
    score(evaluation, split, predictor, mask.mask)
    return evaluation, split


def _score_eigen(
    folder: RunFolder, data: DepthDataModule, predictor: Predictor, facts: dict[str, Any], seed: int
) -> tuple[Evaluation, ScoredSplit]:
    evaluation = EigenEvaluation(run_bins(folder, data), READOUTS, predictor.readout, facts)
    split = WholeImages(data, predictor)
    score(evaluation, split, predictor, None)
    return evaluation, split

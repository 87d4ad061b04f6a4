"""``depthbal balance``: a trained model balanced by labelled images, without training."""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthbal.commands import import_classes, make_parser, parse
from depthbal.commands.evaluate import add_predictions, open_predictions, sources
from depthbal.errors import ConfigError

if TYPE_CHECKING:
    from depthbal.data.label_data import LabelData
    from depthbal.losses.posthoc import BalanceMap
    from depthbal.priors import Histogram
    from depthbal.training.task import Task

    # prediction and truth in label units, what counts (tensors or arrays), name, scene or ""
    Sample = tuple[Any, Any, Any, str, str]


def main(arguments: Sequence[str]) -> None:
    """Choose how to balance a run, say what it gains, and write it where it gains anything."""
    parser = make_parser(
        "balance",
        "Balance a trained network by labelled images: by calibration (the mean label given a "
        "prediction, in a world of balanced labels) or by the theorem (training histogram and "
        "sigma), whichever cross-validation over scenes finds better. Nothing is written where the "
        "gain on held-out scenes is not certain at 95 %. Settings of the data can be replaced: "
        "--data.root /elsewhere",
        "runs/rooms-mse --out balance.json; --predictions zoe/ --data FolderDataModule --data.root "
        "nyu --out balance.json",
    )
    add = parser.add_argument
    add("run", type=Path, nargs="?", help="run folder of a network trained with a plain loss")
    add("--out", type=Path, required=True, help="file for --balance of evaluate, predict, export")
    add(
        "--split",
        choices=("val", "test"),
        help="whose images to calibrate on (default: val, of predictions test)",
    )
    add(
        "--objective",
        choices=("overall", "few"),
        default="overall",
        help="lowest mean error over all bins, or over few-shot bins",
    )
    add(
        "--many-at-most",
        type=float,
        metavar="RATIO",
        help="largest error of many-shot bins relative to the model as it is; default: none for "
        "overall, 1.1 for few",
    )
    add("--tau", type=float, help="calibrate with this share of balancing, 0 to 1")
    add("--sigma", type=float, help="balance by the theorem with this noise scale, label units")
    add("--checkpoint", choices=("last", "best"), default="last")
    add("--device", help="default: the first GPU, else cpu")
    add("--relative-to", metavar="WORLD", default="uniform", help="log_uniform for long ranges")
    add("--force", action="store_true", help="write an uncertain gain; calibrate on test images")
    add("--overwrite", action="store_true", help="replace an existing file")
    add_predictions(parser)
    known, overrides = parse(parser, arguments)
    overrides = sources(known, overrides)

    from depthbal.io import require_free

    import_classes(networks=False)
    require_free(known.out, known.overwrite)
    (_balance_run if known.run else _balance_predictions)(known, overrides)


def _balance_predictions(known: argparse.Namespace, overrides: list[str]) -> None:
    from depthbal.foreign import ForeignPredictions, calibration_samples

    split: Any = known.split or "test"
    files, data = open_predictions(known, overrides, split)
    predictions = ForeignPredictions(files, data, known.kind, split=split)
    facts = {"of": str(known.predictions.absolute()), "split": split, "align": known.align[0]}
    samples = calibration_samples(predictions, data, known.align[0])
    prior = data.train_histogram() if data.trains() else None
    balance_samples(samples, data, known, facts, prior)


def _balance_run(known: argparse.Namespace, overrides: list[str]) -> None:
    from depthbal.evaluation.scores import RESULT_FILE, Scores
    from depthbal.losses import LogLabelLoss
    from depthbal.predictor import require_plain
    from depthbal.training.runs import open_run

    split = known.split or "val"
    run = open_run(known.run, overrides)
    data, task = run.data, run.task(known.checkpoint)
    require_plain(task.criterion, str(run.path))
    data.prepare_data()
    data.setup("test" if split == "test" else None)
    tested = Scores.load(run.path).names if (run.path / RESULT_FILE).is_file() else []
    facts = {"of": str(run.path), "split": split, "checkpoint": known.checkpoint}
    samples = run_samples(task, data, split, known.device)
    # the theorem of choose_balance is that of mean labels
    prior = None if isinstance(task.criterion, LogLabelLoss) else run.histogram()
    balance_samples(samples, data, known, facts, prior, tested)


def balance_samples(
    samples: "Iterable[Sample]",
    data: "LabelData",
    known: argparse.Namespace,
    facts: dict[str, Any],
    prior: "Histogram | None",
    tested: Sequence[str] = (),
) -> None:
    """Choose the balancing that suits predictions, print it, and write it with facts to --out.

    ``prior`` is of the training labels, ``tested`` are the names of the model's test images.
    """
    from depthbal.evaluation.balancing import JointHistogram, choose_balance, require_unseen

    if known.sigma is not None and prior is None:
        raise ConfigError("--sigma needs the histogram of the training labels; give --tau")
    joint = JointHistogram(data.bins())
    for sample in samples:
        joint.update(*sample)
    if not known.force:
        require_unseen(joint.names, tested)
    ways: dict[str, Any] = {}
    if known.tau is not None or known.sigma is not None:
        ways["taus"] = [] if known.tau is None else [known.tau]
        ways["sigmas"] = [] if known.sigma is None else [known.sigma]
    try:
        balance = choose_balance(
            joint,
            data.label,
            known.objective,
            known.many_at_most,
            prior=prior,
            world=known.relative_to,
            **ways,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error
    assert balance.facts is not None
    balance.facts |= facts
    _print_choice(balance)
    low, high = balance.facts["interval_95"]
    if low <= 0 and not known.force:
        raise ConfigError(
            f"whether this gains anything is not certain from {len(joint.names)} images: the 95 % "
            f"interval of the fall, {100 * low:.1f} to {100 * high:.1f} %, holds 0. Nothing was "
            "written; more labelled scenes narrow it, --force writes it as it is"
        )
    balance.save(known.out)
    print(f"Written: {known.out}, for --balance of depthbal evaluate, predict and export")


def run_samples(
    task: "Task", data: "LabelData", split: str, device: str | None
) -> "Iterator[Sample]":
    """Yield what a run's network says of every image of a split that is set up."""
    import torch

    from depthbal.evaluation.balancing import scenes_of
    from depthbal.training.optimisation import default_device

    place = torch.device(device or default_device())
    task = task.to(place).eval()
    loader: Any = data.test_dataloader() if split == "test" else data.val_dataloader()
    source = getattr(getattr(data, f"{split}_set"), "source", None)
    scenes = None if source is None else scenes_of(source.group(i) for i in range(len(source)))
    for batch in loader:
        moved = {k: v.to(place) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
        with torch.no_grad():
            raw = task.predict(moved).float()
        target, mask = task.target(moved)
        if raw.ndim == 4:  # as it is scored
            raw = task.predictor().enlarge(raw, target.shape[-2:])
        groups = batch.get("group", [""] * len(raw))
        if scenes is not None:
            groups = [scenes[index] for index in batch["index"]]
        for i, name in enumerate(batch["name"]):
            counted = None if mask is None else mask[i]
            yield raw[i], target[i], counted, name, groups[i]


def _print_choice(balance: "BalanceMap") -> None:
    """Print the errors on held-out scenes of every way that was tried, and the choice."""
    from rich.console import Console
    from rich.table import Table

    from depthbal.evaluation import GROUPS
    from depthbal.evaluation.balancing import balance_words

    console, facts, (_, unit) = Console(), balance.facts or {}, balance.label or ("", "")
    groups = [group for group in GROUPS if facts["before"][group] is not None]
    table = Table("", *groups, title=f"RMSE over bins in {unit}, held-out scenes", box=None)
    rows = [("as it is", facts["before"]), *((balance_words(row), row) for row in facts["tried"])]
    for name, row in rows:
        cells = ("-" if row[group] is None else f"{row[group]:.3f}" for group in groups)
        table.add_row(name, *cells, style="bold" if name == balance_words(facts) else None)
    console.print(table)
    low, high = facts["interval_95"]
    before, after = (facts[key]["many"] for key in ("before", "after"))
    many = f"; many-shot error {100 * (after / before - 1):+.1f} %" if before else ""
    console.print(
        f"Chosen: {balance_words(facts)}. On held-out scenes, choice included, the error "
        f"({facts['objective']}) falls by {100 * facts['fall']:.1f} % (95 % interval "
        f"{100 * low:.1f} to {100 * high:.1f} %, {facts['images']} images, {facts['scenes']} "
        f"scenes){many}.",
        highlight=False,
    )

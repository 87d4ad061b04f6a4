"""``depthbal evaluate``: a run, or anybody's predictions, scored per bin and shot."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthbal.commands import add_balancing, import_classes, make_parser, parse
from depthbal.errors import ConfigError

if TYPE_CHECKING:
    from depthbal.data import DepthDataModule, PredictionFolder

_SHARED = ("protocol", "seed", "balance", "force", "edges", "crop", "cap")
_CROPS = ("none", "nyu-eigen", "kitti-garg", "kitti-eigen", "kb", "kb-garg", "kb-eigen")


def main(arguments: Sequence[str]) -> None:
    """Evaluate a run or predictions, write the result and print it."""
    parser = make_parser(
        "evaluate",
        "Score a run, or anybody's predictions, on a test split, per bin and shot. Writes "
        "metrics.json, scores.npz and report.html: of a run into RUN/eval/NAME, NAME being best, "
        "eigen, posthoc_SIGMA and the like (the last epoch by the run's own protocol into RUN "
        "itself), of predictions into --out. Settings of a run's data can be replaced: "
        "--data.root /elsewhere",
        "runs/mse --posthoc auto; --predictions zoe/ --data FolderDataModule --data.root nyu --out "
        "results/zoe",
    )
    add = parser.add_argument
    add("run", type=Path, nargs="?", help="run folder")
    add("--checkpoint", choices=("last", "best"), default="last")
    add(
        "--protocol",
        nargs="+",
        metavar="NAME",
        help="nyud2_dir (default), or some of eigen, kitti and whole in one pass",
    )
    add("--device", help="default: the first GPU, else cpu")
    add("--seed", type=int, default=0, help="of the balanced mask")
    add_balancing(parser)
    add("--edges", action="store_true", help="boundary F1 and the share of flying pixels too")
    add("--force", action="store_true", help="score images that --balance was calibrated on")
    add_predictions(parser)
    add = parser.add_argument
    add("--out", type=Path, help="folder of the result of predictions")
    add("--overwrite", action="store_true", help="replace an earlier result there")
    add(
        "--crop",
        nargs="+",
        choices=_CROPS,
        metavar="CROP",
        help=f"of whole images: {', '.join(_CROPS)} (default: the protocol's)",
    )
    add(
        "--cap",
        type=float,
        nargs=2,
        action="append",
        metavar=("LOW", "HIGH"),
        help="metres, of whole images; again for another",
    )
    known, overrides = parse(parser, arguments)
    overrides = sources(known, overrides)
    if known.predictions and (known.tau is not None or (known.relative_to and not known.posthoc)):
        raise ConfigError("of --predictions --relative-to goes with --posthoc SIGMA, --tau never")
    if known.run and (known.out or known.overwrite):
        raise ConfigError("--out and --overwrite go with --predictions")

    from depthbal.commands.tables import print_metrics, try_report

    import_classes(networks=False)
    folder, result = (_evaluate_run if known.run else _evaluate_predictions)(known, overrides)
    print_metrics(result)
    print(f"Written: {folder / 'metrics.json'}")
    try_report([folder], folder / "report.html")


def _evaluate_run(known: argparse.Namespace, overrides: list[str]) -> tuple[Path, dict[str, Any]]:
    from depthbal.training.evaluate import evaluate_run
    from depthbal.training.optimisation import default_device

    names = (*_SHARED, "checkpoint", "posthoc", "tau", "relative_to")
    options = {name: getattr(known, name) for name in names}
    if known.align != ["none"]:
        options["alignments"] = known.align
    device = known.device or default_device()
    result, folder = evaluate_run(known.run, overrides=overrides, device=device, **options)
    return folder, result


def _evaluate_predictions(
    known: argparse.Namespace, overrides: list[str]
) -> tuple[Path, dict[str, Any]]:
    from depthbal.foreign import evaluate
    from depthbal.io import write_json
    from depthbal.predictor import balance_map, load_balance
    from depthbal.training.runs import require_claimable, run_record

    if known.out is None:
        raise ConfigError("--predictions needs --out, the folder of the result")
    if not (known.overwrite and (known.out / "scores.npz").exists()):
        require_claimable(known.out)
    files, data = open_predictions(known, overrides)
    balance, whose = None, str(known.predictions)
    if known.balance is not None:
        balance = load_balance(known.balance, None, data.label, whose)
    elif known.posthoc == "auto":
        raise ConfigError("--posthoc auto needs a run; give a sigma, or use depthbal balance")
    elif known.posthoc is not None:
        prior = data.train_histogram() if data.trains() else None
        balance = balance_map(None, prior, known.posthoc, data.label.range, whose)
        if known.relative_to:
            try:
                balance = balance.relative_to(known.relative_to)
            except ValueError as error:
                raise ConfigError(str(error)) from error
    options = {name: getattr(known, name) for name in _SHARED} | {"balance": balance}
    options["protocol"] = known.protocol or "nyud2_dir"
    kinds = {"kind": known.kind, "alignments": known.align}
    result = evaluate(files, data, known.out, progress=True, **kinds, **options)
    write_json(known.out / "run.json", run_record(known.seed, "cpu"))
    return known.out, result


# ---- options of predictions, for balance too ----


def add_predictions(parser: argparse.ArgumentParser) -> None:
    """Add what says whose predictions there are, and for which data."""
    add = parser.add_argument_group("predictions of any program").add_argument
    add("--predictions", type=Path, metavar="DIR", help="files named like the images")
    add("--data", help="data module or run folder; for a run, other data")
    add("--predictions.kind", dest="kind", choices=("depth", "inverse"), default="depth")
    add("--predictions.scale", dest="scale", help="metres per unit of the files: 0.001, 1/256")
    add("--predictions.pattern", dest="pattern", help="of the files' names: '{stem}_pred'")
    add("--allow-missing", action="store_true", help="leave out images without a prediction")
    add(
        "--align",
        nargs="+",
        choices=("none", "median", "depth", "inverse"),
        default=["none"],
        metavar="HOW",
        help="to the truth of each image: none (default), median, depth, inverse, or several",
    )


def sources(known: argparse.Namespace, overrides: list[str]) -> list[str]:
    """Return the settings of a run's data; there is either a run, or predictions and their data."""
    if (known.run is None) == (known.predictions is None):
        raise ConfigError("give a run folder, or --predictions DIR with --data")
    if known.predictions and not known.data:
        raise ConfigError("--predictions needs --data, a data module or a run folder")
    if known.predictions and known.checkpoint != "last":
        raise ConfigError("--checkpoint is of a run's network, not of --predictions")
    return ["--data", known.data, *overrides] if known.run and known.data else overrides


def open_predictions(
    known: argparse.Namespace, overrides: Sequence[str], split: Any = "test"
) -> tuple["PredictionFolder", "DepthDataModule"]:
    """Return the files that were named, matched to the images of a split, and the data."""
    from depthbal.data import DepthDataModule, PredictionFolder
    from depthbal.foreign import image_names
    from depthbal.training.runs import data_of

    data = data_of(known.data, overrides)
    if not isinstance(data, DepthDataModule):
        raise ConfigError(f"{known.data} has labels of {data.label.name}; only depth is scored")
    names = image_names(data, split)
    files = PredictionFolder(
        known.predictions, names, known.scale, known.pattern, known.allow_missing
    )
    if files.missing:
        print(f"{len(files.missing)} of {len(names)} images have no prediction and are left out")
    return files, data

"""``depthbal evaluate``: a run, or anybody's predictions, scored per bin and shot."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from depthbal.errors import ConfigError


def main(arguments: Sequence[str]) -> None:
    """Evaluate a run or predictions, write the result and print it."""
    parser = argparse.ArgumentParser(
        prog="depthbal evaluate",
        description="Score a run, or anybody's predictions, on a test split, per bin and shot. "
        "Writes metrics.json, scores.npz and report.html: of a run into RUN/eval/NAME, NAME being "
        "best, eigen, posthoc_SIGMA and the like (the last epoch by the run's own protocol into RUN "
        "itself); of predictions into --out.",
        epilog="Settings of a run's data can be replaced: --data.root /elsewhere. Examples: "
        "depthbal evaluate runs/mse --posthoc auto; depthbal evaluate --predictions zoe/ --data "
        "FolderDataModule --data.root nyu --out results/zoe",
        allow_abbrev=False,
    )
    parser.add_argument("run", type=Path, nargs="?", help="run folder")
    parser.add_argument("--checkpoint", choices=("last", "best"), default="last")
    parser.add_argument(
        "--protocol",
        help="for depth nyud2_dir (default: balanced mask, pooled over pixels) or eigen (Eigen's "
        "crop, mean over images)",
    )
    parser.add_argument("--device", help="default: the first GPU, else cpu")
    parser.add_argument("--seed", type=int, default=0, help="of the balanced mask")
    add_posthoc(parser)
    foreign = parser.add_argument_group("predictions of any program")
    foreign.add_argument(
        "--predictions",
        type=Path,
        metavar="DIR",
        help="npy, npz, png, tiff or pfm files named like the test images",
    )
    foreign.add_argument("--data", help="data module, or a run folder whose data it is")
    foreign.add_argument("--out", type=Path, help="folder of the result")
    foreign.add_argument("--overwrite", action="store_true", help="replace an earlier result")
    foreign.add_argument("--predictions.kind", dest="kind", choices=("depth", "inverse"))
    foreign.add_argument(
        "--predictions.scale", dest="scale", type=float, help="metres per unit of the files"
    )
    foreign.add_argument(
        "--predictions.pattern", dest="pattern", help="of the files' names, such as '{stem}_pred'"
    )
    foreign.add_argument("--allow-missing", action="store_true", help="score the images that have")
    foreign.add_argument(
        "--align",
        nargs="+",
        choices=("none", "median", "depth", "inverse"),
        help="to the truth of each image, side by side; the first is the main one (default: none)",
    )
    known, overrides = parser.parse_known_args(arguments)
    if (known.run is None) == (known.predictions is None):
        raise ConfigError("give a run folder, or --predictions DIR with --data and --out")
    given = [name for name in FOREIGN if getattr(known, name) not in (None, False)]
    if known.predictions is None and given:
        raise ConfigError(f"--{given[0].replace('_', '-')} goes with --predictions, not with a run")
    folder, result = (_evaluate_run if known.run else _evaluate_predictions)(known, overrides)

    from rich.console import Console

    from depthbal.commands.tables import print_metrics, try_report

    console = Console()
    print_metrics(console, result)
    report = try_report([folder], folder / "report.html")
    console.print(f"Written: {folder / 'metrics.json'}", highlight=False, soft_wrap=True)
    if report is not None:
        console.print(f"Report: {report}", highlight=False, soft_wrap=True)


FOREIGN = ("data", "out", "overwrite", "kind", "scale", "pattern", "allow_missing", "align")


def _evaluate_run(known: argparse.Namespace, overrides: list[str]) -> tuple[Path, dict[str, Any]]:
    import depthbal.data as data
    from depthbal.training.evaluate import evaluate_run
    from depthbal.training.optimisation import default_device

    _ = data.FolderDataModule, data.NYUD2DataModule, data.RoomsDataModule
    result, folder = evaluate_run(
        known.run,
        known.checkpoint,
        known.protocol,
        overrides=overrides,
        device=known.device or default_device(),
        seed=known.seed,
        posthoc=known.posthoc,
    )
    return folder, result


def _evaluate_predictions(
    known: argparse.Namespace, overrides: list[str]
) -> tuple[Path, dict[str, Any]]:
    from depthbal.data import FolderDataModule, NYUD2DataModule, PredictionFolder, RoomsDataModule
    from depthbal.foreign import evaluate, test_names
    from depthbal.io import write_json
    from depthbal.training.runs import data_of, require_claimable, run_record

    if known.data is None or known.out is None:
        raise ConfigError("--predictions needs --data (a data module or a run folder) and --out")
    if (known.out / "scores.npz").exists() and not known.overwrite:
        raise ConfigError(f"{known.out} holds a result; choose another --out, or --overwrite")
    if not known.overwrite:
        require_claimable(known.out)
    _ = FolderDataModule, NYUD2DataModule, RoomsDataModule  # for their short names
    data = data_of(known.data, overrides)
    files = PredictionFolder(
        known.predictions, test_names(data), known.scale, known.pattern, known.allow_missing
    )
    if files.missing:
        print(f"{len(files.missing)} images have no prediction and are left out")
    result = evaluate(
        files,
        data,
        known.out,
        protocol=known.protocol or "nyud2_dir",
        kind=known.kind or "depth",
        alignments=known.align or ("none",),
        seed=known.seed,
        facts={"source": str(known.predictions.absolute())},
        progress=True,
    )
    write_json(known.out / "run.json", run_record(known.seed, "cpu"))
    return known.out, result


def add_posthoc(parser: argparse.ArgumentParser) -> None:
    """Add ``--posthoc SIGMA`` to a command."""
    parser.add_argument(
        "--posthoc",
        type=posthoc_argument,
        metavar="SIGMA",
        help="balance a plain loss's network afterwards with this noise scale in label units; "
        "auto: its RMSE on the validation split",
    )


def posthoc_argument(text: str) -> float | Literal["auto"]:
    """Return the value of ``--posthoc``.

    Example:
        >>> posthoc_argument("0.8"), posthoc_argument("auto")
        (0.8, 'auto')
    """
    if text == "auto":
        return "auto"
    try:
        return float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"expected a sigma in label units or auto, got {text!r}"
        ) from error

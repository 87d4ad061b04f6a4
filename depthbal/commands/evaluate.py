"""``depthbal evaluate``: a run scored again."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Literal


def main(arguments: Sequence[str]) -> None:
    """Evaluate a run, write the result into its folder and print it."""
    parser = argparse.ArgumentParser(
        prog="depthbal evaluate",
        description="Score a run on its test split, per bin and shot. Writes metrics.json, "
        "scores.npz and report.html into RUN/eval/NAME, NAME being best, eigen, posthoc_SIGMA and "
        "the like; the last epoch by the run's own protocol goes into RUN itself.",
        epilog="Settings of the data can be replaced: --data.root /elsewhere. Example: "
        "depthbal evaluate runs/mse --posthoc auto",
        allow_abbrev=False,
    )
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--checkpoint", choices=("last", "best"), default="last")
    parser.add_argument(
        "--protocol",
        help="for depth nyud2_dir (default: balanced mask, pooled over pixels) or eigen (Eigen's "
        "crop, mean over images)",
    )
    parser.add_argument("--device", help="default: the first GPU, else cpu")
    parser.add_argument("--seed", type=int, default=0, help="of the balanced mask")
    add_posthoc(parser)
    parser.add_argument(
        "--force", action="store_true", help="score images that --balance was calibrated on"
    )
    known, overrides = parser.parse_known_args(arguments)

    from rich.console import Console

    import depthbal.data as data
    from depthbal.commands.tables import print_metrics, try_report
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
        balance=known.balance,
        force=known.force,
    )
    console = Console()
    print_metrics(console, result)
    report = try_report([folder], folder / "report.html")
    console.print(f"Written: {folder / 'metrics.json'}", highlight=False, soft_wrap=True)
    if report is not None:
        console.print(f"Report: {report}", highlight=False, soft_wrap=True)


def add_posthoc(parser: argparse.ArgumentParser) -> None:
    """Add ``--posthoc SIGMA`` and ``--balance FILE`` to a command."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--balance", type=Path, metavar="FILE", help="what depthbal balance wrote")
    group.add_argument(
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

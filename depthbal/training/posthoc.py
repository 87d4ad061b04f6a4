"""With which sigma a run is balanced afterwards."""

import argparse
import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from depthbal.checkpoint import read_checkpoint
from depthbal.errors import ConfigError
from depthbal.training.runs import CheckpointName, RunFolder

RESIDUAL = "val/rmse"
DIGITS = 3  # of a sigma that is measured; its own error is larger


@dataclass(frozen=True)
class PosthocSigma:
    """A noise scale to balance with, and where it comes from.

    Args:
        noise_sigma: Metres.
        source: For the protocol.
    """

    noise_sigma: float
    source: str = "given"

    def describe(self) -> dict[str, Any]:
        """Return the protocol's entry.

        Example:
            >>> PosthocSigma(1.0).describe()["noise_sigma"]
            1.0
        """
        return {
            "noise_sigma": self.noise_sigma,
            "sigma_from": self.source,
            "prior": "histogram.json of the run, point masses at the centres of its bins",
        }


def add_posthoc(parser: argparse.ArgumentParser) -> None:
    """Add ``--posthoc SIGMA`` to a tool."""
    parser.add_argument(
        "--posthoc",
        type=posthoc_argument,
        metavar="SIGMA",
        help="balance a plain loss's network afterwards with this noise scale in metres; auto: "
        "its RMSE on the validation split",
    )


def posthoc_argument(text: str) -> float | Literal["auto"]:
    """Return the value of ``--posthoc``.

    Raises:
        argparse.ArgumentTypeError: Neither a number nor auto.

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
            f"expected a sigma in metres or auto, got {text!r}"
        ) from error


def posthoc_sigma(
    run: str | Path, checkpoint: CheckpointName, wanted: float | Literal["auto"]
) -> PosthocSigma:
    """Return the sigma that was given, or for "auto" the checkpoint's error on validation.

    Args:
        run: The run folder.
        checkpoint: Which of its checkpoints.
        wanted: Metres, or "auto".

    Raises:
        ConfigError: "auto" for a run without validation error of that epoch.
        RunFolderError: No such run or checkpoint.
        CheckpointError: The checkpoint is damaged.
    """
    if wanted != "auto":
        return PosthocSigma(float(wanted))
    folder = RunFolder(Path(run))
    epoch = int(read_checkpoint(folder.require_checkpoint(checkpoint))["epoch"])
    residual = validation_residual(folder, epoch)
    if residual is None:
        raise ConfigError(
            f"{folder.metrics_csv} has no {RESIDUAL} of epoch {epoch}, from which --posthoc auto "
            "takes sigma; give --posthoc SIGMA in metres"
        )
    return PosthocSigma(rounded(residual), f"{RESIDUAL} of epoch {epoch}")


def rounded(noise_sigma: float) -> float:
    """Return a measured sigma with as many digits as mean something.

    Example:
        >>> rounded(0.87345)
        0.873
    """
    return float(f"{noise_sigma:.{DIGITS}g}")


def validation_residual(folder: RunFolder, epoch: int) -> float | None:
    """Return the RMSE in metres on the validation split after an epoch; None where unknown."""
    if not folder.metrics_csv.is_file():
        return None
    with folder.metrics_csv.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row.get("epoch") == str(epoch)]
    values = [float(row[RESIDUAL]) for row in rows if row.get(RESIDUAL)]
    return values[-1] if values and math.isfinite(values[-1]) else None

"""The conversion command."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from depthbal.errors import ConfigError
from depthbal.training.convert import convert_checkpoint


def convert(arguments: Sequence[str]) -> None:
    """Turn a published checkpoint into a run folder and say what can be done with it.

    Args:
        arguments: The command line: ``FILE --out RUN [--criterion NAME] [--criterion-args JSON]
            [--readout raw|clamped|mean] [--root DATA] [--overwrite]``.

    Raises:
        DepthbalError: Whatever the user can mend.
    """
    parser = argparse.ArgumentParser(
        prog="tools/convert_checkpoint.py",
        description="Makes a run folder of a published NYUD2-DIR checkpoint (.pth.tar); no code "
        "from the file is run.",
        allow_abbrev=False,
    )
    parser.add_argument("file", type=Path, help="the published checkpoint")
    parser.add_argument("--out", type=Path, required=True, help="run folder to make")
    parser.add_argument(
        "--criterion", default="MSELoss", help="loss that made it; matters for --readout mean"
    )
    parser.add_argument(
        "--criterion-args",
        default="{}",
        metavar="JSON",
        help="its arguments, such as '{\"init_noise_sigma\": 1.0}'",
    )
    parser.add_argument(
        "--readout",
        choices=("raw", "clamped", "mean"),
        default="raw",
        help="how the network is read by default; raw: as published",
    )
    parser.add_argument("--root", type=Path, default=Path(), help="folder of the NYUD2-DIR data")
    parser.add_argument("--overwrite", action="store_true", help="replace a run that is there")
    known = parser.parse_args(arguments)
    run = convert_checkpoint(
        known.file,
        known.out,
        criterion=known.criterion,
        criterion_args=_json_object(known.criterion_args),
        readout=known.readout,
        root=known.root,
        overwrite=known.overwrite,
    )
    print(f"Run folder: {run.path}")
    print(f"Recorded as trained with {known.criterion}; --criterion says otherwise")
    print(f"Evaluate: tools/evaluate.py {run.path} --data.root FOLDER_OF_NYUD2")
    print(f"Predict: tools/predict.py {run.path} IMAGE...")


def _json_object(text: str) -> dict[str, Any]:
    """Return the dictionary that a JSON text stands for."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"--criterion-args {text!r} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"--criterion-args {text!r}: expected names and values in braces")
    return value

"""``depthbal convert``: a published checkpoint as a run."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from depthbal.errors import ConfigError


def main(arguments: Sequence[str]) -> None:
    """Turn a published checkpoint into a run folder and say what can be done with it."""
    parser = argparse.ArgumentParser(
        prog="depthbal convert",
        description="Makes a run folder of a published NYUD2-DIR checkpoint (.pth.tar); no code "
        "from the file is run.",
        epilog="Example: depthbal convert nyud2.pth.tar --out runs/published",
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
    try:
        options = json.loads(known.criterion_args)
    except ValueError as error:
        raise ConfigError(
            f"--criterion-args {known.criterion_args!r} is no JSON: {error}"
        ) from error
    if not isinstance(options, dict):
        raise ConfigError(f"--criterion-args {known.criterion_args!r}: expected names and values")

    from depthbal.training.convert import convert_checkpoint

    run = convert_checkpoint(
        known.file,
        known.out,
        criterion=known.criterion,
        criterion_args=options,
        readout=known.readout,
        root=known.root,
        overwrite=known.overwrite,
    )
    print(f"Run folder: {run.path}")
    print(f"Recorded as trained with {known.criterion}; --criterion says otherwise")
    print(f"Evaluate: depthbal evaluate {run.path} --data.root FOLDER_OF_NYUD2")
    print(f"Predict: depthbal predict {run.path} IMAGE...")

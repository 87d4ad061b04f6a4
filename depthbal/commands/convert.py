"""``depthbal convert``: a published checkpoint as a run."""

import json
from collections.abc import Sequence
from pathlib import Path

from depthbal.commands import make_parser


def main(arguments: Sequence[str]) -> None:
    """Turn a published checkpoint into a run folder and say what can be done with it."""
    parser = make_parser(
        "convert",
        "Makes a run folder of a published NYUD2-DIR checkpoint (.pth.tar); no code from the file "
        "is run.",
        "nyud2.pth.tar --out runs/published",
    )
    add = parser.add_argument
    add("file", type=Path, help="the published checkpoint")
    add("--out", type=Path, required=True, help="run folder to make")
    add("--criterion", default="MSELoss", help="loss that made it; matters for --readout mean")
    args = "its arguments, such as '{\"init_noise_sigma\": 1.0}'"
    add("--criterion-args", type=json.loads, default={}, metavar="JSON", help=args)
    how = "how the network is read by default; raw: as published"
    add("--readout", choices=("raw", "clamped", "mean"), default="raw", help=how)
    add("--root", type=Path, default=Path(), help="folder of the NYUD2-DIR data")
    add("--overwrite", action="store_true", help="replace a run that is there")
    known = parser.parse_args(arguments)

    from depthbal.training.convert import convert_checkpoint

    run = convert_checkpoint(**vars(known))
    print(f"Run folder: {run.path}")
    print(f"Recorded as trained with {known.criterion}; --criterion says otherwise")
    print(f"Evaluate: depthbal evaluate {run.path} --data.root FOLDER_OF_NYUD2")
    print(f"Predict: depthbal predict {run.path} IMAGE...")

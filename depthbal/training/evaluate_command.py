"""The evaluation command."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from depthbal.training.evaluate import evaluate_run
from depthbal.training.posthoc import add_posthoc
from depthbal.training.precision import default_device
from depthbal.training.runs import RunFolder
from depthbal.training.tables import print_metrics


def evaluate(arguments: Sequence[str]) -> None:
    """Evaluate a run, write the result into its folder and print it.

    Args:
        arguments: The command line: ``RUN``, ``--checkpoint``, ``--protocol``, ``--device``,
            ``--seed``, ``--posthoc``, and any setting of the data as ``--data.key VALUE``.

    Raises:
        DepthbalError: Whatever the user can mend.
    """
    parser = argparse.ArgumentParser(
        prog="tools/evaluate.py",
        description="Score a run on its test split; writes metrics.json and per_image.npz, with "
        "_eigen, _best and _posthoc_SIGMA in their names for the other protocol, the best "
        "checkpoint and balancing afterwards.",
        epilog="Settings of the data can be replaced, for example --data.root /elsewhere.",
        allow_abbrev=False,
    )
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--checkpoint", choices=("last", "best"), default="last")
    parser.add_argument(
        "--protocol",
        choices=("nyud2_dir", "eigen"),
        default="nyud2_dir",
        help="nyud2_dir: balanced mask; eigen: Eigen's crop, mean over images",
    )
    parser.add_argument("--device", default=default_device())
    parser.add_argument("--seed", type=int, default=0, help="of the balanced mask")
    add_posthoc(parser)
    known, data_overrides = parser.parse_known_args(arguments)
    metrics = evaluate_run(
        known.run,
        known.checkpoint,
        known.protocol,
        data_overrides=data_overrides,
        device=known.device,
        seed=known.seed,
        posthoc=known.posthoc,
    )
    console = Console()
    print_metrics(console, metrics)
    sigma = metrics["protocol"].get("posthoc", {}).get("noise_sigma")
    written = RunFolder(known.run).metrics(known.protocol, known.checkpoint, sigma)
    console.print(f"Written: {written}", highlight=False, soft_wrap=True)

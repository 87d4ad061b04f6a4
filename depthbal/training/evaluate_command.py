"""The evaluation command."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from depthbal.errors import ConfigError
from depthbal.training.application import Application
from depthbal.training.depth import DEPTH
from depthbal.training.evaluate import evaluate_run
from depthbal.training.evaluate_again import application_of, evaluate_again
from depthbal.training.posthoc import add_posthoc
from depthbal.training.precision import default_device
from depthbal.training.runs import RunFolder

DEPTH_ONLY = ("protocol", "seed", "posthoc")


def evaluate(arguments: Sequence[str], others: Sequence[Application] = ()) -> None:
    """Evaluate a run, write the result into its folder and print it.

    Args:
        arguments: The command line: ``RUN``, ``--checkpoint``, ``--device``, for depth
            ``--protocol``, ``--seed``, ``--posthoc``, and any setting of the data as
            ``--data.key VALUE``.
        others: Applications beside depth whose runs are scored, by their own protocols.

    Raises:
        DepthbalError: Whatever the user can mend.
    """
    known, data_overrides = _parser().parse_known_args(arguments)
    run = RunFolder(known.run)
    run.require_checkpoint(known.checkpoint)
    application = application_of(run, (DEPTH, *others))
    sigma = None
    if application is DEPTH:
        metrics = evaluate_run(
            known.run,
            known.checkpoint,
            known.protocol or "nyud2_dir",
            data_overrides=data_overrides,
            device=known.device,
            seed=known.seed or 0,
            posthoc=known.posthoc,
        )
        sigma = metrics["protocol"].get("posthoc", {}).get("noise_sigma")
    else:
        _require_none(known, application)
        metrics = evaluate_again(application, run, known.checkpoint, data_overrides, known.device)
    console = Console()
    application.show(console, metrics)
    written = run.metrics(known.protocol or "nyud2_dir", known.checkpoint, sigma)
    console.print(f"Written: {written}", highlight=False, soft_wrap=True)


def _require_none(known: argparse.Namespace, application: Application) -> None:
    """Refuse the options of depth for a run of something else."""
    given = [f"--{name}" for name in DEPTH_ONLY if getattr(known, name) is not None]
    if given:
        raise ConfigError(
            f"{', '.join(given)}: only for runs of {DEPTH.prog}, {known.run} is one of "
            f"{application.prog}; leave it out, such a run is scored by its own protocol"
        )


def _parser() -> argparse.ArgumentParser:
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
        help="of depth; nyud2_dir (default): balanced mask; eigen: Eigen's crop, mean over images",
    )
    parser.add_argument("--device", default=default_device())
    parser.add_argument("--seed", type=int, help="of the balanced mask, default 0")
    add_posthoc(parser)
    return parser

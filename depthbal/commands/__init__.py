"""The commands: ``depthbal NAME ...``, ``python -m depthbal NAME ...`` or ``tools/NAME.py ...``."""

import errno
import logging
import re
import sys
import warnings
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from depthbal.errors import DepthbalError

COMMANDS = {
    "train": "train and evaluate what a config names; without one, the embedded rooms",
    "evaluate": "errors per bin of a run, as it is or balanced, or of anybody's predictions",
    "balance": "correct a trained model's leaning towards common labels, without training",
    "predict": "depth maps, labels or meshes of your own pictures",
    "demo": "a page on this machine: your picture's depth, and what balancing changes",
    "report": "compare runs and evaluations on one page",
    "study": "configs x seeds x varied settings: runs, medians, one report",
    "export": "a network as one ONNX or torch file, or for transformers",
    "prepare": "pack a depth data set into one HDF5 file",
    "convert": "a published checkpoint as a run",
}
USAGE = "usage: depthbal COMMAND [OPTIONS]        depthbal COMMAND --help\n\n" + "".join(
    f"  {name:<10}{what}\n" for name, what in COMMANDS.items()
)
WAYS_OUT = dict.fromkeys(
    (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST),
    "name a place that this user may read and write, for results with --out",
) | dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "free disk space and try again")
"""What to do about errors of the system."""

# Remarks of the libraries that somebody running a command can do nothing about.
UNHELPFUL_WARNINGS = (
    ".*does not have many workers.*",
    ".*is smaller than the logging interval.*",
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*Total length of `list` across ranks is zero.*",
    ".*Precision bf16-mixed is not supported by the model summary.*",
    ".*module.s. in eval mode at the start.*",  # frozen on purpose
    ".*isinstance.treespec, LeafSpec.. is deprecated.*",
    ".*was called before the ``update`` method.*",
    ".*it is recommended to use `sync_dist=True`.*",
)


def main(name: str | None = None, arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0, 2 for what the user can mend, 130 for Ctrl-C.

    Args:
        name: The command; None takes the first argument.
        arguments: The command line; None takes the process's own.

    Example:
        >>> main("report", ["--help"])  # doctest: +ELLIPSIS
        usage: depthbal report ...
        0
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if name is None:
        if not given or given[0] in ("-h", "--help"):
            print(USAGE, end="")
            return 0
        name = given.pop(0)
    if name not in COMMANDS:
        print(f"error: there is no command {name!r}\n\n{USAGE}", end="", file=sys.stderr)
        return 2
    return run(import_module(f"depthbal.commands.{name}").main, given)


def run(command: Callable[[Sequence[str]], None], arguments: Sequence[str] | None = None) -> int:
    """Run something as `main` does a command; errors that a user can mend are a line on stderr."""
    with warnings.catch_warnings(), _own_messages():
        warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
        for message in UNHELPFUL_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        for name in ("pytorch_lightning.utilities.rank_zero", "lightning_fabric.utilities.seed"):
            logging.getLogger(name).setLevel(logging.WARNING)  # the engine's small talk
        try:
            command(sys.argv[1:] if arguments is None else arguments)
        except DepthbalError as error:
            text = str(error)
            if text.startswith("Caught ") and "Original Traceback" in text:  # of a loader's process
                text = text.strip().splitlines()[-1].partition(": ")[2]
            print(f"error: {text}", file=sys.stderr)
            return 2
        except OSError as error:
            if error.errno not in WAYS_OUT:
                raise
            print(f"error: {error}; {WAYS_OUT[error.errno]}", file=sys.stderr)
            return 2
        except SystemExit as stop:  # of argparse: help, or a wrong option
            return int(stop.code or 0)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130
    return 0


@contextmanager
def _own_messages() -> Iterator[None]:
    """Print what depthbal reports by logging, plainly on stderr and from the first process only."""

    def is_first_process(record: logging.LogRecord) -> bool:
        from lightning_utilities.core.rank_zero import rank_zero_only  # slow to import

        return not getattr(rank_zero_only, "rank", 0)

    logger, handler = logging.getLogger("depthbal"), logging.StreamHandler()
    before = logger.level, logger.propagate
    handler.addFilter(is_first_process)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False  # a handler of the root would print everything a second time
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]


def make_parser(name: str, description: str, example: str, **options: Any) -> ArgumentParser:
    """Return the parser of a command, without abbreviations of its options."""
    options |= {"description": description, "epilog": f"Example: depthbal {name} {example}"}
    return ArgumentParser(prog=f"depthbal {name}", allow_abbrev=False, **options)


def parse(parser: ArgumentParser, arguments: Sequence[str]) -> tuple[Namespace, list[str]]:
    """Return a command's own options, and settings of the data, ``--data.KEY VALUE``, and the rest.

    argparse alone would take the value of a setting for a positional argument.
    """
    own, settings, given = [], [], list(arguments)
    while given:
        argument = given.pop(0)
        if not argument.startswith("--data."):
            own.append(argument)
            continue
        settings.append(argument)
        if "=" not in argument and given:
            settings.append(given.pop(0))
            while given and re.fullmatch(r"-?[\d.]+", given[0]):  # of --data.depth_range 1 80
                settings.append(given.pop(0))
    known, rest = parser.parse_known_args(own)
    return known, [*settings, *rest]


def add_balancing(parser: ArgumentParser) -> None:
    """Add ``--balance``, ``--posthoc``, ``--tau`` and ``--relative-to`` to a command."""

    def sigma(text: str) -> float | str:
        return text if text == "auto" else float(text)

    one = parser.add_mutually_exclusive_group()
    one.add_argument("--balance", type=Path, metavar="FILE", help="what depthbal balance wrote")
    one.add_argument(
        "--posthoc",
        type=sigma,
        metavar="SIGMA",
        help="balance a plain loss's network afterwards with this noise scale in label units; "
        "auto: from its RMSE on the validation split",
    )
    parser.add_argument("--tau", type=float, help="balancing of a network of BinsLoss, 0 to 1")
    help_ = "its world at tau 1, or that of --posthoc: uniform, log_uniform, or a histogram's .json"
    parser.add_argument("--relative-to", metavar="WORLD", help=help_)


def import_classes(networks: bool = True) -> None:
    """Import the classes that settings may name without a path: those that are there already."""
    from depthbal import data

    _ = data.FolderDataModule, data.NYUD2DataModule, data.RoomsDataModule, data.StreetsDataModule
    if not networks:  # they take a second
        return
    from depthbal import models
    from depthbal.training import schedules

    _ = models.HFDepth, models.ResNetMFF, models.SmpDepth, schedules.WarmupCosine

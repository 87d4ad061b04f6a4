"""The commands: ``depthbal NAME ...``, ``python -m depthbal NAME ...`` or ``tools/NAME.py ...``."""

import errno
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module

from depthbal.errors import DepthbalError

COMMANDS = {
    "train": "train and evaluate what a config names; without one, the embedded rooms",
    "evaluate": "score a run again: best epoch, other protocol, balanced afterwards, other data",
    "balance": "correct a trained model's leaning towards common labels, without training",
    "predict": "depth maps, labels or meshes of your own pictures",
    "report": "compare runs and evaluations on one page",
    "study": "configs x seeds x varied settings: runs, medians, one report",
    "export": "a network as one ONNX or torch file",
    "prepare": "pack a depth data set into one HDF5 file",
    "convert": "a published checkpoint as a run",
}
USAGE = "usage: depthbal COMMAND [OPTIONS]        depthbal COMMAND --help\n\n" + "".join(
    f"  {name:<10}{what}\n" for name, what in COMMANDS.items()
)
NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)

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
    """Run something on a command line; errors that the user can mend are one line on stderr.

    Args:
        command: Gets the command line without the program's name.
        arguments: The command line; None takes the process's own.

    Returns:
        0, 2 for what the user can mend, 130 for Ctrl-C.

    Example:
        >>> run(lambda arguments: None, [])
        0
    """
    with warnings.catch_warnings(), own_messages():
        quieten_libraries()
        try:
            command(sys.argv[1:] if arguments is None else arguments)
        except DepthbalError as error:
            print(f"error: {_message(error)}", file=sys.stderr)
            return 2
        except OSError as error:
            print(f"error: {error}; {_way_out(error)}", file=sys.stderr)
            return 2
        except SystemExit as stop:  # of argparse: help, or a wrong option
            return int(stop.code or 0)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130
    return 0


def _way_out(error: OSError) -> str:
    """Return what to do about a system error; one that nobody expects goes on as it is."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "free disk space and try again"
    if error.errno in NOT_ALLOWED:
        return "name a place that this user may read and write, for results with --out"
    raise error


def _message(error: DepthbalError) -> str:
    """Return what happened, without the traceback that a data loader's process puts around it."""
    text = str(error)
    if text.startswith("Caught ") and "Original Traceback" in text:
        text = text.strip().splitlines()[-1].partition(": ")[2]
    return text


@contextmanager
def own_messages() -> Iterator[None]:
    """Print what depthbal reports by logging, plainly on stderr and from the first process only."""
    logger = logging.getLogger("depthbal")
    before = logger.level, logger.propagate
    handler = logging.StreamHandler()
    handler.addFilter(_is_first_process)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False  # a handler of the root would print everything a second time
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]


def _is_first_process(record: logging.LogRecord) -> bool:
    from lightning_utilities.core.rank_zero import rank_zero_only  # only where there is a message

    return not getattr(rank_zero_only, "rank", 0)


def quieten_libraries() -> None:
    """Print warnings in one line; drop those nobody can act on, and the engine's small talk."""
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
    for message in UNHELPFUL_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    for name in ("pytorch_lightning.utilities.rank_zero", "lightning_fabric.utilities.seed"):
        logging.getLogger(name).setLevel(logging.WARNING)

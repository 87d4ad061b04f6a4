"""What all command-line tools share: errors in one line, and a quiet library."""

import errno
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from depthbal.errors import DepthbalError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)

# Remarks of the libraries that somebody running a tool can do nothing about.
UNHELPFUL_WARNINGS = (
    ".*does not have many workers.*",
    ".*is smaller than the logging interval.*",
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*Total length of `list` across ranks is zero.*",
    ".*Precision bf16-mixed is not supported by the model summary.*",
    ".*module.s. in eval mode at the start of training.*",  # frozen on purpose
    ".*module.s. in eval mode at the start.*",
    ".*isinstance.treespec, LeafSpec.. is deprecated.*",
)


def run_tool(main: Callable[[Sequence[str]], None], arguments: Sequence[str] | None = None) -> int:
    """Run a tool and return its exit code: 0, 2 for what the user can mend, 130 for Ctrl-C.

    Args:
        main: The tool; gets the command line without the program's name.
        arguments: The command line; None takes the process's own.

    Example:
        >>> run_tool(lambda arguments: None, [])
        0
    """
    with warnings.catch_warnings(), own_messages():
        quieten_libraries()
        try:
            main(sys.argv[1:] if arguments is None else arguments)
        except DepthbalError as error:
            print(f"error: {_message(error)}", file=sys.stderr)
            return 2
        except OSError as error:
            print(f"error: {error}; {_way_out(error)}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130
    return 0


def _way_out(error: OSError) -> str:
    """Return what to do about a system error; one that nobody expects goes on as it is."""
    if error.errno in DISK_FULL:
        return "free disk space and try again"
    if error.errno in NOT_ALLOWED:
        return "name a place that this user may read and write, for results with --out"
    raise error


@contextmanager
def own_messages() -> Iterator[None]:
    """Print what depthbal reports by logging, plainly on stderr and from the first process only.

    Example:
        >>> with own_messages():
        ...     logging.getLogger("depthbal.data").isEnabledFor(logging.INFO)
        True
    """
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


def _message(error: DepthbalError) -> str:
    """Return what happened, without the traceback that a data loader's process puts around it."""
    text = str(error)
    if text.startswith("Caught ") and "Original Traceback" in text:
        text = text.strip().splitlines()[-1].partition(": ")[2]
    return text


def quieten_libraries() -> None:
    """Print warnings in one line; drop those nobody can act on, and the engine's small talk."""
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
    for message in UNHELPFUL_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    for name in ("pytorch_lightning.utilities.rank_zero", "lightning_fabric.utilities.seed"):
        logging.getLogger(name).setLevel(logging.WARNING)

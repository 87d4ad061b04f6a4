"""What all command-line tools share: errors in one line, and a quiet library."""

import errno
import logging
import sys
import warnings
from collections.abc import Callable, Sequence

from depthbal.errors import DepthbalError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# Remarks of the libraries that somebody running a tool can do nothing about.
UNHELPFUL_WARNINGS = (
    ".*does not have many workers.*",
    ".*is smaller than the logging interval.*",
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*Total length of `list` across ranks is zero.*",
    ".*Precision bf16-mixed is not supported by the model summary.*",
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
    with warnings.catch_warnings():
        quieten_libraries()
        try:
            main(sys.argv[1:] if arguments is None else arguments)
        except DepthbalError as error:
            print(f"error: {_message(error)}", file=sys.stderr)
            return 2
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            print(f"error: {error}; free disk space and try again", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130
    return 0


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

"""The errors a user can act on: what the tools report in one line, without a traceback."""


class DepthbalError(Exception):
    """Base of all errors that depthbal raises for a reason the user can mend."""


class DataError(DepthbalError, ValueError):
    """A file, split or depth map is missing, unreadable or plainly wrong."""


class ConfigError(DepthbalError, ValueError):
    """A setting is unknown, contradictory or cannot be met on this machine."""


class CheckpointError(DepthbalError, RuntimeError):
    """A checkpoint is truncated, foreign, or belongs to another model."""


class RunFolderError(DepthbalError, OSError):
    """A run folder already exists, is missing, or lacks a file."""


def first_line(error: BaseException) -> str:
    """Return an error in one line, as it goes into another's message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].strip()

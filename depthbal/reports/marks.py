"""How files written by this package are told from others, so that none is overwritten."""

from pathlib import Path

from depthbal.errors import RunFolderError

HTML_MARK = '<meta name="generator" content="depthbal">'
"""Stands in the head of every page."""

MARKDOWN_MARK = "<!-- depthbal report -->"
"""The first line of every report.md."""

_HEAD = 1 << 16


def require_replaceable(path: Path, mark: str, overwrite: bool = False) -> None:
    """Check, without touching anything, that a report may be written to ``path``.

    Args:
        path: file that need not exist.
        mark: what its first 64 kB hold if it is a report.
        overwrite: whether any other file may be replaced too.

    Raises:
        RunFolderError: a folder or a file that is no report is there.
    """
    if path.is_dir():
        raise RunFolderError(f"{path} is a folder; name a file, such as {path / 'report.html'}")
    if overwrite or not path.exists():
        return
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if mark.encode() not in head:
        raise RunFolderError(
            f"{path} is not a report of depthbal; choose another file with --out, or replace it "
            "with --overwrite"
        )

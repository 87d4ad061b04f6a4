"""Where the developers' reference files lie, if they are on this machine."""

import os
from pathlib import Path

import pytest


def find_shared() -> Path | None:
    """Return the folder with facts, golden values and real data, or None where there is none."""
    candidates = [os.environ.get("DEPTHBAL_SHARED"), Path(__file__).resolve().parents[2] / "shared"]
    for candidate in candidates:
        if candidate and (Path(candidate) / "golden").is_dir():
            return Path(candidate)
    return None


SHARED = find_shared()
needs_shared = pytest.mark.skipif(
    SHARED is None,
    reason="needs the developers' reference files (set DEPTHBAL_SHARED to their folder)",
)

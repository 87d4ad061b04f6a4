"""Holding samples out so that no scene lies on both sides."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from depthbal.errors import ConfigError

MIN_GROUPS, _MAX_BLOCKS, _BLOCK_ROWS = 10, 10, 8


class Division(NamedTuple):
    """Positions to keep and positions held out, both ascending, and how they were chosen."""

    kept: list[int]
    held_out: list[int]
    message: str


def hold_out(groups: Sequence[str], fraction: float, seed: int = 0) -> Division:
    """Hold out about `fraction` of the samples, whole groups (scene folders) where there are ten.

    With fewer groups, contiguous blocks of rows spread over the whole order are held out instead,
    because neighbouring frames mostly show the same scene. At least one sample is held out and one
    kept, unless the fraction is 0 or 1; a single sample is kept.
    """
    if not 0 <= fraction <= 1:
        raise ConfigError(f"expected a fraction between 0 and 1, got {fraction}")
    size = len(groups)
    if fraction == 0 or size == 1 > fraction:
        return Division(list(range(size)), [], f"nothing held out of {size} samples")
    if fraction == 1:
        return Division([], list(range(size)), "everything held out")
    rng = np.random.default_rng((seed, 0x5917))
    names = sorted(set(groups))
    wanted = min(max(1, round(fraction * size)), size - 1)
    if len(names) >= MIN_GROUPS:
        sizes, chosen, held = Counter(groups), set[str](), 0
        for name in rng.permutation(names).tolist():
            if held + sizes[name] <= wanted:
                chosen.add(name)
                held += sizes[name]
        chosen = chosen or {min(names, key=sizes.__getitem__)}
        out = {row for row, group in enumerate(groups) if group in chosen}
        how = f"in {len(chosen)} of {len(names)} folders"
    else:  # one block at a random place of each of as many equal stretches of rows
        blocks = min(_MAX_BLOCKS, max(wanted // _BLOCK_ROWS, min(2, wanted)))
        bounds = np.linspace(0, size, blocks + 1).astype(int)
        lengths = np.diff(np.linspace(0, wanted, blocks + 1).astype(int))
        out = set()
        for start, stop, length in zip(bounds[:-1], bounds[1:], lengths, strict=True):
            first = int(rng.integers(start, stop - length + 1))
            out.update(range(first, first + int(length)))
        how = (
            f"in {blocks} contiguous block(s) of rows: "
            f"{len(names)} folder(s) are fewer than {MIN_GROUPS}"
        )
    kept = [row for row in range(size) if row not in out]
    return Division(kept, sorted(out), f"{len(out)} of {size} samples held out, {how}")

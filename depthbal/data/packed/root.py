"""A packed file in the place of a data module's root folder."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from depthbal.data.packed.format import open_packed
from depthbal.data.packed.origin import Kind, check_unchanged
from depthbal.data.packed.pairs import PackedPairs, packed_splits
from depthbal.errors import ConfigError, DataError


def open_root(
    root: Path,
    split: str,
    kinds: Sequence[Kind],
    short_side: int | None,
    given: dict[str, tuple[Any, Any]],
) -> PackedPairs:
    """Return a split of a packed file, if it holds what the data module would have read itself.

    Args:
        root: the packed file.
        split: "train", "val", "test" or "whole".
        kinds: the sources that the data module reads.
        short_side: the data module's.
        given: its other settings of reading and their defaults; one that is not the default must
            be what the file was packed with.

    Raises:
        ConfigError: a setting contradicts the file.
        DataError: see `PackedPairs`; packed from another kind of source; or that source changed.
    """
    pairs = PackedPairs(root, split)
    origin = pairs.origin
    if origin.kind not in kinds:
        reader = "FolderDataModule" if origin.kind == "folder" else "NYUD2DataModule"
        raise DataError(f"{root} was packed from {origin.path}; read it with {reader}")
    if pairs.short_side is not None and pairs.short_side != short_side:
        raise ConfigError(
            f"{root} holds pictures of short side {pairs.short_side}, and short_side is "
            f"{short_side}; set short_side: {pairs.short_side}, or pack again with --short-side"
        )
    for name, (value, default) in given.items():
        packed = origin.settings.get(name, default)
        if not (_same(value, default) or _same(value, packed)):
            raise ConfigError(
                f"{root} was packed with {name}: {packed}, and {name} is {value}; leave it out, "
                "or pack again"
            )
    check_unchanged(origin, split, pairs.origin_fingerprint, root)
    return pairs


def _same(one: Any, other: Any) -> bool:
    return bool(one == other) or json.dumps(one) == json.dumps(other)  # NaN equals NaN as text


def splits_in(root: Path) -> list[str]:
    """Return the splits of a packed file: "train", "val" and "test", or "whole"."""
    with open_packed(root) as file:
        return packed_splits(file)

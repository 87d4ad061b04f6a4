"""The files of an own data set: pairs by name, and what their depth means."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from pytorch_lightning.utilities import rank_zero_warn

from depthbal.data.files import FilePairs
from depthbal.data.images import DEPTH_SUFFIXES, IMAGE_SUFFIXES, read_depth
from depthbal.data.matching import match_pairs


def has_split_folders(root: Path) -> bool:
    """Return whether the splits of a data set are folders of their own: ROOT/train exists."""
    return (root / "train").is_dir()


def folder_pairs(
    folder: Path, rgb: str, depth: str, scale: float | None, invalid: Sequence[float]
) -> FilePairs:
    """Return the pairs of a folder; arguments as for `FolderDataModule`.

    Raises:
        DataError: a folder is missing, or no image has a depth file.
    """
    pairs, single = match_pairs(folder, rgb, depth, IMAGE_SUFFIXES, DEPTH_SUFFIXES)
    if single:
        rank_zero_warn(
            f"{folder}: {len(single)} files have no partner and are left out "
            f"(the first: {single[0]}); {len(pairs)} pairs remain"
        )
    reader = partial(read_depth, scale=scale, invalid=tuple(invalid))
    return FilePairs(folder, pairs, reader, f"scale={scale} invalid={tuple(invalid)}")

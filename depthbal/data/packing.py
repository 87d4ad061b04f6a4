"""Packing a source into one file, from start to end: what ``tools/prepare_nyud2.py`` does."""

import json
import logging
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from depthbal.data.datamodule import DepthDataModule
from depthbal.data.folder import FolderDataModule
from depthbal.data.nyud2 import NYUD2DataModule
from depthbal.data.nyud2_files import BALANCED_MASK, find_data_dir
from depthbal.data.packed.format import open_packed, partial_path
from depthbal.data.packed.mask import read_mask
from depthbal.data.packed.origin import Origin, open_split, split_fingerprint, splits_of
from depthbal.data.packed.prepare import Plan, plan_split
from depthbal.data.packed.sources import Packable
from depthbal.data.packed.writer import add_histogram, create_packed, faulty_samples, fill, seal
from depthbal.errors import ConfigError, DataError

logger = logging.getLogger("depthbal.data")

_COMMON_VAL_FRACTIONS = (0.0, 0.05)  # the published protocol's, and the data modules' default


def pack(
    origin: Origin,
    out: Path,
    short_side: int | None = 240,
    overwrite: bool = False,
    progress: bool = True,
) -> bool:
    """Pack a source into one file; an interrupted call is resumed by the next one.

    The file lies beside its place, with the suffix ``.partial``, until every sample has been read
    back and found equal to what was written.

    Args:
        origin: the source, from `find_origin`.
        out: the file to write.
        short_side: pixels of the shorter image side; None keeps the sizes.
        overwrite: replace a file, or the unfinished packing of another source.
        progress: show progress bars where there is a terminal.

    Returns:
        False where `out` already is this source, packed in this way.

    Raises:
        ConfigError: `short_side` is not positive.
        DataError: the source is damaged or changes meanwhile, or `out` holds something else.
    """
    if out.is_dir() or out.resolve() == Path(origin.path):
        raise DataError(f"{out} is a folder or the source itself; name another file with --out")
    fingerprints = {split: split_fingerprint(origin, split) for split in splits_of(origin)}
    wanted = (origin.to_json(), fingerprints, short_side)
    if out.exists() and not overwrite:
        _refuse_other(out, wanted)
        return False
    partial = partial_path(out)
    if partial.exists():
        _remove_other(partial, wanted, overwrite)
    sources = {split: open_split(origin, split) for split in fingerprints}
    plans = {
        split: plan_split(source, split, short_side, progress) for split, source in sources.items()
    }
    if not partial.exists():
        mask = _official_mask(origin, len(sources["test"])) if "test" in sources else None
        create_packed(partial, origin, fingerprints, short_side, plans, mask)
    _fill_and_verify(partial, sources, plans, progress)
    if {split: split_fingerprint(origin, split) for split in fingerprints} != fingerprints:
        raise DataError(f"{origin.path} changed while it was packed; pack it again (--overwrite)")
    seal(partial)
    _count_common(partial, origin, short_side, progress)
    partial.replace(out)
    return True


def _refuse_other(out: Path, wanted: tuple[Any, ...]) -> None:
    """Return where a finished file is what is wanted, and raise a DataError for anything else."""
    try:
        same = _is_packing_of(out, wanted, complete=True)
    except DataError as error:
        raise DataError(
            f"{out} exists and is not replaced without --overwrite ({error})"
        ) from error
    if not same:
        raise DataError(
            f"{out} exists, packed from another source, an earlier state of it or with other "
            "settings; give --overwrite to replace it, or another --out"
        )


def _remove_other(partial: Path, wanted: tuple[Any, ...], overwrite: bool) -> None:
    """Keep an unfinished packing of what is wanted; remove another one where that is allowed."""
    try:
        same = _is_packing_of(partial, wanted)
    except DataError as error:
        if not overwrite or isinstance(error.__cause__, BlockingIOError):
            raise
        same = False
    if same:
        return
    if not overwrite:
        raise DataError(
            f"{partial} is the unfinished packing of another source, state of it or setting; "
            "finish or remove it, or give --overwrite"
        )
    partial.unlink()


def _is_packing_of(path: Path, wanted: tuple[Any, ...], complete: bool = False) -> bool:
    with open_packed(path, complete) as file:
        short_side = int(file.attrs["short_side"]) or None
        found = (file.attrs["origin"], json.loads(file.attrs["fingerprints"]), short_side)
        return found == wanted


def _fill_and_verify(
    path: Path, sources: dict[str, Packable], plans: dict[str, Plan], progress: bool
) -> None:
    for split, source in sources.items():
        fill(path, split, source, plans[split], progress)
        faulty = faulty_samples(path, split, progress)
        if faulty:  # of a packing that the machine, not a signal, cut off
            fill(path, split, source, plans[split], progress)
            faulty = faulty_samples(path, split, progress)
        if faulty:
            raise DataError(
                f"{path}: {len(faulty)} samples of the {split} split do not read back as they were "
                f"written (the first: {plans[split].names[faulty[0]]}); check the disk"
            )


def _official_mask(origin: Origin, count: int) -> NDArray[Any] | None:
    """Return the mask beside the test list, where there is one."""
    if origin.kind != "nyud2":
        return None
    file = find_data_dir(Path(origin.path), origin.settings["test_csv"]) / BALANCED_MASK
    if not file.is_file():
        return None
    mask = read_mask(file)
    if len(mask) != count:
        raise DataError(f"{file}: {len(mask)} masks for {count} test images; fetch it again")
    return mask


def _count_common(path: Path, origin: Origin, short_side: int | None, progress: bool) -> None:
    """Put the training histograms of the data module's common settings into the file."""
    kind: type[DepthDataModule]
    kind = FolderDataModule if origin.kind == "folder" else NYUD2DataModule
    for val_fraction in _COMMON_VAL_FRACTIONS:
        logger.info("Counting the training depth for val_fraction %g", val_fraction)
        module = kind(path, short_side=short_side, num_workers=0, val_fraction=val_fraction)
        try:
            module.setup("fit")
            histogram = module.train_histogram(progress)
        except (DataError, ConfigError) as error:
            logger.info("Not counted, training will do it: %s", error)
            return
        add_histogram(path, module.fingerprint(), histogram.to_dict())

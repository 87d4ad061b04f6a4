"""The layout of a packed file, and opening one with plain errors.

    /             format, version, complete (0 until verified), short_side (0: sizes kept),
                  origin and fingerprints (JSON: of the source's splits when they were packed)
    /histograms   JSON in bytes, padded with zeros: histograms by `DepthDataModule.fingerprint`
    /SPLIT        scale (metres per level), content (digest of all that follows)
      image       uint8 (N, H, W, 3), one chunk per sample, no filter
      depth       uint8 or uint16 (N, H, W), levels, 0 = no depth, likewise
      size        (N, 2), the height and width that a sample fills of H x W
      name, group text
      checksum    CRC-32 of image, then depth, checked whenever both are loaded
      done        1 where a sample is written
      balanced_mask  optional, uint8 (N, h, w): the official test pixels

Everything is allocated when the file is created, and from then on only bytes in place are written:
whatever the moment a process is killed, the file opens.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from depthbal.errors import DataError, DepthbalError

FORMAT = "depthbal packed pairs"
VERSION = 1
PARTIAL = ".partial"  # appended to a file's name until it is complete and verified
SUFFIXES = (".h5", ".hdf5")
_TOOL = "tools/prepare_nyud2.py"


def is_packed_root(root: Path) -> bool:
    """Return whether a data module's root means a packed file rather than a folder."""
    return root.is_file() or (root.suffix.lower() in SUFFIXES and not root.is_dir())


def partial_path(path: Path) -> Path:
    """Return where a file lies while it is packed."""
    return path.with_name(path.name + PARTIAL)


@contextmanager
def open_packed(path: Path, complete: bool = True) -> Iterator[Any]:
    """Open a packed file for reading.

    Args:
        path: the file.
        complete: refuse one that is not finished.

    Raises:
        DataError: missing, truncated, foreign, of another version, or unfinished.
    """
    with _open(path) as file:
        try:
            check_format(file, path)
            if complete and not file.attrs["complete"]:
                raise DataError(
                    f"{path} is unfinished; run {_TOOL} again with the same arguments to resume"
                )
            yield file
        except DepthbalError:
            raise
        except (ArithmeticError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
            # damage shows as whatever the bytes happen to say: text, numbers, JSON or structure
            raise DataError(f"{path} is damaged ({error}); pack it again (--overwrite)") from error


def check_format(file: Any, path: Path) -> None:
    """Check that an open HDF5 file is a packed one of this version.

    Raises:
        DataError: foreign, or of another version.
    """
    if file.attrs.get("format") != FORMAT:
        raise DataError(f"{path} is an HDF5 file, but not one written by {_TOOL}")
    version = int(file.attrs.get("version", 0))
    if version != VERSION:
        raise DataError(
            f"{path} has version {version} of the format, and this depthbal reads version "
            f"{VERSION}; pack it again (--overwrite)"
        )


def file_state(path: int | Path) -> tuple[int, int, int]:
    """Return what changes when a file (or an open descriptor's) is replaced or written to."""
    status = os.stat(path)
    return status.st_ino, status.st_size, status.st_mtime_ns


def read_texts(dataset: Any) -> list[str]:
    """Return a data set of strings."""
    return [str(text) for text in dataset.asstr()[()]]


def read_histograms(file: Any) -> dict[str, Any]:
    """Return the stored histograms, described as by `Histogram.to_dict`, by fingerprint."""
    text = file["histograms"][()].tobytes().rstrip(b"\0")
    content: dict[str, Any] = json.loads(text) if text else {}
    return content


def _open(path: Path) -> Any:
    if not path.is_file():
        waiting = partial_path(path)
        hint = f"; {waiting.name} is its unfinished packing: run {_TOOL} again to resume"
        raise DataError(f"{path} does not exist{hint if waiting.is_file() else ''}")
    try:
        return h5py.File(path, "r")
    except BlockingIOError as error:
        raise DataError(f"{path} is being packed by another process; wait for it") from error
    except OSError as error:
        reason = "truncated or damaged" if h5py.is_hdf5(path) else "not an HDF5 file"
        raise DataError(
            f"{path}: {reason} ({error}); expected a file written by {_TOOL}"
        ) from error

"""The published csv lists: one `image path,depth path` per row, no header."""

import csv
import posixpath
from pathlib import Path

from depthbal.data.files import first_missing
from depthbal.errors import DataError

_TOP = "data"


def read_pairs_csv(path: Path, data_dir: Path) -> list[tuple[str, str]]:
    """Read and check a list of pairs.

    Args:
        path: the csv file; its paths start with ``data/``, which stands for `data_dir`.
        data_dir: the folder that the rest of every path is relative to.

    Returns:
        (image path, depth path) per row, relative to `data_dir`.

    Raises:
        DataError: naming row and path: a missing, empty or undecodable list, a row without exactly
            two columns, a path that leaves `data_dir`, or a file that does not exist.
    """
    pairs = []
    numbers = []  # row numbers as an editor shows them, blank lines counted
    for number, row in _rows(path):
        if len(row) != 2 or not all(row):
            raise DataError(
                f"{path}, row {number}: expected 2 columns (image path,depth path), got "
                f"{len(row)}: {','.join(row)!r}"
            )
        pairs.append(tuple(_inside(entry, f"{path}, row {number}") for entry in row))
        numbers.append(number)
    if not pairs:
        raise DataError(f"{path}: the list is empty; expected rows 'image path,depth path'")
    flat = [entry for pair in pairs for entry in pair]
    missing = first_missing(data_dir, flat)
    if missing is not None:
        position, entry = missing
        raise DataError(
            f"{path}, row {numbers[position // 2]}: {data_dir / entry} does not exist; "
            "complete the download or remove the row"
        )
    return [(image, depth) for image, depth in pairs]


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.reader(lines)
            return [
                (reader.line_num, [entry.strip() for entry in row]) for row in reader if any(row)
            ]
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a csv text file ({error})") from error


def _inside(entry: str, where: str) -> str:
    """Return the path relative to the data folder; refuse one that leads out of it."""
    relative = posixpath.normpath(entry)
    first, _, rest = relative.partition("/")
    if first == _TOP and rest:
        relative = rest
    if relative.startswith(("/", "../")) or relative in (".", ".."):
        raise DataError(
            f"{where}: {entry!r} leaves the data folder; expected a path like "
            "data/nyu2_train/SCENE_out/1.jpg"
        )
    return relative

"""Images in a folder with their labels in a csv file, as the age benchmarks are published."""

import csv
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthbal.adapters.age.data import SPLITS, LabelDataModule, SplitName
from depthbal.data.files import files_digest, missing_files
from depthbal.data.images import read_image
from depthbal.data.inspection import inspect_split
from depthbal.data.pairs import Image
from depthbal.errors import DataError

_SHOWN = 5
Rows = dict[SplitName, tuple[NDArray[np.float64], list[str]]]


class FileImages:
    """Image files with labels.

    Args:
        root: the folder that the paths are relative to.
        paths: (N,) image files, with forward slashes.
        labels: (N,) float64.
    """

    def __init__(self, root: Path, paths: list[str], labels: NDArray[np.float64]) -> None:
        self.root, self.paths, self.labels = root, paths, labels

    def __len__(self) -> int:
        return len(self.paths)

    def image(self, index: int) -> Image:
        """Return one image, uint8 (H, W, 3) RGB."""
        return read_image(self.root / self.paths[index])

    def name(self, index: int) -> str:
        """Return the path, as the csv file has it."""
        return self.paths[index]

    def files(self, index: int) -> tuple[str, None]:
        """Return the image's file, which has no depth beside it (see `inspect_split`)."""
        return str(self.root / self.paths[index]), None

    def fingerprint(self) -> str:
        """Return a digest of all labels and of all names, sizes and modification times."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        return files_digest(self.root, self.paths, json.dumps(self.labels.tolist()))


class AgeDataModule(LabelDataModule):
    """Read images and labels by a csv file with a header, such as ``age,path,split``.

    This is the form of the published IMDB-WIKI-DIR and AgeDB-DIR benchmarks. Any label will do:
    whole or real numbers, in a column of any name. The split is ``train``, ``val`` or ``test``;
    other columns are ignored, and rows may repeat.

    Args:
        root: the folder that the paths in the csv file are relative to.
        csv: the csv file, relative to `root` or absolute.
        label: the column that holds the label, and the label's name.
        **kwargs: as for `LabelDataModule`.

    Raises:
        DataError: naming file and rows: columns that are missing, labels that are no finite
            numbers, unknown splits, no training or test rows; in `check_root` and `setup`, image
            files that are missing (how many of each split, and the first five), in `setup`,
            truncated or unreadable ones.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> rows = "age,path,split\\n31,a.png,train\\n7,b.png,test\\n"
        >>> _ = (folder / "ages.csv").write_text(rows)
        >>> AgeDataModule(folder, "ages.csv").bins().shots[-1]  # of a single image of age 31
        'few'
    """

    def __init__(self, root: str | Path, csv: str | Path, *, label: str = "age", **kwargs: Any):
        super().__init__(label=label, **kwargs)
        self.root = Path(root).expanduser()
        self.csv = self.root / Path(csv).expanduser()

    def labels(self, split: SplitName) -> NDArray[np.float64]:
        """Return the labels of a split, float64 (N,)."""
        return self._rows[split][0]

    def check_root(self) -> None:
        """Check the whole csv file, and that the images are there, without reading any."""
        self.bins()
        self._require_images(SPLITS)

    def setup(self, stage: str | None = None) -> None:
        """Build and check the splits; only the test split for stage "test".

        Raises:
            DataError: images are missing, truncated or unreadable.
        """
        self._require_images(("test",) if stage == "test" else SPLITS)
        super().setup(stage)

    def source(self, split: SplitName) -> FileImages | None:
        """Return the images of a split; None for validation without rows.

        Raises:
            DataError: images are truncated or unreadable.
        """
        labels, paths = self._rows[split]
        if not paths:
            return None
        source = FileImages(self.root, paths, labels)
        inspect_split(source, split, values=False)
        return source

    def source_name(self) -> str:
        """Return the csv file."""
        return str(self.csv.absolute())

    @cached_property
    def _rows(self) -> Rows:
        if not self.root.is_dir():
            raise DataError(
                f"{self.root.absolute()} is no folder; give --data.root the one that the column "
                "'path' of the csv file is relative to"
            )
        return read_labels_csv(self.csv, self.label)

    def _require_images(self, splits: Sequence[SplitName]) -> None:
        paths = {split: self._rows[split][1] for split in splits}
        gone = {s: [path for _, path in missing_files(self.root, paths[s])] for s in splits}
        if missing := [path for split in splits for path in gone[split]]:
            counts = [f"{len(gone[s])} of {len(paths[s])} for {s}" for s in splits if gone[s]]
            raise DataError(
                f"{len(missing)} images ({', '.join(counts)}) are not in {self.root.absolute()}: "
                f"{_first(missing)}; give --data.root the folder that the column 'path' of "
                f"{self.csv} is relative to, complete it, or remove the rows"
            )


def read_labels_csv(path: Path, label: str) -> Rows:
    """Return labels float64 (N,) and image paths of every split in a csv file.

    Args:
        path: the csv file; its header has the columns `label`, ``path`` and ``split``.
        label: the column that holds the label.

    Raises:
        DataError: as for `AgeDataModule`, apart from the images themselves.
    """
    rows = _read_rows(path, label)
    splits = Counter(row["split"] for row in rows.values())
    if unknown := sorted(set(splits) - set(SPLITS)):
        named = ", ".join(f"{name!r} in {splits[name]} rows" for name in unknown)
        raise DataError(
            f"{path}: unknown values in the column 'split' ({named}); expected train, val or test"
        )
    for needed in ("train", "test"):
        if not splits[needed]:
            found = ", ".join(f"{name} in {count}" for name, count in splits.items())
            raise DataError(
                f"{path}: no row has {needed!r} in the column 'split' ({found or 'no rows at all'})"
            )
    values = {number: _number(row[label]) for number, row in rows.items()}
    wrong = [f"row {n}: {rows[n][label]!r}" for n, value in values.items() if value is None]
    if wrong:
        raise DataError(
            f"{path}: {len(wrong)} of {len(rows)} labels in the column {label!r} are no finite "
            f"numbers: {_first(wrong)}; mend or remove the rows, or give the name of another "
            "column with --data.label"
        )
    return {
        split: (
            np.array([values[n] for n, row in rows.items() if row["split"] == split], np.float64),
            [row["path"] for row in rows.values() if row["split"] == split],
        )
        for split in SPLITS
    }


def _read_rows(path: Path, label: str) -> dict[int, dict[str, str]]:
    """Return the wanted columns of all rows, by their number as an editor shows it."""
    wanted = (label, "path", "split")
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines, skipinitialspace=True)
            columns = [column.strip() for column in reader.fieldnames or []]
            if lacking := [column for column in wanted if column not in columns]:
                raise DataError(
                    f"{path}: no column {', '.join(map(repr, lacking))}; its columns are "
                    f"{', '.join(columns) or 'none'}; expected a header with {', '.join(wanted)}"
                    + "; give the name of the label's column with --data.label"
                    * (label in lacking)
                )
            reader.fieldnames = columns
            rows = {}
            for row in reader:
                rows[reader.line_num] = {key: (row[key] or "").strip() for key in wanted}
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror or error}); give --data.csv a csv file, "
            "relative to --data.root or absolute"
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a csv text file ({error}); see --data.csv") from error
    if pathless := [f"row {number}" for number, row in rows.items() if not row["path"]]:
        raise DataError(
            f"{path}: the column 'path' is empty in {len(pathless)} of {len(rows)} rows: "
            f"{_first(pathless)}"
        )
    return rows


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def _first(items: Iterable[str]) -> str:
    listed = list(items)
    return ", ".join(listed[:_SHOWN]) + (", ..." if len(listed) > _SHOWN else "")

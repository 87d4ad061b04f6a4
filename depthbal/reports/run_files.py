"""The files of a run folder, read with errors that name the file and the way out."""

import csv
import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

import depthbal
from depthbal.errors import RunFolderError

AGAIN = "evaluate the run again (depth: tools/evaluate.py RUN)"
Array = npt.NDArray[Any]
Key = tuple[str, str]
"""(subset, read-out): subset "mask" (balanced mask; only where there is one) or "all"."""

_DAMAGE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


def metrics_files(run: Path, checkpoint: str) -> list[Path]:
    """Return a run's metrics file and those of balancing afterwards, by increasing sigma.

    Raises:
        RunFolderError: there is no such folder, it is no run, or it was never evaluated.
    """
    if not run.is_dir():
        raise RunFolderError(f"there is no run folder {run}")
    stem = "metrics" if checkpoint == "last" else f"metrics_{checkpoint}"
    own = run / f"{stem}.json"
    if not own.is_file():
        if not (run / "config.yaml").is_file():
            raise RunFolderError(f"{run} is not a run folder: it has no config.yaml")
        option = "" if checkpoint == "last" else f" --checkpoint {checkpoint}"
        raise RunFolderError(
            f"{run} is incomplete: it has no {own.name}, because its training has not ended or it "
            f"was not evaluated; finish it, or evaluate it (depth: tools/evaluate.py {run}{option})"
        )
    prefix = f"{stem}_posthoc_"
    found = {path: _number(path.stem.removeprefix(prefix)) for path in run.glob(f"{prefix}*.json")}
    known = {path: sigma for path, sigma in found.items() if sigma is not None}
    return [own, *sorted(known, key=lambda path: known[path])]


def beside(metrics: Path, name: str, suffix: str) -> Path:
    """Return the file of the same evaluation, such as per_image_posthoc_1.npz.

    Example:
        >>> beside(Path("run/metrics_best.json"), "per_image", ".npz").name
        'per_image_best.npz'
    """
    return metrics.with_name(name + metrics.stem.removeprefix("metrics") + suffix)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of finite numbers.

    Raises:
        RunFolderError: it is missing, damaged, no object, or holds NaN.
    """

    def refuse(constant: str) -> NoReturn:
        raise RunFolderError(
            f"{path} holds {constant} where a number belongs: the network predicted no numbers or "
            f"the file is from elsewhere; {AGAIN}"
        )

    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    except RunFolderError:
        raise
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path} cannot be read as JSON ({error}); {AGAIN}") from error
    if not isinstance(content, dict):
        raise RunFolderError(f"{path} holds no JSON object; {AGAIN}")
    return content


def foreign(path: Path, lack: str) -> RunFolderError:
    """Return the error of a file in another form: damaged, or written by another version."""
    versions = path.parent / "versions.json"
    wrote = read_json(versions).get("depthbal", "unknown") if versions.is_file() else "unknown"
    if wrote == depthbal.__version__:
        return RunFolderError(f"{path} {lack}: it is damaged; {AGAIN}")
    return RunFolderError(
        f"{path} {lack}: it is damaged, or in the format of another version of depthbal (the run: "
        f"{wrote}, this is {depthbal.__version__}); update depthbal, or {AGAIN}"
    )


class Arrays(Mapping[str, Array]):
    """The arrays of an npz file, read at every access and not kept.

    Raises:
        RunFolderError: the file is missing or damaged, on construction or access.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise RunFolderError(f"{path} is missing; {AGAIN}")
        try:
            with np.load(path, allow_pickle=False) as file:
                self._names = tuple(file.files)
        except (*_DAMAGE, AttributeError) as error:  # a bare npy array has no context
            raise self._damaged(error) from error

    def __getitem__(self, name: str) -> Array:
        if name not in self._names:
            raise KeyError(name)
        try:
            with np.load(self.path, allow_pickle=False) as file:
                array: Array = file[name]
        except _DAMAGE as error:
            raise self._damaged(error) from error
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise RunFolderError(f"{self.path}: {name} holds values that are not finite; {AGAIN}")
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def _damaged(self, error: Exception) -> RunFolderError:
        return RunFolderError(f"{self.path} is damaged ({error}); {AGAIN}")


class Sums(Mapping[Key, npt.NDArray[np.float64]]):
    """Sums per image and bin by (subset, read-out), read at every access and not kept.

    Args:
        arrays: of per_image.npz.
        members: the array's name of every key.
    """

    def __init__(self, arrays: Arrays, members: Mapping[Key, str]) -> None:
        self._arrays = arrays
        self._members = dict(members)

    def __getitem__(self, key: Key) -> npt.NDArray[np.float64]:
        return self._arrays[self._members[key]].astype(np.float64, copy=False)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)


def read_curves(path: Path) -> dict[str, tuple[Array, Array]]:
    """Read metrics.csv: column -> (steps, values), both float64; numbers that are not finite go.

    Raises:
        RunFolderError: it is missing or has no column of steps.
    """
    points: dict[str, list[tuple[float, float]]] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                step = float(row["step"])
                for column, text in row.items():
                    if column not in ("step", "epoch") and text:
                        points.setdefault(column, []).append((step, float(text)))
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise RunFolderError(f"{path} cannot be read ({error!r})") from error
    curves = {}
    for column, pairs in points.items():
        values = np.array(pairs, dtype=np.float64)
        values = values[np.isfinite(values).all(1)]
        if len(values):
            curves[column] = (values[:, 0], values[:, 1])
    return curves


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None

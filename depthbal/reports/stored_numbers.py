"""The numbers of one evaluation: metrics.json and the sums it follows from, checked."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from depthbal.errors import RunFolderError
from depthbal.evaluation import DEPTH, GROUPS, DepthBins, Label, LabelBins, metrics_of
from depthbal.evaluation.calibration import calibration
from depthbal.evaluation.scores import scores
from depthbal.reports.metrics_file import read_metrics
from depthbal.reports.run_files import AGAIN, Arrays, Key, Sums, beside, foreign

NEEDED = ("sums_all", "terms", "edges", "shots", "scored", "names", "main")

# The root of a difference that cancels: where all ratios are equal only rounding is left, which
# depends on the order of the sums.
_ROUNDING = {"silog": 1e-4}


def read_numbers(file: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the numeric fields of a `RunResult` by name, and what is missing, in words.

    Args:
        file: metrics.json, or that of balancing afterwards.

    Raises:
        RunFolderError: a file is missing, damaged, of another version, holds NaN, or the two do
            not belong together.
    """
    metrics = read_metrics(file)
    arrays = Arrays(beside(file, "per_image", ".npz"))
    for name in NEEDED:
        if name not in arrays:
            raise foreign(arrays.path, f"lacks {name}")
    protocol = metrics["protocol"]
    terms = tuple(str(term) for term in arrays["terms"])
    names = tuple(str(name) for name in arrays["names"])
    main, main_metric = str(arrays["main"]), str(protocol.get("main_metric", "rmse"))
    if main != protocol.get("readout", main):
        raise _apart(file, f"its main read-out is {main!r}")
    if main_metric not in metrics_of(terms):
        raise foreign(file, f"has protocol.main_metric {main_metric!r}")
    bins = _bins(arrays, protocol)
    sums = Sums(arrays, _members(arrays, "sums", main))
    pooled, counts = _pool(sums, arrays.path, (len(names), len(bins), len(terms)), terms)
    _require_belonging(file, metrics, pooled, bins, terms, main)
    joint = {
        key: _shaped(arrays, name, (len(bins), len(bins) + 2))
        for key, name in _members(arrays, "joint", main).items()
    }
    coverage = {
        subset: _shaped(arrays, f"coverage_{subset}", (len(bins), 2))
        for subset in ("mask", "all")
        if f"coverage_{subset}" in arrays
    }
    _require_tables(file, metrics, pooled, joint, coverage, bins, terms.index("count"))
    groups = tuple(map(str, arrays["groups"])) if "groups" in arrays else ("",) * len(names)
    if len(groups) != len(names):
        raise RunFolderError(f"{arrays.path}: {len(groups)} groups of {len(names)} images; {AGAIN}")
    numbers = {
        "metrics": metrics,
        "sums": sums,
        "pooled": pooled,
        "counts": counts,
        "joint": joint,
        "coverage": coverage,
        "terms": terms,
        "bins": bins,
        "names": names,
        "groups": groups,
        "main": main,
        "label": _label(protocol),
        "main_metric": main_metric,
    }
    return numbers, _missing(metrics, arrays, terms)


def _bins(arrays: Arrays, protocol: Mapping[str, Any]) -> LabelBins:
    rule = protocol.get("bins", {}).get("shot_rule", "")
    shots = [str(shot) for shot in arrays["shots"]]
    try:
        kind = DepthBins if _label(protocol) == DEPTH else LabelBins
        return kind(arrays["edges"], shots, scored=arrays["scored"], shot_rule=rule)
    except ValueError as error:
        raise RunFolderError(f"{arrays.path}: {error}; {AGAIN}") from error


def _label(protocol: Mapping[str, Any]) -> Label:
    found = protocol.get("label")
    return Label(str(found["name"]), str(found["unit"])) if found else DEPTH


def _members(arrays: Arrays, kind: str, main: str) -> dict[Key, str]:
    """Return the names of arrays such as sums_mask_raw by (subset, read-out)."""
    found = {}
    for subset in ("mask", "all"):
        stem = f"{kind}_{subset}"
        for name in arrays:
            if name == stem or name.startswith(f"{stem}_"):
                found[subset, name[len(stem) + 1 :] or main] = name
    return dict(sorted(found.items(), key=lambda item: (item[0][0] == "all", item[0][1] != main)))


def _shaped(arrays: Arrays, name: str, shape: tuple[int, ...]) -> Any:
    values = arrays[name]
    if values.shape != shape:
        raise foreign(arrays.path, f"has {name} of shape {values.shape} instead of {shape}")
    return values


def _pool(
    sums: Sums, path: Path, shape: tuple[int, int, int], terms: tuple[str, ...]
) -> tuple[dict[Key, Any], Any]:
    """Return the sums over images, and the pixels per image and bin without the mask."""
    pooled, counts = {}, np.zeros(shape[:2])
    for key in sums:
        values = sums[key]
        if values.shape != shape or "count" not in terms:
            raise foreign(path, f"has sums of shape {values.shape} instead of {shape}")
        pooled[key] = values.sum(0)
        if key[0] == "all":
            counts = values[..., terms.index("count")].copy()
    return pooled, counts


def _require_belonging(
    file: Path,
    metrics: Mapping[str, Any],
    pooled: Mapping[Key, Any],
    bins: LabelBins,
    terms: tuple[str, ...],
    main: str,
) -> None:
    """Compute the numbers of groups and bins again; they are those of the metrics file."""
    headline = "mask" if ("mask", main) in pooled else "all"
    for key, block in _blocks(metrics, headline, main):
        means = block.get("per_bin_mean")
        for group, (count, row, mean) in _group_rows(pooled[key], bins, terms).items():
            same = _same(block[group], row, count)
            if not (same and (means is None or _same(means[group], mean, count))):
                raise _apart(file, f"its sums give other numbers for {group} ({' '.join(key)})")
    sums, names = pooled[headline, main], metrics_of(terms)
    of_bins = scores(torch.as_tensor(sums), terms).tolist()
    for row in metrics.get("bins", ()):
        b = row["bin"]
        if not 0 <= b < len(bins):
            raise _apart(file, f"it has {len(bins)} bins, none of them bin {b}")
        found = dict(zip(names, of_bins[b], strict=True))
        if not _same(row, found, float(sums[b, terms.index("count")])):
            raise _apart(file, f"its sums give other numbers for bin {b}")


def _blocks(
    metrics: Mapping[str, Any], headline: str, main: str
) -> Iterator[tuple[Key, Mapping[str, Any]]]:
    """Yield the parts of a metrics file that have numbers by shot, and the sums they follow from.

    The main read-out's stand in it twice, and both are shown.
    """
    for readout, block in ((main, metrics), *metrics.get("readout", {}).items()):
        yield (headline, readout), block
        if "all_pixels" in block:
            yield ("all", readout), block["all_pixels"]


def _require_tables(
    file: Path,
    metrics: Mapping[str, Any],
    pooled: Mapping[Key, Any],
    joint: Mapping[Key, Any],
    coverage: Mapping[str, Any],
    bins: LabelBins,
    column: int,
) -> None:
    """Compare what follows from the other tables: bins, truths per bin, coverage by shot."""
    described, stated_bins = bins.describe(), metrics["protocol"].get("bins", {})
    for name in ("edges", "scored", "shots"):
        if stated_bins.get(name, described[name]) != described[name]:
            raise _apart(file, f"its {name} are others than those of protocol.bins")
    for key, table in joint.items():
        if key in pooled and not np.array_equal(table.sum(1), pooled[key][:, column]):
            raise _apart(file, f"its joint histogram counts other truths ({' '.join(key)})")
    for subset, counts in coverage.items():
        stated = (metrics.get("calibration") or {}).get(subset)
        if stated != calibration(counts, bins):
            raise _apart(file, f"its intervals cover other shares ({subset})")


def _apart(file: Path, how: str) -> RunFolderError:
    path = beside(file, "per_image", ".npz")
    return RunFolderError(f"{path} does not belong to {file.name}: {how}; {AGAIN}")


def _group_rows(
    pooled: Any, bins: LabelBins, terms: tuple[str, ...]
) -> dict[str, tuple[float, dict[str, float], dict[str, float]]]:
    """Return per group its count, its metrics pooled, and as means over its non-empty bins."""
    member, column, names = bins.groups().numpy(), terms.index("count"), metrics_of(terms)
    of_bins = scores(torch.as_tensor(pooled), terms).numpy()
    of_groups = scores(torch.as_tensor(member @ pooled), terms).numpy()
    found = {}
    for g, group in enumerate(GROUPS):
        filled = (member[g] > 0) & (pooled[:, column] > 0)
        means = of_bins[filled].mean(0) if filled.any() else of_groups[g]
        row, mean = (dict(zip(names, x.tolist(), strict=True)) for x in (of_groups[g], means))
        found[group] = float(pooled[filled, column].sum()), row, mean
    return found


def _same(stored: Mapping[str, Any], found: Mapping[str, float], count: float) -> bool:
    if stored.get("count") != round(count):
        return False
    both = {name: (stored[name], found[name]) for name in found if name in stored}
    if not count:
        return all(value is None for value, _ in both.values())
    return all(
        isinstance(a, int | float)
        and math.isclose(a, b, rel_tol=1e-6, abs_tol=_ROUNDING.get(name, 1e-9))
        for name, (a, b) in both.items()
    )


def _missing(metrics: Mapping[str, Any], arrays: Arrays, terms: tuple[str, ...]) -> list[str]:
    gaps = []
    if not any(name.startswith("joint_") for name in arrays) and "error" in terms:
        gaps.append(f"no joint histogram of truth and prediction; {AGAIN}")
    if "calibration" not in metrics:
        gaps.append(f"no coverage of the intervals that sigma gives; {AGAIN}")
    if "groups" not in arrays:
        gaps.append(f"no scenes of the test images; {AGAIN}")
    return gaps

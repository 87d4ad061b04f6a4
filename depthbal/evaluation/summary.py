"""From sums per bin to the reported numbers: pooled, mean over images, mean over bins."""

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from depthbal.errors import DataError
from depthbal.evaluation.bins import SHOTS, LabelBins
from depthbal.evaluation.terms import MIN_ERROR, MIN_PREDICTION, TERMS, metric_values, metrics_of

if TYPE_CHECKING:
    from depthbal.evaluation.scores import Scores

GROUPS: tuple[str, ...] = ("overall", *SHOTS)
"""All scored bins, and the bins of each shot."""

LEVEL = 0.6827
"""Nominal coverage of an interval: that of one standard deviation to either side of the mean."""

AVERAGINGS = {
    "": "pooled over pixels",
    "per_image_mean": "mean over images",
    "per_bin_mean": "mean over bins",
}
SAME_PASS = "same_pass"
"""In what a caller gives `Scores`: rows of other protocols that were scored in the same pass."""

INTERVAL = (
    "central 68.27 % interval of the normal N(p, sigma^2) truncated to the label range where there "
    "is one; p the raw prediction, sigma the noise scale"
)
_IMAGES = 512  # worked on at once: the temporaries do not grow with the test set


def summarise(
    sums: Tensor | npt.NDArray[np.float64], bins: LabelBins, terms: Sequence[str] = TERMS
) -> dict[str, Any]:
    """Turn the sums of all images into the reported numbers, ready for JSON.

    - "overall", "many", "medium", "few": pooled over the pixels of the group's bins
    - "bins": one row per scored bin, pooled over its pixels
    - "per_image_mean": per group, the mean over images of each image's metric
    - "per_bin_mean": per group, the mean over the non-empty bins of each bin's metric

    A group or bin without pixels has None for every metric and count 0.

    Args:
        sums: (images, bins, terms) from `Scores.sums`.
        bins: the bins they were summed with.
        terms: the names of the last dimension.

    Raises:
        DataError: sums of another shape.

    Example:
        >>> from depthbal.evaluation import DepthBins
        >>> bins = DepthBins([0.0, 1.0, 2.0], ["many", "few"])
        >>> sums = np.array([[[4.0, 4.0], [0.0, 0.0]], [[0.0, 0.0], [1.0, 9.0]]])
        >>> result = summarise(sums, bins, terms=["count", "squared"])
        >>> result["overall"]["mse"], result["per_bin_mean"]["overall"]["mse"]
        (2.6, 5.0)
        >>> result["medium"]
        {'rmse': None, 'mse': None, 'count': 0, 'images': 0}
    """
    values = torch.as_tensor(sums, dtype=torch.float64).cpu().numpy()
    if values.ndim != 3 or values.shape[1:] != (len(bins), len(terms)):
        expected = f"(images, {len(bins)}, {len(terms)})"
        raise DataError(f"expected sums of shape {expected}, got {values.shape}")
    names, count, groups = metrics_of(terms), list(terms).index("count"), bins.groups()
    total = np.zeros(values.shape[1:])
    of_images, known = np.zeros((2, len(GROUPS), len(names)))
    images = np.zeros(len(GROUPS))
    for start in range(0, len(values), _IMAGES):
        part = values[start : start + _IMAGES]
        grouped = groups @ part
        of_part = metric_values(grouped, terms)
        total += part.sum(0)
        of_images += np.nan_to_num(of_part).sum(0)
        known += np.isfinite(of_part).sum(0)
        images += (grouped[..., count] > 0).sum(0)
    counts, of_bins = groups @ total[:, count], metric_values(total, terms)
    filled = groups * (total[:, count] > 0)
    with np.errstate(invalid="ignore"):
        over_images = of_images / known
        over_bins = (groups @ np.nan_to_num(of_bins)) / (groups @ np.isfinite(of_bins))

    def row(numbers: npt.NDArray[np.float64], pixels: float) -> dict[str, Any]:
        found = [float(number) if np.isfinite(number) else None for number in numbers]
        return {**dict(zip(names, found, strict=True)), "count": int(pixels)}

    def rows(found: npt.NDArray[np.float64], label: str, support: Any) -> dict[str, Any]:
        return {
            group: {**row(found[g], counts[g]), label: int(support[g])}
            for g, group in enumerate(GROUPS)
        }

    suffix, bin_images = bins.unit_suffix, (values[..., count] > 0).sum(0)
    return {
        **rows(metric_values(groups @ total, terms), "images", images),
        "bins": [
            {
                "bin": b,
                f"from{suffix}": float(bins.edges[b]),
                f"to{suffix}": float(bins.edges[b + 1]),
                "shot": bins.shots[b],
                "images": int(bin_images[b]),
                **row(of_bins[b], total[b, count]),
            }
            for b in np.flatnonzero(bins.scored).tolist()
        ],
        "per_image_mean": rows(over_images, "images", images),
        "per_bin_mean": rows(over_bins, "bins", filled.sum(1)),
    }


def result_of(scores: "Scores") -> dict[str, Any]:
    """Return what metrics.json holds; see `Scores.compute`."""
    block = {(s, r): _block(scores, s, r) for s in scores.subsets for r in scores.readouts}
    everywhere, top = block["all", scores.main], block[scores.headline, scores.main]
    per_image = scores.averaging == "images"
    shown = top["per_image_mean"] if per_image else top
    result = {
        "protocol": _protocol(scores, top, everywhere),
        **{group: shown[group] for group in GROUPS},
        "bins": top["bins"],
    }
    if per_image or scores.headline != "all":
        result["all_pixels"] = everywhere
    result |= {key: top[key] for key in ("per_image_mean", "per_bin_mean")}
    if len(scores.readouts) > 1:
        result["readout"] = {name: _of_readout(scores, block, name) for name in scores.readouts}
    result["calibration"] = _calibration(scores)
    if "alignment" in scores.given:
        result["protocols"] = [*_rows(scores, block), *scores.given.get(SAME_PASS, [])]
    if (counts := scores.beyond()) is not None:
        result["beyond"] = _beyond(scores, counts)
    return result


def _rows(scores: "Scores", block: Mapping[tuple[str, str], Any]) -> list[dict[str, Any]]:
    """Return overall numbers by every averaging and alignment, the top-level ones first."""
    given, ways = scores.given, [*AVERAGINGS]
    about = {"protocol": given.get("name"), "crop": given.get("crop")}
    about["cap"] = given.get("truth_range_m")
    if scores.averaging == "images":
        ways.sort(key="per_image_mean".__ne__)
    tables = [("all", way) for way in ways]
    if scores.headline != "all":
        tables.insert(0, (scores.headline, ""))
    readouts = dict.fromkeys([scores.main, *(ways_of := given["alignment"])])
    rows = []
    for readout, (subset, way) in itertools.product(readouts, tables):
        found = block[subset, readout]
        how = {"subset": subset, "averaging": AVERAGINGS[way], "readout": readout}
        # what is balanced afterwards is the first alignment
        how["alignment"] = readout if readout in ways_of else next(iter(ways_of))
        rows.append({**about, **how, **(found[way] if way else found)["overall"]})
    return rows


def _beyond(scores: "Scores", counts: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Return where labels are predicted that are only known to lie beyond the last bin."""
    *columns, before_half = counts.tolist()
    edges, suffix, total = scores.bins.edges, scores.bins.unit_suffix, sum(columns)
    starts, ends = [None, *edges.tolist()], [*edges.tolist(), None]
    return {
        f"from{suffix}": float(edges[-1]),
        "count": total,
        "nearer": (total - columns[-1]) / total,
        "nearer_than_half": before_half / total,
        "bins": [
            {f"from{suffix}": start, f"to{suffix}": end, "count": count}
            for start, end, count in zip(starts, ends, columns, strict=True)
            if count
        ],
    }


def _block(scores: "Scores", subset: str, readout: str) -> dict[str, Any]:
    block = summarise(scores.sums(subset, readout), scores.bins, scores.terms)
    for name in scores.balanced:
        for group in GROUPS:
            block[group][f"b{name}"] = block["per_bin_mean"][group][name]
        for row in block["bins"]:
            row[f"b{name}"] = row[name]
    return block


def _of_readout(scores: "Scores", block: Mapping[tuple[str, str], Any], name: str) -> Any:
    if scores.averaging == "images":
        return block["all", name]["per_image_mean"]
    top, everywhere = (
        {k: block[subset, name][k] for k in (*GROUPS, "per_image_mean", "per_bin_mean")}
        for subset in (scores.headline, "all")
    )
    return top if scores.headline == "all" else {**top, "all_pixels": everywhere}


def _calibration(scores: "Scores") -> dict[str, Any] | None:
    known = {s: counts for s in scores.subsets if (counts := scores.coverage(s)) is not None}
    groups = scores.bins.groups()
    of_subset = {
        subset: {
            group: {"coverage": float(inside / of) if of else None, "count": int(of)}
            for group, (inside, of) in zip(GROUPS, groups @ counts, strict=True)
        }
        for subset, counts in known.items()
    }
    interval = scores.given.get("interval", INTERVAL)
    return {"level": LEVEL, "interval": interval, **of_subset} if known else None


def _protocol(scores: "Scores", top: Any, everywhere: Any) -> dict[str, Any]:
    images, masked, unit = len(scores.names), scores.headline != "all", scores.label.unit
    if not everywhere["overall"]["count"]:
        raise DataError(
            f"none of the {images} images has a valid pixel in a scored bin; "
            f"check the unit of the {scores.label.name} ({unit}) and the mask"
        )
    averaging = (
        f"overall, many, medium, few and bins: pooled over {'pixels' if masked else 'samples'}"
        "; per_image_mean: mean over images; per_bin_mean: mean over non-empty bins"
        f"{'. Top level: balanced mask; all_pixels: no mask' if masked else ''}"
    )
    if scores.averaging == "images":
        averaging = (
            "overall, many, medium, few: mean over images; bins and all_pixels: pooled over pixels"
        )
    found: dict[str, Any] = {
        "name": "balanced mask" if masked else "all samples",
        "label": {**scores.label._asdict(), "range": scores.label.range and [*scores.label.range]},
        "main_metric": scores.main_metric,
        "averaging": averaging,
    }
    if scores.main:
        found |= {"readout": scores.main, "readouts": list(scores.readouts)}
    # what the values of some metrics depend on
    metrics = metrics_of(scores.terms)
    positive = ("log10", "silog", "delta1", "delta2", "delta3")
    if raised := [name for name in positive if name in metrics]:
        found |= {"min_prediction_m": MIN_PREDICTION, "min_prediction_applies_to": raised}
    if "silog" in metrics:
        found["silog"] = "100 * sqrt(mean d^2 - (mean d)^2), d = ln prediction - ln truth"
    if "gm" in metrics:
        found["gm"] = f"exp(mean ln max(|prediction - truth|, {MIN_ERROR:g} {unit}))"
    sizes = {"pixels": top["overall"]["count"], "pixels_all": everywhere["overall"]["count"]}
    if not masked and scores.averaging == "pixels":
        sizes = {"samples": everywhere["overall"]["count"]}
    given = {key: value for key, value in scores.given.items() if key != SAME_PASS}
    return {**found, "images": images, **sizes, "bins": scores.bins.describe(), **given}

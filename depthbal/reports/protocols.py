"""Which results may be compared: the same protocol on the same test images."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from depthbal.errors import ConfigError
from depthbal.reports.results import RunResult
from depthbal.reports.shots import with_shots_of

DATA_KEYS = ("min_depth", "max_depth")


def comparable(results: Sequence[RunResult]) -> tuple[list[RunResult], tuple[str, ...]]:
    """Return results that follow one protocol, and what a reader must know about them, in words.

    Refused are other bins, shots by another rule, another balanced mask, another range of labels
    and other test images or truths. Allowed, and noted:

    - read-out, checkpoint and number of epochs: they belong to the method, as its sigma does
    - shots by the same rule from another training histogram (the split depends on the seed): all
      numbers are computed again with the shots of the first result

    Raises:
        ConfigError: the results follow different protocols; every difference is named.
    """
    first, *others = results
    for other in others:
        if found := differences(first, other):
            raise ConfigError(
                f"{other.name} cannot be compared with {first.name}: {'; '.join(found)}. "
                "Evaluate both with the same protocol on the same test data, or report them apart"
            )
    notes = []
    for what, values in _allowed(results).items():
        if len(set(values)) > 1:
            # names have commas: "mse, balanced afterwards (sigma 1)"
            named = "; ".join(f"{v} for {r.name}" for r, v in zip(results, values, strict=True))
            notes.append(f"{what} differs: {named}.")
    shots = [i for i, other in enumerate(others) if other.bins.shots != first.bins.shots]
    if shots:
        names = "; ".join(others[i].name for i in shots)
        notes.append(
            f"The training histogram of {names} gives some bins other shots; all numbers here use "
            f"the shots of {first.name}."
        )
    return [first, *(with_shots_of(first, other) for other in others)], tuple(notes)


def differences(first: RunResult, other: RunResult) -> list[str]:
    """Return in words what keeps two results from being compared; nothing if nothing does."""
    one, two = first.metrics["protocol"], other.metrics["protocol"]
    if first.label != other.label:  # everything else differs with it
        return _unequal("label", " in ".join(first.label), " in ".join(other.label))
    found = _unequal("protocol", one.get("name"), two.get("name"))
    found += _unequal("main metric", first.main_metric, other.main_metric)
    key = "min_prediction_m"
    found += _unequal("smallest prediction in ratios (m)", one.get(key), two.get(key))
    for key in DATA_KEYS:
        values = (protocol.get("data", {}).get(key) for protocol in (one, two))
        found += _unequal(f"{key} of the test data", *values)
    found += _unequal("rule of the shots", first.bins.shot_rule, other.bins.shot_rule)
    bins = _bins(first, other)
    return [*found, *bins, *_mask(one.get("mask"), two.get("mask")), *_images(first, other, bins)]


def _unequal(what: str, one: Any, two: Any) -> list[str]:
    return [] if one == two else [f"{what} {two!r} instead of {one!r}"]


def _bins(first: RunResult, other: RunResult) -> list[str]:
    one, two = first.bins, other.bins
    if len(one) != len(two) or not np.allclose(one.edges, two.edges, rtol=1e-6, atol=1e-9):
        texts = [f"{len(b)} bins from {b.edges[0]:g} to {b.edges[-1]:g}" for b in (one, two)]
        if texts[0] == texts[1]:
            return ["bins with other edges"]
        return [f"{texts[1]} {first.label.unit} instead of {texts[0]} {first.label.unit}"]
    if not np.array_equal(one.scored, two.scored):
        moved = np.flatnonzero(one.scored != two.scored).tolist()
        return [f"bins {moved} are scored in one of them only"]
    return []


def _mask(one: dict[str, Any] | None, two: dict[str, Any] | None) -> list[str]:
    if not one and not two:
        return []
    if not one or not two:
        return [f"{'a' if two else 'no'} balanced mask instead of {'one' if one else 'none'}"]
    if one.get("fingerprint") == two.get("fingerprint"):
        return []
    texts = [_mask_text(mask) for mask in (one, two)]
    if texts[0] == texts[1]:
        return ["other pixels in the balanced mask"]
    return [f"balanced mask {texts[1]} instead of {texts[0]}"]


def _mask_text(mask: dict[str, Any]) -> str:
    if mask.get("source") == "drawn":
        return f"drawn with seed {mask.get('seed')}, {mask.get('per_bin')} pixels per bin"
    return f"from {mask.get('source')}, {mask.get('pixels')} pixels"


def _images(first: RunResult, other: RunResult, bins: list[str]) -> list[str]:
    if len(first.names) != len(other.names):
        return [f"{len(other.names)} test images instead of {len(first.names)}"]
    pairs = zip(first.names, other.names, strict=True)
    moved = [f"{two!r} instead of {one!r}" for one, two in pairs if one != two]
    if moved:
        return [f"other test images ({len(moved)} of {len(first.names)}, the first {moved[0]})"]
    if bins:
        return []
    changed = np.flatnonzero((first.counts != other.counts).any(1))
    if len(changed):
        return [
            f"other truths in {len(changed)} of {len(first.names)} test images (the first: "
            f"{first.names[changed[0]]}), such as those of another crop or size"
        ]
    known = [(a, b) for a, b in zip(first.groups, other.groups, strict=True) if a and b]
    return ["other scenes of the test images"] if any(a != b for a, b in known) else []


def _allowed(results: Sequence[RunResult]) -> dict[str, list[Any]]:
    """Return per allowed difference the value of every result."""
    protocols = [result.metrics["protocol"] for result in results]
    return {
        "The read-out": [result.readout for result in results],
        "The checkpoint": [protocol.get("checkpoint") for protocol in protocols],
        "The number of epochs": [protocol.get("epochs") for protocol in protocols],
    }

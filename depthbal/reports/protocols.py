"""Which results may be compared: the same protocol on the same test images."""

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np

from depthbal.errors import ConfigError
from depthbal.reports.results import Result


def comparable(results: Sequence[Result]) -> tuple[list[Result], tuple[str, ...]]:
    """Return results that follow one protocol, and what a reader must know about them, in words.

    Refused are other bins, shots by another rule, another balanced mask, another range of labels
    and other test images or truths; every difference is named. Allowed, and noted:

    - read-out, checkpoint and number of epochs: they belong to the method, as its sigma does
    - shots by the same rule from another training histogram (the split depends on the seed): all
      numbers follow from the sums with the shots of the first result
    """
    first, *others = results
    for other in others:
        if found := differences(first, other):
            raise ConfigError(
                f"{other.name} cannot be compared with {first.name}: {'; '.join(found)}. "
                "Evaluate both with the same protocol on the same test data, or report them apart"
            )
    allowed: dict[str, list[Any]] = {
        "The read-out": [result.readout for result in results],
        "The checkpoint": [result.scores.given.get("checkpoint") for result in results],
        "The number of epochs": [result.scores.given.get("epochs") for result in results],
    }
    notes = []
    for what, values in allowed.items():
        if len(set(values)) > 1:
            # names have commas: "mse, balanced afterwards (sigma 1)"
            named = "; ".join(f"{v} for {r.name}" for r, v in zip(results, values, strict=True))
            notes.append(f"{what} differs: {named}.")
    if moved := [other.name for other in others if other.bins.shots != first.bins.shots]:
        notes.append(
            f"The training histogram of {'; '.join(moved)} gives some bins other shots; all "
            f"numbers here use the shots of {first.name}."
        )
    alike = [first]
    for other in others:
        scores = copy(other.scores)
        scores.bins = first.bins
        alike.append(replace(other, scores=scores) if other.name in moved else other)
    return alike, tuple(notes)


def differences(first: Result, other: Result) -> list[str]:
    """Return in words what keeps two results from being compared; nothing if nothing does."""
    one, two = first.scores, other.scores
    label = ["{} in {}".format(*scores.label[:2]) for scores in (one, two)]
    if label[0] != label[1]:  # everything else differs with it
        return [f"label {label[1]!r} instead of {label[0]!r}"]
    mine, theirs = first.protocol, other.protocol
    data = [protocol.get("data") or {} for protocol in (mine, theirs)]
    smallest = [protocol.get("min_prediction_m") for protocol in (mine, theirs)]
    pairs = {
        "protocol": (mine["name"], theirs["name"]),
        "main metric": (one.main_metric, two.main_metric),
        "averaging": (one.averaging, two.averaging),
        "smallest prediction in ratios (m)": smallest,
        "min_depth of the test data": [part.get("min_depth") for part in data],
        "max_depth of the test data": [part.get("max_depth") for part in data],
        "rule of the shots": (one.bins.shot_rule, two.bins.shot_rule),
    }
    found = [f"{what} {b!r} instead of {a!r}" for what, (a, b) in pairs.items() if a != b]
    found += (bins := _bins(first, other))
    masks = [protocol.get("mask") or {} for protocol in (mine, theirs)]
    if masks[0].get("fingerprint") != masks[1].get("fingerprint"):
        found.append(f"{_mask_text(masks[1])} instead of {_mask_text(masks[0])}")
    return found + _images(first, other, bool(bins))


def _bins(first: Result, other: Result) -> list[str]:
    one, two = first.bins, other.bins
    if len(one) != len(two) or not np.allclose(one.edges, two.edges, rtol=1e-6, atol=1e-9):
        texts = [f"{len(b)} bins from {b.edges[0]:g} to {b.edges[-1]:g}" for b in (one, two)]
        if texts[0] == texts[1]:
            return ["bins with other edges"]
        unit = first.scores.label.unit
        return [f"{texts[1]} {unit} instead of {texts[0]} {unit}"]
    moved = np.flatnonzero(one.scored != two.scored).tolist()
    return [f"bins {moved} are scored in one of them only"] if moved else []


def _mask_text(mask: dict[str, Any]) -> str:
    if not mask:
        return "no balanced mask"
    how = f"from {mask.get('source')}, {mask.get('pixels')} pixels"
    if mask.get("source") == "drawn":
        how = f"drawn with seed {mask.get('seed')}, {mask.get('per_bin')} pixels per bin"
    return f"balanced mask {how} ({mask.get('fingerprint')})"


def _images(first: Result, other: Result, other_bins: bool) -> list[str]:
    names, others = first.scores.names, other.scores.names
    if len(names) != len(others):
        return [f"{len(others)} test images instead of {len(names)}"]
    pairs = zip(names, others, strict=True)
    if moved := [f"{two!r} instead of {one!r}" for one, two in pairs if one != two]:
        return [f"other test images ({len(moved)} of {len(names)}, the first {moved[0]})"]
    if other_bins:
        return []
    changed = np.flatnonzero((first.counts != other.counts).any(1))
    if len(changed):
        return [
            f"other truths in {len(changed)} of {len(names)} test images (the first: "
            f"{names[changed[0]]}), such as those of another crop or size"
        ]
    scenes = zip(first.scores.groups, other.scores.groups, strict=True)
    return ["other scenes of the test images"] if any(a and b and a != b for a, b in scenes) else []

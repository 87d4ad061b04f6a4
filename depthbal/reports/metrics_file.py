"""metrics.json, read and checked for the parts that a report shows."""

from pathlib import Path
from typing import Any

from depthbal.evaluation import GROUPS
from depthbal.reports.run_files import foreign, read_json

_OPTIONAL = ("all_pixels", "readout", "calibration")
_OF_PROTOCOL = ("bins", "data", "label", "mask", "posthoc")


def read_metrics(file: Path) -> dict[str, Any]:
    """Return the content of a metrics file; parts of its protocol that are null are left out.

    Args:
        file: metrics.json, or that of balancing afterwards.

    Raises:
        RunFolderError: it is missing, damaged, holds NaN, or lacks a part or has it in another
            form, as files of other versions may.
    """
    metrics = read_json(file)
    protocol = _part(file, metrics, "protocol")
    for name in _OF_PROTOCOL:
        if protocol.get(name) is None:
            protocol.pop(name, None)
        else:
            _part(file, protocol, name, "protocol.")
    for name in _OPTIONAL:
        if metrics.get(name) is not None:
            _part(file, metrics, name)
    for name in metrics.get("readout", {}):
        _require_groups(file, _part(file, metrics["readout"], name, "readout."), f"readout.{name}.")
    summaries = {"": metrics}
    if "all_pixels" in metrics:
        summaries["all_pixels."] = metrics["all_pixels"]
    for where, block in summaries.items():
        _require_groups(file, block, where)
        means = _part(file, block, "per_bin_mean", where)
        _require_groups(file, means, f"{where}per_bin_mean.")
    return metrics


def _part(file: Path, block: dict[str, Any], name: str, where: str = "") -> dict[str, Any]:
    part = block.get(name)
    if part is None:
        raise foreign(file, f"lacks {where}{name}")
    if not isinstance(part, dict):
        raise foreign(file, f"has {where}{name} in another form")
    return part


def _require_groups(file: Path, block: dict[str, Any], where: str) -> None:
    for group in GROUPS:
        _part(file, block, group, where)

"""metrics.json, read and checked for the parts that a report shows."""

from pathlib import Path
from typing import Any

from depthbal.evaluation import GROUPS
from depthbal.reports.run_files import foreign, read_json

_OPTIONAL = ("all_pixels", "readout", "calibration")
_OF_PROTOCOL: dict[str, dict[str, type]] = {
    "bins": {"edges": list},
    "data": {},
    "label": {"name": str, "unit": str},
    "mask": {},
    "posthoc": {"noise_sigma": float},
}


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
            part = _part(file, protocol, name, "protocol.")
            for key, kind in _OF_PROTOCOL[name].items():
                _require(file, part, key, kind, f"protocol.{name}.")
    for name in _OPTIONAL:
        if metrics.get(name) is not None:
            _part(file, metrics, name)
    if metrics.get("calibration") is not None:
        _require_calibration(file, metrics["calibration"])
    for row in metrics.get("bins", ()):
        _require(file, row, "bin", int, "bins.")
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


def _require(file: Path, block: Any, name: str, kind: type, where: str) -> None:
    """Check the form of a value; a number may be written without a decimal point."""
    value = block.get(name) if isinstance(block, dict) else None
    if value is None:
        raise foreign(file, f"lacks {where}{name}")
    if not isinstance(value, (int, float) if kind is float else kind):
        raise foreign(file, f"has {where}{name} in another form")


def _require_calibration(file: Path, calibration: dict[str, Any]) -> None:
    _require(file, calibration, "level", float, "calibration.")
    for subset in {"mask", "all"} & set(calibration):
        block = _part(file, calibration, subset, "calibration.")
        _require_groups(file, block, f"calibration.{subset}.")
        for group in GROUPS:
            if "coverage" not in block[group]:
                raise foreign(file, f"lacks calibration.{subset}.{group}.coverage")


def _require_groups(file: Path, block: dict[str, Any], where: str) -> None:
    for group in GROUPS:
        _part(file, block, group, where)

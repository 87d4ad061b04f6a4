"""What made a result: settings, versions, learning curves, prior, example images."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from depthbal.errors import RunFolderError
from depthbal.evaluation import Label
from depthbal.priors import GaussianMixture, Histogram
from depthbal.priors.files import kind_of
from depthbal.reports.methods import without_seed
from depthbal.reports.results import Example
from depthbal.reports.run_files import AGAIN, Arrays, read_curves, read_json

MAX_EXAMPLES = 24
SIGMA_CURVE = "train/noise_sigma"


def read_surroundings(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the other fields of a `RunResult` by name, and what is missing, in words.

    Nothing here is needed for a number, so a missing or damaged file is a gap.

    Args:
        folder: of the run.
    """
    gaps: list[str] = []
    config = _optional(gaps, "settings", folder / "config.yaml", _text, "")
    around: dict[str, Any] = {
        "config": config,
        "settings": {},
        "versions": _optional(gaps, "versions", folder / "versions.json", _versions, {}),
        "curves": _optional(gaps, "learning curves", folder / "metrics.csv", read_curves, {}),
        "histogram": _optional(
            gaps, "training histogram", folder / "histogram.json", Histogram.load, None
        ),
        "prior": None,
    }
    if config:
        around["settings"] = _optional(gaps, "settings", folder / "config.yaml", _settings, {})
    if (folder / "prior.json").is_file():
        around["prior"] = _optional(gaps, "prior", folder / "prior.json", _mixture, None)
    return around, gaps


def read_examples(path: Path, label: Label) -> tuple[tuple[Example, ...], list[str]]:
    """Read the example images; labels without images have none.

    Args:
        path: examples.npz.
        label: what is predicted.
    """
    if not path.is_file():
        lacking = [f"no example images ({path.name}); {AGAIN}"] if label.name == "depth" else []
        return (), lacking
    gaps: list[str] = []
    return _optional(gaps, "example images", path, _examples, ()), gaps


def noise_sigma(
    settings: Mapping[str, Any],
    protocol: Mapping[str, Any],
    curves: Mapping[str, tuple[Any, Any]],
) -> float | None:
    """Return the one sigma of a result: of balancing afterwards, or of the loss at the end.

    A sigma that depends on the prediction is not one number. Earlier versions did not write the
    loss's own into the protocol: it is then the last that was logged, some steps before the end,
    and that of the best checkpoint is not known.

    Args:
        settings: config.yaml.
        protocol: of the evaluation.
        curves: of metrics.csv.

    Example:
        >>> loss = {"class_path": "GAILoss", "init_args": {"init_noise_sigma": 1, "noise": "fixed"}}
        >>> noise_sigma({"model": {"criterion": loss}}, {}, {})
        1.0
    """
    if protocol.get("posthoc"):
        return float(protocol["posthoc"]["noise_sigma"])
    if isinstance(protocol.get("noise_sigma"), int | float):
        return float(protocol["noise_sigma"])
    model = settings.get("model")
    criterion = model.get("criterion") if isinstance(model, Mapping) else None
    arguments = criterion.get("init_args") if isinstance(criterion, Mapping) else None
    if not isinstance(arguments, Mapping) or "init_noise_sigma" not in arguments:
        return None
    if arguments.get("noise") == "fixed":
        return float(arguments["init_noise_sigma"])
    if SIGMA_CURVE in curves and protocol.get("checkpoint", "last") == "last":
        return float(curves[SIGMA_CURVE][1][-1])
    return None


def _optional(
    gaps: list[str], what: str, path: Path, read: Callable[[Path], Any], otherwise: Any
) -> Any:
    """Read a file that a report can do without; say what is missing and why."""
    if not path.is_file():
        gaps.append(f"no {what}: {path.name} is missing")
        return otherwise
    try:
        return read(path)
    except (OSError, ValueError, KeyError, IndexError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        gaps.append(f"no {what}: {reason}")
        return otherwise


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _settings(path: Path) -> dict[str, Any]:
    """Return a run's settings; a run it starts from is replaced by that run's own settings.

    Repetitions start from different folders, but from repetitions of one method.
    """
    content = _mapping(path)
    model = content.get("model")
    base = model.get("base_run") if isinstance(model, dict) else None
    if isinstance(base, str) and (Path(base) / path.name).is_file():
        content["model"]["base_run"] = without_seed(_mapping(Path(base) / path.name))
    return content


def _versions(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content.get("data", {}), dict | None):
        raise ValueError(f"{path} describes the training data in another form")
    return content


def _mapping(path: Path) -> dict[str, Any]:
    content = yaml.safe_load(_text(path))
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no settings")
    return content


def _mixture(path: Path) -> GaussianMixture | None:
    """Return the prior where it is a mixture; bins are drawn as the histogram that they are."""
    return GaussianMixture.load(path) if kind_of(path) == GaussianMixture.__name__ else None


def _examples(path: Path) -> tuple[Example, ...]:
    arrays = Arrays(path)
    reasons, names = arrays["reason"], arrays["name"]
    if not len(reasons) == len(names) <= MAX_EXAMPLES:
        raise RunFolderError(f"{arrays.path} holds {len(names)} names of {len(reasons)} examples")
    found = tuple(
        Example(
            name=str(names[i]),
            reason=str(reasons[i]),
            rmse=float(arrays["rmse"][i]),
            index=int(arrays["index"][i]),
            image=arrays[f"image_{i:02d}"].astype(np.uint8, copy=False),
            truth=arrays[f"truth_{i:02d}"].astype(np.float32, copy=False),
            pred=arrays[f"pred_{i:02d}"].astype(np.float32, copy=False),
        )
        for i in range(len(names))
    )
    for i, example in enumerate(found):
        size = example.image.shape
        if size != (*example.truth.shape, 3) or example.pred.shape != example.truth.shape:
            raise RunFolderError(f"{arrays.path}: image, truth and prediction {i} differ in size")
    return found

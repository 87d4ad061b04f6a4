"""Results read for a report: the scores of a folder, and the files of the run they belong to."""

import csv
import json
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import yaml

from depthbal.errors import ConfigError
from depthbal.evaluation import LabelBins, Scores
from depthbal.priors import GaussianMixture, Histogram
from depthbal.reports.methods import run_names, seed_of, without_seed

FloatArray = npt.NDArray[np.float64]
Curves = Mapping[str, tuple[FloatArray, FloatArray]]
_T = TypeVar("_T")
_DAMAGE = (yaml.YAMLError, zipfile.BadZipFile, zlib.error, EOFError)


@dataclass(frozen=True)
class Example:
    """One test image with its truth and prediction.

    Attributes:
        name: of the image.
        reason: "best", "median", "worst" or "rare" (most few-shot pixels).
        rmse: of the image over all its pixels, main read-out, label units.
        index: place of the image in the test set.
        image: (height, width, 3) uint8 RGB.
        truth: (height, width) float32, 0 = no truth.
        pred: (height, width) float32, main read-out.
    """

    name: str
    reason: str
    rmse: float
    index: int
    image: npt.NDArray[np.uint8]
    truth: npt.NDArray[np.float32]
    pred: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Result:
    """One evaluation: its scores, and the files of the run that it belongs to, if they are there.

    Attributes:
        name: shown to people, unique in a report: the run folder's name, with ", balanced
            afterwards (sigma 1)" for such an evaluation.
        scores: of scores.npz: every number of the report follows from them.
        path: the folder they are in.
        run: the run folder; the same one, or two above RUN/eval/NAME.
        config: config.yaml as text.
        settings: config.yaml without the seeds; a run it starts from is replaced by its settings.
        seed: of the training, None if unknown.
        record: content of run.json.
        curves: column of metrics.csv -> (steps, values), both (n,) float64.
        histogram: of the training labels, or None.
        prior: the loss's mixture, or None (plain losses, priors of bins or batches).
        examples: at most 24.
        gaps: which files are damaged and so left out, in words.
    """

    name: str
    scores: Scores
    path: Path
    run: Path
    config: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    record: Mapping[str, Any] = field(default_factory=dict)
    curves: Curves = field(default_factory=dict)
    histogram: Histogram | None = None
    prior: GaussianMixture | None = None
    examples: tuple[Example, ...] = ()
    gaps: tuple[str, ...] = ()

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """What metrics.json holds."""
        return self.scores.result()

    @cached_property
    def pooled(self) -> dict[tuple[str, str], FloatArray]:
        """The sums over all images (bins, terms), by subset and read-out."""
        scores = self.scores
        keys = [(subset, readout) for subset in scores.subsets for readout in self.readouts]
        return {key: scores.sums(*key).sum(0) for key in keys}

    @cached_property
    def counts(self) -> FloatArray:
        """Pixels of every image in every bin, (images, bins), without a mask."""
        return self.scores.sums("all")[..., self.scores.terms.index("count")]

    @property
    def bins(self) -> LabelBins:
        """Bins and shots."""
        return self.scores.bins

    @property
    def ends(self) -> tuple[float, float]:
        """The ends of the scored bins."""
        scored = np.flatnonzero(self.bins.scored)
        return float(self.bins.edges[scored[0]]), float(self.bins.edges[scored[-1] + 1])

    @property
    def protocol(self) -> dict[str, Any]:
        """How it was evaluated."""
        found: dict[str, Any] = self.metrics["protocol"]
        return found

    @property
    def posthoc(self) -> bool:
        """Whether it was balanced afterwards."""
        return bool(self.scores.given.get("posthoc"))

    @property
    def noise_sigma(self) -> float | None:
        """Of balancing afterwards, or of the loss; None where there is not one number."""
        found = self.scores.given.get("posthoc") or self.scores.given
        sigma = found.get("noise_sigma")
        return None if sigma is None else float(sigma)

    @property
    def method(self) -> str:
        """What two results share if they differ in nothing but the seed: settings, evaluation."""
        given = self.scores.given
        sigma = self.noise_sigma if self.posthoc else None
        evaluated = [given.get("checkpoint"), given.get("epochs"), sigma]
        return json.dumps([self.settings, evaluated], sort_keys=True, default=str)

    @property
    def readouts(self) -> tuple[str, ...]:
        """The read-outs, the main one first."""
        return tuple(dict.fromkeys((self.scores.main, *self.scores.readouts)))

    @property
    def readout(self) -> str:
        """The main read-out in words."""
        return self.mean_name if self.scores.main == "mean" else self.scores.main

    @cached_property
    def mean_name(self) -> str:
        """What the read-out "mean" is: without a noise scale there is no posterior."""
        if not {"mean", "raw"} <= set(self.readouts) or not all(
            np.array_equal(self.pooled[subset, "mean"], self.pooled[subset, "raw"])
            for subset in self.scores.subsets
        ):
            return "posterior mean"
        noisy = self.noise_sigma is not None or self.scores.coverage("all") is not None
        noisy |= any(name.startswith("train/noise") for name in self.curves)
        return f"mean ({'' if noisy else 'no noise scale: '}the raw output)"

    @property
    def predicts_label(self) -> bool:
        """Whether the bins are of what is predicted: else sigma has another unit than they."""
        return "error" in self.scores.terms

    @property
    def sigma_unit(self) -> str:
        """Unit of the noise scale, "" where it is not known."""
        return self.scores.label.unit if self.predicts_label else ""


def load_results(folders: Sequence[str | Path]) -> list[Result]:
    """Read results for a report.

    Args:
        folders: each a run folder that was evaluated, one of its evaluations RUN/eval/NAME, or a
            folder with the scores.npz of anybody's predictions. Of config.yaml, run.json,
            prior.json, metrics.csv (of the run) and examples.npz what is missing is not reported.

    Raises:
        ConfigError: no folder, or the same one twice.
        RunFolderError: one holds no scores.npz, or a damaged one.
    """
    paths = [Path(folder) for folder in folders]
    if not paths:
        raise ConfigError("expected one or more run folders, got none")
    places = [path.resolve() for path in paths]
    for path, place in zip(paths, places, strict=True):
        if places.count(place) > 1:
            raise ConfigError(f"the run {path} was named twice; name every run once")
    results = [_load(path) for path in paths]
    names = run_names([result.run for result in results])
    named = [name + _balanced(result) for name, result in zip(names, results, strict=True)]
    return [
        replace(result, name=f"{name}, {result.path.name}" if named.count(name) > 1 else name)
        if result.path != result.run
        else replace(result, name=name)
        for name, result in zip(named, results, strict=True)
    ]


def _balanced(result: Result) -> str:
    return f", balanced afterwards (sigma {result.noise_sigma:g})" if result.posthoc else ""


def _load(path: Path) -> Result:
    scores = Scores.load(path)
    run = path.parent.parent if path.parent.name == "eval" else path
    gaps: list[str] = []
    config = run / "config.yaml"
    settings = _optional(config, _settings, {}, gaps)
    record = _optional(run / "run.json", _json, {}, gaps)
    histogram, prior = _optional(run / "prior.json", _prior, (None, None), gaps)
    return Result(
        name=run.name,
        scores=scores,
        path=path,
        run=run,
        config=config.read_text(encoding="utf-8", errors="replace") if config.is_file() else "",
        settings=without_seed(settings) or {"run": str(path)},
        seed=seed_of(settings, record),
        record=record,
        curves=_optional(run / "metrics.csv", read_curves, {}, gaps),
        histogram=histogram,
        prior=prior,
        examples=_optional(path / "examples.npz", _examples, (), gaps),
        gaps=tuple(gaps),
    )


def _optional(path: Path, read: Callable[[Path], _T], otherwise: _T, gaps: list[str]) -> _T:
    """Read a file that no number needs; a damaged one is said to be left out."""
    if not path.is_file():
        return otherwise
    try:
        return read(path)
    except (OSError, ValueError, KeyError, TypeError, *_DAMAGE) as error:
        gaps.append(f"{path.name} is damaged and left out ({str(error).splitlines()[0]})")
        return otherwise


def _json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def _settings(path: Path) -> dict[str, Any]:
    """Return a run's settings; a run it starts from is replaced by that run's own settings.

    Repetitions start from different folders, but from repetitions of one method.
    """
    content = dict(yaml.safe_load(path.read_text(encoding="utf-8")))
    task = (content.get("model") or {}).get("init_args") or {}
    start = Path(task.get("weights_from") or "/")
    for folder in (start, start.parent.parent):  # of a checkpoint RUN/checkpoints/NAME.ckpt
        if (folder / path.name).is_file():
            task["weights_from"] = without_seed(_settings(folder / path.name))
            break
    return content


def _prior(path: Path) -> tuple[Histogram | None, GaussianMixture | None]:
    """Return the histogram, and the prior where it is a mixture: bins are drawn as themselves."""
    content = _json(path)
    histogram, prior = content.get("histogram"), content.get("prior") or {}
    mixture = prior.get("kind") == GaussianMixture.__name__
    return (
        Histogram.from_dict(histogram) if histogram else None,
        GaussianMixture.from_dict(prior) if mixture else None,
    )


def read_curves(path: Path) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Read metrics.csv: column -> (steps, values), both float64; numbers not finite go."""
    points: dict[str, list[tuple[float, float]]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            step = float(row["step"])
            for column, text in row.items():
                if column not in ("step", "epoch") and text:
                    points.setdefault(column, []).append((step, float(text)))
    tables = {column: np.array(pairs) for column, pairs in points.items()}
    tables = {column: table[np.isfinite(table).all(1)] for column, table in tables.items()}
    return {column: (table[:, 0], table[:, 1]) for column, table in tables.items() if len(table)}


def _examples(path: Path) -> tuple[Example, ...]:
    with np.load(path, allow_pickle=False) as arrays:
        return tuple(
            Example(
                name=str(name),
                reason=str(arrays["reason"][i]),
                rmse=float(arrays["rmse"][i]),
                index=int(arrays["index"][i]),
                image=arrays[f"image_{i:02d}"],
                truth=arrays[f"truth_{i:02d}"],
                pred=arrays[f"pred_{i:02d}"],
            )
            for i, name in enumerate(arrays["name"])
        )

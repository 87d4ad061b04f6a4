"""Results read for a report: the scores of a folder, and the files of the run they belong to."""

import csv
import itertools
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import yaml

from depthbal.errors import ConfigError
from depthbal.evaluation import LabelBins, Scores
from depthbal.evaluation.balancing import balance_words
from depthbal.priors import GaussianMixture, Histogram

FloatArray = npt.NDArray[np.float64]
Curves = Mapping[str, tuple[FloatArray, FloatArray]]


@dataclass(frozen=True)
class Example:
    """One test image with its truth (0 = none) and prediction, as examples.npz holds them."""

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
        name: shown to people, unique in a report.
        scores: every number of the report follows from them.
        path: the folder of scores.npz.
        run: the run folder; the same one, or two above RUN/eval/NAME.
        config: config.yaml as text.
        settings: the same without the seeds; a run it starts from is replaced by its settings.
        seed: of the training, None if unknown.
        record: content of run.json.
        curves: column of metrics.csv -> (steps, values), both (n,).
        histogram: of the training labels.
        prior: the loss's mixture; None for plain losses, priors of bins or batches.
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
        keys = itertools.product(self.scores.subsets, self.readouts)
        return {key: self.scores.sums(*key).sum(0) for key in keys}

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
    def items(self) -> str:
        """What is counted in bins: "pixels", or "samples" where an image has one label."""
        return "pixels" if (self.counts.sum(1) > 1).any() else "samples"

    @property
    def protocol(self) -> dict[str, Any]:
        """How it was evaluated."""
        return self.metrics["protocol"]  # type: ignore[no-any-return]

    @property
    def posthoc(self) -> bool:
        """Whether it was balanced afterwards."""
        return bool(self.scores.given.get("posthoc"))

    @property
    def noise_sigma(self) -> float | None:
        """Of balancing afterwards, or of the loss; None where there is not one number."""
        sigma = (self.scores.given.get("posthoc") or self.scores.given).get("noise_sigma")
        return None if sigma is None else float(sigma)

    @property
    def method(self) -> str:
        """What two results share if they differ in nothing but the seed: settings, evaluation."""
        sigma = balance_words(self.scores.given["posthoc"]) if self.posthoc else None
        evaluated = [self.scores.given.get(key) for key in ("checkpoint", "epochs")]
        return json.dumps([self.settings, evaluated, sigma], sort_keys=True, default=str)

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


# ---- reading ----


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
    for number, result in enumerate(results):
        if result.posthoc:
            names[number] += (
                f", balanced afterwards ({balance_words(result.scores.given['posthoc'])})"
            )
    clashing = {name for name in names if names.count(name) > 1}
    for number, result in enumerate(results):
        if names[number] in clashing and result.path != result.run:
            names[number] += f", {result.path.name}"
    return [replace(result, name=name) for result, name in zip(results, names, strict=True)]


def _load(path: Path) -> Result:
    scores = Scores.load(path)
    run = path.parent.parent if path.parent.name == "eval" else path
    gaps: list[str] = []

    def optional(file: Path, read: Callable[[Path], Any], otherwise: Any) -> Any:
        """Read a file that no number needs; a damaged one is said to be left out."""
        try:
            return read(file) if file.is_file() else otherwise
        except (OSError, ValueError, KeyError, yaml.YAMLError, zipfile.BadZipFile) as error:
            gaps.append(f"{file.name} is damaged and left out ({str(error).splitlines()[0]})")
            return otherwise

    settings = optional(run / "config.yaml", _settings, {})
    record = optional(run / "run.json", _json, {})
    histogram, prior = optional(run / "prior.json", _prior, (None, None))
    seeds = (settings.get("seed_everything"), record.get("seed"))  # the latter knows a drawn one
    return Result(
        name=run.name,
        scores=scores,
        path=path,
        run=run,
        config=optional(run / "config.yaml", lambda file: file.read_text(encoding="utf-8"), ""),
        settings=without_seed(settings) or {"run": str(path)},
        seed=next((seed for seed in seeds if type(seed) is int), None),
        record=record,
        curves=optional(run / "metrics.csv", read_curves, {}),
        histogram=histogram,
        prior=prior,
        examples=optional(path / "examples.npz", _examples, ()),
        gaps=tuple(dict.fromkeys(gaps)),
    )


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
            for column, text in row.items():
                if column not in ("step", "epoch") and text:
                    points.setdefault(column, []).append((float(row["step"]), float(text)))
    tables = {column: np.array(pairs) for column, pairs in points.items()}
    tables = {column: table[np.isfinite(table).all(1)] for column, table in tables.items()}
    return {column: (table[:, 0], table[:, 1]) for column, table in tables.items() if len(table)}


def _examples(path: Path) -> tuple[Example, ...]:
    with np.load(path, allow_pickle=False) as arrays:
        return tuple(
            Example(
                str(name),
                str(arrays["reason"][i]),
                float(arrays["rmse"][i]),
                int(arrays["index"][i]),
                *(arrays[f"{part}_{i:02d}"] for part in ("image", "truth", "pred")),
            )
            for i, name in enumerate(arrays["name"])
        )


# ---- names and repetitions ----


class Method(NamedTuple):
    """Runs that differ in nothing but the seed: places in the list of results, by their seeds."""

    name: str
    runs: tuple[int, ...]
    seeds: tuple[int | None, ...]


def run_names(paths: Sequence[Path]) -> list[str]:
    """Return the folders' names, with as much of the parents as tells different ones apart."""
    full = [path.resolve() for path in paths]
    names = {path: path.name or str(path) for path in full}
    for depth in range(2, max(len(path.parts) for path in full) + 1):
        clashing = [name for name in names.values() if list(names.values()).count(name) > 1]
        names |= {p: "/".join(p.parts[-depth:]) for p, name in names.items() if name in clashing}
    return [names[path] for path in full]


def without_seed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings without ``seed_everything`` and the data's ``seed``."""
    kept = {name: value for name, value in settings.items() if name != "seed_everything"}
    if isinstance(kept.get("data"), Mapping):
        own = kept["data"].get("init_args") or {}
        arguments = {name: value for name, value in own.items() if name != "seed"}
        kept["data"] = {**kept["data"], "init_args": arguments}
    return kept


def methods_of(results: Sequence[Result]) -> tuple[Method, ...]:
    """Return the methods in the order of their first run.

    Runs of the same settings are one method if their seeds are known and differ; else the same
    training would count several times, and every run is a method of its own.
    """
    places: dict[str, list[int]] = {}
    for i, result in enumerate(results):
        places.setdefault(result.method, []).append(i)
    shared = [common_name([results[i].name for i in runs]) for runs in places.values()]
    methods = []
    for runs in places.values():
        known = {results[i].seed for i in runs} - {None}
        if len(known) < len(runs):
            methods += [Method(results[i].name, (i,), (results[i].seed,)) for i in runs]
            continue
        ordered = sorted(runs, key=lambda i: results[i].seed or 0)
        names = [results[i].name for i in ordered]
        name = common_name(names)
        if shared.count(name) > 1:  # another method's runs have it in common too
            name = "; ".join(names)
        methods.append(Method(name, tuple(ordered), tuple(results[i].seed for i in ordered)))
    return tuple(sorted(methods, key=lambda method: min(method.runs)))


def common_name(names: Sequence[str]) -> str:
    """Return what the names of repetitions have in common."""
    if len(set(names)) == 1:
        return names[0]
    parts = [name.partition(", balanced afterwards") for name in names]
    folders = [folder for folder, *_ in parts]
    leaves = {folder.rpartition("/")[2] for folder in folders}
    if len(leaves) == 1:
        start = leaves.pop()
    else:
        columns = itertools.takewhile(lambda c: len(set(c)) == 1, zip(*folders, strict=False))
        start = "".join(column[0] for column in columns)
        if any(folder[len(start) : len(start) + 1].isdigit() for folder in folders):
            start = start.rstrip("0123456789")  # "gai-1" of gai-10 and gai-11
        start = start.rstrip("-_ /.")
    return (start or folders[0]) + "".join(parts[0][1:])

"""Results read for a report: the scores of a folder, and the files of the run they belong to."""

import csv
import itertools
import json
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import yaml

from depthbal.errors import ConfigError, RunFolderError, first_line
from depthbal.evaluation import LabelBins, Scores
from depthbal.evaluation.balancing import balance_words
from depthbal.priors import GaussianMixture, Histogram
from depthbal.reports.vocabulary import READOUTS

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Example:
    """One test image with its truth and prediction, as examples.npz holds them."""

    name: str
    reason: str
    rmse: float
    index: int
    image: npt.NDArray[np.uint8]
    truth: npt.NDArray[np.float32]
    pred: npt.NDArray[np.float32]
    none: float = 0.0  # what stands in the truth where there is none

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """Where there is a truth, and not one that is only known to lie beyond the range."""
        return np.isfinite(self.truth) & ((self.truth > 0) | (self.none != 0))


@dataclass(frozen=True)
class Result:
    """One evaluation: its scores, and the files of the run that it belongs to, if there are."""

    name: str  # shown to people, unique in a report
    scores: Scores  # every number of the report follows from them
    path: Path  # of scores.npz
    run: Path  # the same folder, or two above RUN/eval/NAME
    config: str = ""  # config.yaml as text
    settings: Mapping[str, Any] = field(default_factory=dict)  # the same, without the seeds
    seed: int | None = None  # of the training
    record: Mapping[str, Any] = field(default_factory=dict)  # content of run.json
    # column of metrics.csv -> (steps, values)
    curves: Mapping[str, tuple[FloatArray, FloatArray]] = field(default_factory=dict)
    histogram: Histogram | None = None  # of the training labels
    prior: GaussianMixture | None = None  # None for plain losses, priors of bins or batches
    examples: tuple[Example, ...] = ()

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

    @cached_property
    def items(self) -> str:
        """What is counted in bins: "pixels", or "samples" where an image has one label."""
        return "pixels" if (self.counts.sum(1) > 1).any() else "samples"

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
        keys = ("checkpoint", "epochs", "tau", "relative_to")
        evaluated = [self.scores.given.get(key) for key in keys]
        return json.dumps([self.settings, evaluated, sigma], sort_keys=True, default=str)

    @property
    def readouts(self) -> tuple[str, ...]:
        """The read-outs, the main one first."""
        return tuple(dict.fromkeys((self.scores.main, *self.scores.readouts)))

    def readout_name(self, key: str | None = None) -> str:
        """Name a read-out, by default the main one; a plain loss has no posterior mean."""
        key = self.scores.main if key is None else key
        if key == "mean" and "raw" in self.readouts:
            pairs = [(self.pooled[s, "mean"], self.pooled[s, "raw"]) for s in self.scores.subsets]
            if all(np.array_equal(mean, raw) for mean, raw in pairs):
                return "mean (the raw output)"
        return READOUTS.get(key, key)

    @property
    def sigma_unit(self) -> str:
        """Unit of the noise scale, "" where the bins are not of what is predicted."""
        given = self.scores.given.get("posthoc") or self.scores.given
        own = self.scores.label.unit if "error" in self.scores.terms else ""
        return str(given.get("noise_unit", own))


# ---- reading ----


def load_results(folders: Sequence[str | Path]) -> list[Result]:
    """Read results for a report.

    Args:
        folders: each a run folder that was evaluated, one of its evaluations RUN/eval/NAME, or a
            folder with the scores.npz of anybody's predictions. Of config.yaml, run.json,
            prior.json, metrics.csv (of the run) and examples.npz what is missing is not reported.

    Raises:
        ConfigError: no folder, or the same one twice.
        RunFolderError: one holds no scores.npz, or a damaged file.
    """
    paths = [Path(folder) for folder in folders]
    places = [path.resolve() for path in paths]
    if not paths or len(set(places)) < len(paths):
        given = ", ".join(map(str, paths)) or "none"
        raise ConfigError(f"expected one or more folders, none of them named twice, got {given}")
    results = [_load(path) for path in paths]
    names = run_names([result.run for result in results])
    for number, result in enumerate(results):
        if posthoc := result.scores.given.get("posthoc"):
            names[number] += f", balanced afterwards ({balance_words(posthoc)})"
    clashing = {name for name in names if names.count(name) > 1}
    for number, result in enumerate(results):
        if names[number] in clashing and result.path != result.run:
            names[number] += f", {result.path.name}"
    return [replace(result, name=name) for result, name in zip(results, names, strict=True)]


def _load(path: Path) -> Result:
    scores = Scores.load(path)
    run = path.parent.parent if path.parent.name == "eval" else path
    settings = _read(run / "config.yaml", _settings, {})
    record = _read(run / "run.json", lambda file: dict(json.loads(file.read_bytes())), {})
    histogram, prior = _read(run / "prior.json", _prior, (None, None))
    seeds = (settings.get("seed_everything"), record.get("seed"))  # the latter knows a drawn one
    return Result(
        name=run.name,
        scores=scores,
        path=path,
        run=run,
        config=_read(run / "config.yaml", lambda file: file.read_text(encoding="utf-8"), ""),
        settings=without_seed(settings) or {"run": str(path)},
        seed=next((seed for seed in seeds if type(seed) is int), None),
        record=record,
        curves=_read(run / "metrics.csv", _curves, {}),
        histogram=histogram,
        prior=prior,
        examples=_read(path / "examples.npz", _examples, ()),
    )


def _read(file: Path, read: Callable[[Path], Any], otherwise: Any) -> Any:
    """Read a file that no number needs, if it is there."""
    try:
        return read(file) if file.is_file() else otherwise
    except (OSError, ValueError, KeyError, yaml.YAMLError, zipfile.BadZipFile) as error:
        reason = first_line(error)
        raise RunFolderError(f"{file} is damaged ({reason}); remove it to do without") from error


def _settings(path: Path) -> dict[str, Any]:
    """Return a run's settings; a run it starts from, a repetition too, is given by its settings."""
    content = dict(yaml.safe_load(path.read_text(encoding="utf-8")))
    task = (content.get("model") or {}).get("init_args") or {}
    start = task.get("weights_from") and Path(task["weights_from"])
    # of a run, or of a checkpoint RUN/checkpoints/NAME.ckpt
    for folder in (start, start.parent.parent) if start else ():
        if (folder / path.name).is_file():
            task["weights_from"] = without_seed(_settings(folder / path.name))
            break
    return content


def _prior(path: Path) -> tuple[Histogram | None, GaussianMixture | None]:
    """Return the histogram, and the prior where it is a mixture: bins are drawn as themselves."""
    content = json.loads(path.read_bytes())
    histogram, prior = content.get("histogram"), content.get("prior") or {}
    mixture = prior.get("kind") == GaussianMixture.__name__
    return (
        Histogram.from_dict(histogram) if histogram else None,
        GaussianMixture.from_dict(prior) if mixture else None,
    )


def _curves(path: Path) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Read metrics.csv: column -> (steps, values); numbers that are not finite are left out."""
    points: dict[str, list[tuple[float, float]]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            for column, text in row.items():
                if column not in ("step", "epoch") and text and np.isfinite(float(text)):
                    points.setdefault(column, []).append((float(row["step"]), float(text)))
    return {column: tuple(np.array(pairs).T) for column, pairs in points.items()}  # type: ignore[misc]


def _examples(path: Path) -> tuple[Example, ...]:
    with np.load(path, allow_pickle=False) as arrays:
        facts = (arrays[key].tolist() for key in ("name", "reason", "rmse", "index"))
        none = float(arrays.get("none", 0.0))
        parts = ("image", "truth", "pred")
        return tuple(
            Example(*[*one, *(arrays[f"{part}_{i:02d}"] for part in parts), none])
            for i, one in enumerate(zip(*facts, strict=True))
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
        found = list(names.values())
        names |= {p: "/".join(p.parts[-depth:]) for p, n in names.items() if found.count(n) > 1}
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
    """Return runs of the same settings as one method each, if their seeds are known and differ."""
    places: dict[str, list[int]] = {}
    for i, result in enumerate(results):
        places.setdefault(result.method, []).append(i)
    shared = [common_name([results[i].name for i in runs]) for runs in places.values()]
    methods = []
    for runs in places.values():
        known = {results[i].seed for i in runs} - {None}
        if len(known) < len(runs):
            methods += [Method(results[i].name, (i,), (results[i].seed,)) for i in runs]
            continue  # the same training would count several times
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
    leaves = [folder.rpartition("/")[2] for folder, *_ in parts]
    start = os.path.commonprefix(leaves)  # noqa: RUF071  # of characters
    if any(leaf[len(start) : len(start) + 1].isdigit() for leaf in leaves):
        start = start.rstrip("0123456789")  # "gai-1" of gai-10 and gai-11
    return (start.rstrip("-_ .") or parts[0][0]) + "".join(parts[0][1:])

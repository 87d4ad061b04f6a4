"""Which balancing suits a model: chosen by cross-validation from a joint histogram per fold."""

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats
from torch import Tensor

from depthbal.errors import ConfigError, DataError
from depthbal.evaluation.bins import DEPTH, Label, LabelBins
from depthbal.evaluation.summary import GROUPS
from depthbal.losses.calibration import calibrate
from depthbal.losses.posthoc import BalanceMap
from depthbal.priors import Histogram, World

FloatArray = npt.NDArray[np.float64]
Objective = Literal["overall", "few"]

FOLDS = 10
MIN_IMAGES = 10
CELLS = 512
"""Cells of predictions, from half a label range below the labels to two above."""
TAUS = tuple(round(0.1 * step, 1) for step in range(11))
SIGMAS = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
"""Noise scales of the theorem that are tried, in units of the model's RMSE."""
MANY_AT_MOST = 1.1


class Way(NamedTuple):
    """A way to balance.

    Args:
        kind: "calibration" with its tau, or "theorem" with its sigma in label units.
        value: of tau or sigma.
    """

    kind: str
    value: float


class JointHistogram:
    """Labels counted by prediction and bin, apart for ten folds; memory does not grow with images.

    Per fold, cell of predictions and scored bin: the labels' number, sum, sum of squares, and the
    scenes that they come from. Scenes are dealt to the folds in turn.

    Args:
        bins: Bins and shots of the label.

    Example:
        >>> joint = JointHistogram(LabelBins([0, 1, 2], ["many", "few"]))
        >>> joint.update(torch.tensor([0.6, 1.4]), torch.tensor([0.5, 1.5]), name="a")
        >>> joint.moments.sum((0, 2)).tolist()
        [[1.0, 1.0], [0.5, 1.5], [0.25, 2.25], [1.0, 1.0]]
    """

    def __init__(self, bins: LabelBins) -> None:
        scored = np.flatnonzero(bins.scored)
        self.first, last = int(scored[0]), int(scored[-1])
        self.bins, self.edges = bins, bins.edges[self.first : last + 2]
        self.groups = bins.groups().numpy()[:, self.first : last + 1]
        low, high = self.label_range = float(self.edges[0]), float(self.edges[-1])
        self.low, self.step = low - (high - low) / 2, 3.5 * (high - low) / CELLS
        self.moments = np.zeros((FOLDS, 4, CELLS, len(self.edges) - 1))
        self.preds = np.zeros((FOLDS, CELLS))
        self.names: list[str] = []
        self.folds: dict[str, int] = {}
        self._last: tuple[str, npt.NDArray[np.bool_]] = "", np.zeros(0, bool)

    def update(
        self,
        preds: Tensor | npt.NDArray[Any],
        target: Tensor | npt.NDArray[Any],
        mask: Tensor | npt.NDArray[Any] | None = None,
        name: str = "",
        group: str = "",
    ) -> None:
        """Add an image.

        Args:
            preds: Of any shape, label units.
            target: The same shape.
            mask: The same shape, True counts; None counts every label in a scored bin.
            name: Of the image.
            group: Its scene, which no fold cuts; "" where that is unknown.

        Raises:
            DataError: Shapes differ, or predictions that count are not finite.
        """
        p, y = torch.as_tensor(preds).detach().cpu(), torch.as_tensor(target).detach().cpu()
        if p.shape != y.shape:
            raise DataError(f"preds {tuple(p.shape)} and target {tuple(y.shape)} differ")
        index = self.bins.index(y)
        counted = index >= 0 if mask is None else (index >= 0) & torch.as_tensor(mask).cpu().bool()
        x, labels = p[counted].double().numpy(), y[counted].double().numpy()
        if not np.isfinite(x).all():
            raise DataError(f"{name or 'an image'} has predictions that are not finite")
        scene = group or name or str(len(self.names))
        fold = self.folds.setdefault(scene, len(self.folds) % FOLDS)
        self.names.append(name)
        if not len(x):
            return
        ends = self.label_range
        self.label_range = min(ends[0], float(labels.min())), max(ends[1], float(labels.max()))
        cell = ((x - self.low) / self.step).clip(0, CELLS - 1).astype(np.int64)
        shape = self.moments.shape[2:]
        place = cell * shape[1] + (index[counted].numpy() - self.first)
        for k, weights in enumerate((None, labels, labels**2)):
            found = np.bincount(place, weights, shape[0] * shape[1])
            self.moments[fold, k] += found.reshape(shape)
            if not k:
                new = found.reshape(shape) > 0
        last, seen = self._last
        self.moments[fold, 3] += new & ~seen if scene == last else new
        self._last = scene, new | seen if scene == last else new
        self.preds[fold] += np.bincount(cell, x, CELLS)

    @property
    def support(self) -> str:
        """How much was added, in words."""
        return f"{len(self.names)} images of {len(self.folds)} scenes"


def choose_balance(
    joint: JointHistogram,
    label: Label = DEPTH,
    objective: Objective = "overall",
    many_at_most: float | None = None,
    taus: Sequence[float] = TAUS,
    sigmas: Sequence[float] | None = None,
    prior: Histogram | None = None,
    world: World = "uniform",
) -> BalanceMap:
    """Return the map that serves an objective best, and what it is worth on images it has not seen.

    The ways (calibration with every tau; the theorem with every sigma where the training labels'
    histogram is known) are compared by cross-validation over scenes. Every fold is also scored by
    what the others alone would have chosen and fitted; the relative fall of the objective over all
    folds, and its 95 % interval by leaving out one fold after the other (jackknife, Student's t),
    are therefore those of the whole procedure, choice included.

    Args:
        joint: Of the calibration images.
        label: What is predicted.
        objective: "overall", the mean over bins of the RMSE; "few", that over few-shot bins.
        many_at_most: Largest error of many-shot bins relative to the model as it is. Default: none
            for "overall", 1.1 for "few".
        taus: Shares of balancing that are tried.
        sigmas: Noise scales of the theorem, label units. Default: 0.5 to 3 times the model's RMSE.
        prior: Histogram of the training labels; None leaves the theorem out.
        world: The target world.

    Returns:
        The map, fitted on all images. Its ``facts``: "tau" or "noise_sigma", "fall" and
        "interval_95" (shares), "before" and "after" per group on held-out folds, "tried" with the
        same for every way, "coverage" of the 68.27 % interval per bin on held-out folds, "images",
        "scenes", "names".

    Raises:
        DataError: Fewer than 10 images, a single scene, equal predictions, no bin of the objective.
        ConfigError: No way is left.

    Source: nested cross-validation (Varma and Simon, BMC Bioinformatics 7:91, 2006).
    """
    choice = _Choice(joint, objective, many_at_most, taus, sigmas, prior, world)
    balance = choice.made()
    balance.label = label.name, label.unit
    return balance


class _Choice:
    """The search for the best way, over the cells of predictions that occur."""

    def __init__(
        self,
        joint: JointHistogram,
        objective: Objective,
        many_at_most: float | None,
        taus: Sequence[float],
        sigmas: Sequence[float] | None,
        prior: Histogram | None,
        world: World,
    ) -> None:
        _require_enough(joint)
        self.joint, self.objective, self.world = joint, objective, world
        self.limit = many_at_most or (MANY_AT_MOST if objective == "few" else math.inf)
        seen = joint.moments[:, 0].any((0, 2))
        self.moments = joint.moments[:, :, seen]
        self.total = self.moments.sum(0)
        self.places = joint.preds.sum(0)[seen] / self.total[0].sum(1)  # where maps are scored
        self.counts = self.moments[:, 0].sum(1)
        self.folds = tuple(k for k in range(FOLDS) if self.counts[k].any())
        self.plain = [self._errors(self.places, k) for k in range(FOLDS)]
        if prior is not None and sigmas is None:
            rmse = math.sqrt(sum(e.sum() for e in self.plain) / self.counts.sum())
            sigmas = [float(f"{share * rmse:.3g}") for share in SIGMAS]
        self.theorem = {
            sigma: BalanceMap(prior, sigma, joint.label_range)
            for sigma in sigmas or ()
            if prior is not None
        }
        self.ways = [Way("calibration", tau) for tau in taus]
        self.ways += [Way("theorem", sigma) for sigma in self.theorem]
        if not self.ways:
            raise ConfigError("no way to balance is left: give a tau, or a sigma and a histogram")
        self.column = GROUPS.index(objective)
        if not np.isfinite(self._groups(self.plain, self.folds)[self.column]):
            raise DataError(f"the images hold no label in a scored bin of {objective}")
        self.fit, self.values = cache(self._fit), cache(self._values)  # many are asked for twice

    def made(self) -> BalanceMap:
        """Return the best map with its facts."""
        joint = self.joint
        tried = {way: self._held_out(way, self.folds) for way in self.ways}
        way = self._best(tried, self.folds)
        after, covered = {}, np.zeros_like(self.counts[0])
        for k in self.folds:
            rest = tuple(j for j in self.folds if j != k)
            fitted = self.fit(
                self._best({w: self._held_out(w, rest) for w in self.ways}, rest), rest
            )
            after[k] = self._errors(fitted(self.places), k)
            covered += self._covered(fitted, k)
        fall, *interval = self._fall(after)
        counts = self.counts.sum(0)
        balance = self.fit(way, self.folds)
        balance.facts = {
            **_named(way),
            "objective": self.objective,
            "many_at_most": self.limit if math.isfinite(self.limit) else None,
            "fall": fall,
            "interval_95": interval,
            "before": _by_group(self._groups(self.plain, self.folds)),
            "after": _by_group(self._groups(after, self.folds)),
            "coverage": _by_group(_ratio(joint.groups @ covered, joint.groups @ counts)),
            "coverage_of_bins": [
                {"from": float(edge), "coverage": float(inside / count), "count": int(count)}
                for edge, inside, count in zip(joint.edges, covered, counts, strict=False)
                if count
            ],
            "tried": [
                {**_named(w), **_by_group(self._groups(errors, self.folds))}
                for w, errors in tried.items()
            ],
            "world": self.world,
            "images": len(joint.names),
            "scenes": len(joint.folds),
            "folds": len(self.folds),
            "names": joint.names,
        }
        return balance

    def _fit(self, way: Way, folds: tuple[int, ...]) -> BalanceMap:
        """Return the map of a way from the images of some folds."""
        if way.kind == "theorem":
            return self.theorem[way.value]
        left = [k for k in range(FOLDS) if k not in folds]
        counts, sums, _, scenes = self.total - self.moments[left].sum(0)
        ends, edges = self.joint.label_range, self.joint.edges
        return calibrate(self.places, counts, sums, scenes, edges, ends, way.value, self.world)

    def _values(self, way: Way, folds: tuple[int, ...]) -> FloatArray:
        """Return what the predictions of the cells become."""
        if way.kind == "theorem" and folds:  # which needs no images
            return self.values(way, ())
        return self.fit(way, folds)(self.places)

    def _errors(self, values: FloatArray, fold: int) -> FloatArray:
        """Return the sums of squared errors per bin where every cell's prediction is a value."""
        count, label, square, _ = self.moments[fold]
        return values**2 @ count - 2 * values @ label + square.sum(0)  # type: ignore[no-any-return]

    def _held_out(self, way: Way, folds: tuple[int, ...]) -> dict[int, FloatArray]:
        """Return every fold's errors, the way fitted on the others."""
        return {
            k: self._errors(self.values(way, tuple(j for j in folds if j != k)), k) for k in folds
        }

    def _groups(self, errors: Any, folds: Sequence[int]) -> FloatArray:
        """Return per group the mean over its bins of the RMSE of each, over some folds."""
        counts = self.counts[list(folds)].sum(0)
        of_bin = np.sqrt(_ratio(np.sum([errors[k] for k in folds], axis=0).clip(0), counts))
        filled = self.joint.groups * (counts > 0)
        return _ratio(filled @ np.nan_to_num(of_bin), filled.sum(1))

    def _best(self, tried: Mapping[Way, dict[int, FloatArray]], folds: Sequence[int]) -> Way:
        """Return the way of the lowest objective, or of the lowest many-shot error over a limit."""
        many = GROUPS.index("many")
        most = self.limit * self._groups(self.plain, folds)[many]
        found = {way: self._groups(errors, folds) for way, errors in tried.items()}
        allowed = [way for way, errors in found.items() if not errors[many] > most]
        if not allowed:
            return min(found, key=lambda way: found[way][many])
        return min(allowed, key=lambda way: found[way][self.column])

    def _fall(self, after: Mapping[int, FloatArray]) -> tuple[float, float, float]:
        """Return the relative fall of the objective, and the ends of its 95 % interval."""

        def fall(folds: Sequence[int]) -> float:
            before, now = self._groups(self.plain, folds), self._groups(after, folds)
            return float(1 - now[self.column] / before[self.column])

        n, whole = len(self.folds), fall(self.folds)
        without = np.array([fall([j for j in self.folds if j != k]) for k in self.folds])
        spread = math.sqrt((n - 1) / n * np.square(without - without.mean()).sum())
        half = float(stats.t.ppf(0.975, n - 1)) * spread
        return whole, whole - half, whole + half

    def _covered(self, balance: BalanceMap, fold: int) -> FloatArray:
        """Return how many labels of each bin lie in their interval, spread evenly within bins."""
        edges = self.joint.edges
        ends = balance.interval(torch.from_numpy(self.places))
        lower, upper = (end.numpy()[:, None] for end in ends)
        inside = np.minimum(upper, edges[1:]) - np.maximum(lower, edges[:-1])
        shares = (inside / np.diff(edges)).clip(0, 1)
        return (shares * self.moments[fold, 0]).sum(0)  # type: ignore[no-any-return]


def _ratio(above: FloatArray, below: FloatArray) -> FloatArray:
    """Return above / below, NaN where below is 0."""
    found: FloatArray = np.divide(above, below, out=np.full(len(below), np.nan), where=below > 0)
    return found


def _require_enough(joint: JointHistogram) -> None:
    """Raise a DataError where nothing can be learned from the images."""
    images, scenes = len(joint.names), len(joint.folds)
    if images < MIN_IMAGES:
        raise DataError(f"balancing needs {MIN_IMAGES} labelled images or more, got {images}")
    if scenes < 2:
        raise DataError(f"all {images} images are of one scene; cross-validation needs two or more")
    counts = joint.moments[:, 0].sum((0, 2))
    if (counts > 0).sum() < 2:
        mean = joint.preds.sum() / counts.sum() if counts.any() else math.nan
        found = f"all predictions are about {mean:.4g}" if counts.any() else "no label counts"
        raise DataError(f"{found}: there is nothing to balance; check the predictions and the mask")


def require_unseen(calibrated: Sequence[str], tested: Sequence[str]) -> None:
    """Raise a DataError where images were both calibrated and tested on, by their names."""
    both = sorted(set(calibrated) & set(tested) - {""})
    if both:
        raise DataError(
            f"{len(both)} of {len(tested)} test images were calibrated on ({', '.join(both[:3])}"
            f"{', ...' if len(both) > 3 else ''}), so the result would flatter; take other images, "
            "or give --force"
        )


def balance_words(facts: Mapping[str, Any]) -> str:
    """Return what a way of balancing is called.

    Example:
        >>> balance_words({"noise_sigma": 0.8}), balance_words({"tau": 0.5})
        ('sigma 0.8', 'calibrated, tau 0.5')
    """
    if facts.get("noise_sigma") is not None:
        return f"sigma {facts['noise_sigma']:g}"
    return f"calibrated, tau {facts['tau']:g}"


def _named(way: Way) -> dict[str, Any]:
    return {"way": way.kind, "tau" if way.kind == "calibration" else "noise_sigma": way.value}


def _by_group(values: FloatArray) -> dict[str, float | None]:
    return {
        group: float(value) if np.isfinite(value) else None
        for group, value in zip(GROUPS, values, strict=True)
    }

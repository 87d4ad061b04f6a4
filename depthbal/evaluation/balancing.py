"""Which balancing suits a model: chosen by cross-validation from a joint histogram per fold."""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Literal

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
Way = tuple[Literal["tau", "noise_sigma"], float]  # of a calibration, of the theorem
Folds = tuple[int, ...]
Fitted = tuple[BalanceMap, FloatArray]
Errors = dict[int, FloatArray]  # per fold the sums of squared errors in every bin

FOLDS = 10
MIN_IMAGES = 10
CELLS = 512  # of predictions, from half a label range below the labels to two above
TAUS = tuple(round(0.1 * step, 1) for step in range(11))
SIGMAS = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0)  # of the theorem, in units of the model's RMSE
MANY_AT_MOST = 1.1


class JointHistogram:
    """Labels counted by prediction and bin, apart for ten folds; memory does not grow with images.

    Per fold, cell of predictions and scored bin there are the labels' number, sum, sum of squares,
    and the number of images that they come from. Scenes are dealt to the folds in turn.

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
        self.bins, self._first, last = bins, int(scored[0]), int(scored[-1]) + 1
        self.edges = bins.edges[self._first : last + 1]
        self.groups = np.asarray(bins.groups())[:, self._first : last]
        low, high = self.label_range = float(self.edges[0]), float(self.edges[-1])
        self._low, self._step = low - (high - low) / 2, 3.5 * (high - low) / CELLS
        self.moments = np.zeros((FOLDS, 4, CELLS, len(self.edges) - 1))
        self.preds = np.zeros(CELLS)  # their sums
        self.names: list[str] = []
        self.folds: dict[str, int] = {}  # of the scenes

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
        fold = self.folds.setdefault(group or name or f"{len(self.names)}", len(self.folds) % FOLDS)
        self.names.append(name)
        low, high = self.label_range
        self.label_range = float(labels.min(initial=low)), float(labels.max(initial=high))
        cell = ((x - self._low) / self._step).clip(0, CELLS - 1).astype(np.int64)
        self.preds += np.bincount(cell, x, CELLS)
        shape = self.moments.shape[2:]
        place = cell * shape[1] + index[counted].numpy() - self._first
        for moment, weights in zip(self.moments[fold], (None, labels, labels**2), strict=False):
            moment += np.bincount(place, weights, shape[0] * shape[1]).reshape(shape)
        self.moments[fold, 3].flat[np.unique(place)] += 1


def choose_balance(
    joint: JointHistogram,
    label: Label = DEPTH,
    objective: Literal["overall", "few"] = "overall",
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
        same for every way, "coverage" of the 68.27 % interval per group and bin on held-out folds,
        "images", "scenes", "names".

    Raises:
        DataError: Fewer than 10 images, a single scene, equal predictions, no bin of the objective.
        ConfigError: No way is left.

    Source: nested cross-validation (Varma and Simon, BMC Bioinformatics 7:91, 2006).
    """
    _require_enough(joint)
    if not taus and (prior is None or sigmas == []):
        raise ConfigError("no way to balance is left: give a tau, or a sigma and a histogram")
    limit = many_at_most or (MANY_AT_MOST if objective == "few" else math.inf)
    search = _Search(joint, GROUPS.index(objective), limit, world)
    if not search.score(search.plain, search.folds)[search.column] > 0:
        raise DataError(f"nothing to gain: no error, or no label, in the bins of {objective}")
    ways: list[Way] = [("tau", tau) for tau in taus]
    if prior is not None:
        if sigmas is None:
            rmse = math.sqrt(sum(map(np.sum, search.plain.values())) / search.counts.sum())
            sigmas = [float(f"{share * rmse:.3g}") for share in SIGMAS]
        for sigma in sigmas:
            kernel = prior.relative_to(world)
            search.theorem[sigma] = search.valued(BalanceMap(kernel, sigma, joint.label_range))
            ways.append(("noise_sigma", sigma))
    balance = search.run(ways)
    balance.label = label.name, label.unit
    balance.facts = {
        **(balance.facts or {}),
        "objective": objective,
        "many_at_most": limit if math.isfinite(limit) else None,
        "world": world,
        "images": len(joint.names),
        "scenes": len(joint.folds),
        "names": joint.names,
    }
    return balance


class _Search:
    """Cross-validation over the folds that have labels and the cells that have predictions."""

    def __init__(self, joint: JointHistogram, column: int, limit: float, world: World) -> None:
        self.column, self.limit, self.world = column, limit, world
        self.edges, self.groups, self.ends = joint.edges, joint.groups, joint.label_range
        seen = joint.moments[:, 0].any((0, 2))
        self.moments = joint.moments[:, :, seen]
        self.total = self.moments.sum(0)
        self.places = joint.preds[seen] / self.total[0].sum(1)  # where maps are scored
        self.counts = self.moments[:, 0].sum(1)
        self.folds: Folds = tuple(np.flatnonzero(self.counts.any(1)).tolist())
        self.plain = {k: self.errors(self.places, k) for k in self.folds}
        self.theorem: dict[float, Fitted] = {}
        self.fit = cache(self._fit)  # most are asked for twice

    def run(self, ways: Sequence[Way]) -> BalanceMap:
        """Return the best map with what it, and every way, does on held-out folds."""
        tried = {way: self.held_out(way, self.folds) for way in ways}
        after, covered = {}, np.zeros(len(self.edges) - 1)
        for k in self.folds:
            rest = tuple(j for j in self.folds if j != k)
            chosen = self.best({way: self.held_out(way, rest) for way in ways}, rest)
            fitted, values = self.fit(chosen, rest)
            after[k] = self.errors(values, k)
            covered += self.covered(fitted, k)
        best, counts = self.best(tried, self.folds), self.counts.sum(0)
        fall, *interval = self.fall(after)
        balance, _ = self.fit(best, self.folds)
        balance.facts = {
            best[0]: best[1],
            "fall": fall,
            "interval_95": interval,
            "before": self.named(self.plain),
            "after": self.named(after),
            "tried": [{way[0]: way[1], **self.named(errors)} for way, errors in tried.items()],
            "coverage": {
                **_by_group(_ratio(self.groups @ covered, self.groups @ counts)),
                "bins": np.stack([self.edges[:-1], covered, counts], 1)[counts > 0].tolist(),
            },
        }
        return balance

    def valued(self, balance: BalanceMap) -> Fitted:
        """Return a map and what it makes of the cells' predictions."""
        return balance, balance(self.places)

    def _fit(self, way: Way, folds: Folds) -> Fitted:
        """Return the map of a way from the images of some folds, valued."""
        if way[0] == "noise_sigma":
            return self.theorem[way[1]]
        left = [k for k in range(FOLDS) if k not in folds]
        counts, sums, _, images = self.total - self.moments[left].sum(0)
        joint = self.places, counts, sums, images, self.edges
        return self.valued(calibrate(*joint, self.ends, way[1], self.world))

    def errors(self, values: FloatArray, fold: int) -> FloatArray:
        """Return the sums of squared errors per bin where every cell's prediction is a value."""
        count, label, square, _ = self.moments[fold]
        return values**2 @ count - 2 * values @ label + square.sum(0)  # type: ignore[no-any-return]

    def held_out(self, way: Way, folds: Folds) -> Errors:
        """Return every fold's errors, the way fitted on the others."""
        rests = {k: tuple(j for j in folds if j != k) for k in folds}
        return {k: self.errors(self.fit(way, rest)[1], k) for k, rest in rests.items()}

    def score(self, errors: Errors, folds: Folds) -> FloatArray:
        """Return per group the mean over its bins of the RMSE of each, over some folds."""
        counts = self.counts[list(folds)].sum(0)
        of_bin = np.sqrt(_ratio(np.sum([errors[k] for k in folds], axis=0).clip(0), counts))
        filled = self.groups * (counts > 0)
        return _ratio(filled @ np.nan_to_num(of_bin), filled.sum(1))

    def named(self, errors: Errors) -> dict[str, float | None]:
        """Return the scores over all folds by group."""
        return _by_group(self.score(errors, self.folds))

    def best(self, tried: Mapping[Way, Errors], folds: Folds) -> Way:
        """Return the way of the lowest objective, or of the lowest many-shot error over a limit."""
        many = GROUPS.index("many")
        most = self.limit * self.score(self.plain, folds)[many]
        found = {way: self.score(errors, folds) for way, errors in tried.items()}
        allowed = [way for way, scores in found.items() if not scores[many] > most]
        column = self.column if allowed else many
        return min(allowed or found, key=lambda way: found[way][column])

    def fall(self, after: Errors) -> tuple[float, float, float]:
        """Return the relative fall of the objective, and the ends of its 95 % interval."""

        def fall(folds: Folds) -> float:
            before, now = self.score(self.plain, folds), self.score(after, folds)
            return float(1 - now[self.column] / before[self.column])

        n, whole = len(self.folds), fall(self.folds)
        without = np.array([fall(tuple(j for j in self.folds if j != k)) for k in self.folds])
        if not np.isfinite(without).all():
            raise DataError(
                f"too few scenes have labels in the bins of {GROUPS[self.column]}: without some of "
                "them none is left, so that nothing can be judged on held-out scenes"
            )
        half = float(stats.t.ppf(0.975, n - 1)) * math.sqrt(n - 1) * float(without.std())
        return whole, whole - half, whole + half

    def covered(self, balance: BalanceMap, fold: int) -> FloatArray:
        """Return how many labels of each bin lie in their interval, spread evenly within bins."""
        ends = balance.interval(torch.from_numpy(self.places))
        lower, upper = (end.numpy()[:, None] for end in ends)
        inside = np.minimum(upper, self.edges[1:]) - np.maximum(lower, self.edges[:-1])
        shares = (inside / np.diff(self.edges)).clip(0, 1)
        return (shares * self.moments[fold, 0]).sum(0)  # type: ignore[no-any-return]


def scenes_of(groups: Iterable[str]) -> list[str]:
    """Return the scenes of images, "" where unknown: one folder for all of them is no scene."""
    found = list(groups)
    return found if len(set(found)) > 1 else [""] * len(found)


def require_unseen(calibrated: Sequence[str], tested: Sequence[str]) -> None:
    """Raise a DataError where images were both calibrated and tested on, by their names."""
    both = sorted(set(calibrated) & set(tested) - {""})
    if both:
        raise DataError(
            f"{len(both)} of {len(tested)} test images were calibrated on ({', '.join(both[:3])}"
            f"{', ...' if len(both) > 3 else ''}), so the result would flatter; take other images, "
            "or, where others only have the same names, give --force"
        )


def balance_words(facts: Mapping[str, Any]) -> str:
    """Return what a way of balancing is called."""
    if facts.get("noise_sigma") is not None:
        return f"sigma {facts['noise_sigma']:g}"
    return f"calibrated, tau {facts['tau']:g}"


def _require_enough(joint: JointHistogram) -> None:
    """Raise a DataError where nothing can be learned from the images."""
    images, counts = len(joint.names), joint.moments[:, 0].sum((0, 2))
    if images < MIN_IMAGES:
        raise DataError(f"balancing needs {MIN_IMAGES} labelled images or more, got {images}")
    if (counts > 0).sum() < 2:
        mean = joint.preds.sum() / counts.sum() if counts.any() else None
        found = "no label counts" if mean is None else f"all predictions are about {mean:.4g}"
        raise DataError(f"{found}: there is nothing to balance; check the predictions and the mask")
    if joint.moments[:, 0].any((1, 2)).sum() < 2:
        raise DataError(f"all {images} images are of one scene; cross-validation needs two or more")


def _ratio(above: FloatArray, below: FloatArray) -> FloatArray:
    """Return above / below, NaN where below is 0."""
    found: FloatArray = np.divide(above, below, out=np.full(len(below), np.nan), where=below > 0)
    return found


def _by_group(values: FloatArray) -> dict[str, float | None]:
    known = (float(value) if np.isfinite(value) else None for value in values)
    return dict(zip(GROUPS, known, strict=True))

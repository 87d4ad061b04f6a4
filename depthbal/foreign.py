"""Evaluation of depth that anybody predicted: files of any program, or a function of the image."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from rich.progress import track
from scipy.stats import spearmanr

from depthbal.data import DepthDataModule, PairSource, PredictionFolder
from depthbal.data.images import measured
from depthbal.data.label_data import Split
from depthbal.data.predictions import Kind
from depthbal.errors import ConfigError, DataError
from depthbal.evaluation.alignment import Alignment, align
from depthbal.evaluation.balancing import require_unseen, scenes_of
from depthbal.evaluation.protocols import (
    KITTI_CROP,
    Cap,
    Crop,
    DepthProtocol,
    depth_protocols,
    evaluation_name,
)
from depthbal.evaluation.summary import SAME_PASS
from depthbal.examples import save_examples
from depthbal.io import show_progress
from depthbal.losses import BalanceMap

Predict = Callable[[NDArray[np.uint8]], ArrayLike]
FloatMap = NDArray[np.float32]

INVALID_LABEL = "NaN is scored as the lowest scored label, inf as the highest"
INVALID = (
    "0, negative and NaN are scored as the nearest scored depth, inf as the farthest; with inverse "
    "depth 0 is inf"
)
_LOOKED_AT = 12  # images whose predictions are judged before the evaluation starts
_UNITS = {1000.0: "millimetres", 100.0: "centimetres", 256.0: "1/256 m", 0.001: "kilometres"}
_TOO_FAR = 5.0  # a median ratio of prediction and truth beyond this is another unit
_STRETCH = 0.05  # of height over width, in logarithms; networks round sizes to multiples of 32


class Pair(NamedTuple):
    """One test image's prediction and truth as they are scored, (h, w) metres, truth 0 = none."""

    place: int
    name: str
    group: str
    preds: FloatMap
    target: FloatMap
    beyond: NDArray[np.bool_] | None  # where the truth is only known to lie beyond the range


class ForeignPredictions:
    """The predictions for a split of a data module, in the geometry of a protocol: pairs.

    Whole images are scored as they are at the truth's own size, others resized and cropped as for
    a network. Predictions are resampled bilinearly to it, inverse depth as inverse depth.
    """

    def __init__(
        self,
        predict: Predict | PredictionFolder,
        data: DepthDataModule,
        kind: Kind = "depth",
        whole: bool = False,
        split: Split = "test",
    ) -> None:
        self.predict, self.kind, self.whole, self._warned = predict, kind, whole, False
        self.samples = data.built(split)
        self.source: PairSource = self.samples.source
        self.transform = data.eval_transform
        files = predict.files if isinstance(predict, PredictionFolder) else None
        self.none = self.source.none
        self.indices = [i for i in range(len(self.source)) if files is None or files[i]]

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Pair]:
        return (self.pair(index) for index in self.indices)

    def picture(self, index: int) -> NDArray[np.uint8]:
        """Return an image as it belongs to its pair."""
        image = self.source.load(index)[0]
        return image if self.whole else self.transform.crop(self.transform.resize(image, False))

    def pair(self, index: int) -> Pair:
        """Return the pair of an image; what is no map of real numbers is a DataError."""
        name = self.source.name(index)
        if isinstance(self.predict, PredictionFolder):
            preds, depth = self.predict(index), self.samples.truth(index)
        else:
            image, depth = self.samples.pair(index)
            preds = np.asarray(self.predict(image))
            preds = np.squeeze(preds) if preds.ndim > 2 else preds
            if preds.ndim != 2 or preds.dtype.kind not in "fiu":
                raise DataError(
                    f"{name}: expected predict to return (h, w) real numbers, got "
                    f"{preds.dtype} {preds.shape}"
                )
            preds = preds.astype(np.float32)
        preds = self._in_place(preds, depth.shape)
        if self.whole:
            target, preds = depth, resample(preds, depth.shape)
        else:
            target = self.transform.depth(depth)[0].numpy()
            if preds.shape != target.shape or preds.shape == depth.shape:
                resized = self.transform.resize(depth, nearest=True)
                preds = self.transform.crop(resample(preds, resized.shape))
        if self.kind == "inverse":
            with np.errstate(divide="ignore"):
                preds = np.where(preds >= 0, 1 / preds, np.nan).astype(np.float32)
        beyond = np.isinf(target) if self.samples.beyond else None
        target = target if beyond is None else np.where(beyond, np.float32(self.none), target)
        return Pair(index, name, self.source.group(index), preds, target, beyond)

    def _in_place(self, preds: FloatMap, shape: tuple[int, ...]) -> FloatMap:
        """Return a prediction of KITTI's crop in the whole image; warn of one that is stretched."""
        height, width = preds.shape
        if preds.shape == KITTI_CROP and shape[0] >= height and shape[1] >= width:
            whole, left = np.full(shape, np.nan, np.float32), (shape[1] - width) // 2
            whole[shape[0] - height :, left : left + width] = preds
            return whole
        stretched = abs(np.log(width * shape[0] / (height * shape[1]))) > _STRETCH
        if stretched and preds.shape != self.transform.crop_size and not self._warned:
            self._warned = True
            warnings.warn(
                f"predictions of {height} x {width} are stretched to truths of {shape[0]} x "
                f"{shape[1]}: right if the program squeezed the images, wrong if it cut them",
                stacklevel=2,
            )
        return preds


def image_names(data: DepthDataModule, split: Split = "test") -> list[str]:
    """Set a data module up for a split; return the paths of its images."""
    data.prepare_data()
    # bins and shots come from the training split where no run brings its histogram
    testing = split == "test" and not (data.histogram is None and data.trains())
    data.setup("test" if testing else None)
    source = data.built(split).source
    return [source.image_path(index) for index in range(len(source))]


def resample(array: FloatMap, shape: Sequence[int]) -> FloatMap:
    """Return a map (h, w) at another size, bilinearly between pixel centres."""
    if array.shape == tuple(shape):
        return array
    resized = cv2.resize(array, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, dtype=np.float32)


def require_plausible(predictions: ForeignPredictions, metric: bool = True) -> None:
    """Refuse constant, inverse and, as metres, otherwise scaled predictions by a dozen of them."""
    picks = np.unique(np.linspace(0, len(predictions) - 1, _LOOKED_AT).round().astype(int))
    ratios, ranks, spreads = [], [], []
    for pick in picks:
        pair = predictions.pair(predictions.indices[pick])
        none = predictions.none
        usable = measured(pair.target, none) & measured(pair.preds, none)
        if usable.sum() < 2:
            continue
        p, y = pair.preds[usable], pair.target[usable]
        step = max(1, len(p) // 5000)
        ratios.append(float(np.median(p) / np.median(y)) if none == 0 else 1.0)
        spreads.append(float(np.ptp(p)))
        if np.ptp(p) > 0 and np.ptp(y) > 0 and none == 0:
            ranks.append(float(spearmanr(p[::step], y[::step]).statistic))
    if not ratios:
        raise DataError(f"none of {len(picks)} predictions holds a positive number")
    if max(spreads) == 0:
        raise DataError(
            f"every prediction is constant ({pair.preds.flat[0]:g}); there is nothing to score"
        )
    if ranks and np.median(ranks) < -0.2:
        other = "inverse" if predictions.kind == "depth" else "depth"
        fit = ", with --align inverse where their scale and shift are unknown"
        raise DataError(
            f"the predictions are larger where the truth is nearer (rank correlation "
            f"{np.median(ranks):.2f}): they look like {'inverse ' * (other == 'inverse')}depth; "
            f"give --predictions.kind {other}{fit * (other == 'inverse')}"
        )
    ratio = float(np.median(ratios))
    if metric and not 1 / _TOO_FAR <= ratio <= _TOO_FAR:
        factor = min(_UNITS, key=lambda factor: abs(np.log(ratio / factor)))
        close = abs(np.log(ratio / factor)) < np.log(2)
        wrong, inverse = factor if close else ratio, predictions.kind == "inverse"
        guess = f"they look like {_UNITS[factor]}; " if close and not inverse else ""
        raise DataError(
            f"the predictions' median is {ratio:.3g} times the truth's: {guess}give "
            f"--predictions.scale {wrong if inverse else 1 / wrong:.3g} if they have another unit, "
            f"or --align {'inverse' if inverse else 'median'} if their scale is unknown"
        )


def evaluate(
    predict: Predict | PredictionFolder,
    data: DepthDataModule,
    out: str | Path | None = None,
    *,
    protocol: str | Sequence[str] = "nyud2_dir",
    crop: Crop | Sequence[Crop] | None = None,
    cap: Cap | Sequence[Cap] | None = None,
    kind: Kind = "depth",
    alignments: Sequence[Alignment] = ("none",),
    balance: BalanceMap | None = None,
    force: bool = False,
    seed: int = 0,
    edges: bool = False,
    facts: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Score anybody's depth on a data module's test split, per bin and shot, in one pass.

    The numbers are those of a run of depthbal with the same predictions, and the folder is read by
    ``depthbal report`` beside runs.

    Args:
        predict: from an image, uint8 (H, W, 3) RGB, to (h, w) metres: any network, session or
            service; or a `depthbal.data.PredictionFolder`.
        data: the data module; it is set up if it is not.
        out: folder of the result (scores.npz, metrics.json, examples.npz); None writes nothing.
        protocol: "nyud2_dir" (balanced mask, pooled over pixels), "eigen" or "kitti" (the usual
            crops and caps, mean over images) or "whole" (whole images, pooled over pixels). Of
            several, each with every crop and cap, the first one is the result; the others go into
            folders ``eval/NAME`` and, as rows, into its "protocols".
        crop: of whole images, "none", "nyu-eigen", "kitti-garg", "kitti-eigen", or in the depth
            benchmark's 352 x 1216 "kb", "kb-garg", "kb-eigen". Default: the protocol's.
        cap: metres between which whole images are scored. Default: the protocol's.
        kind: "depth" in metres or "inverse" in 1/metres.
        alignments: "none" (read-out "raw"), "median", "depth" and "inverse" ("median_aligned", not
            metric, ...); the first one is that of the top-level numbers.
        balance: adds the read-out "balanced" of the first alignment, with its interval, and makes
            it the main one.
        force: score images that `balance` was calibrated on.
        seed: of the balanced mask's draw.
        edges: measure boundary F1 and the share of flying pixels too.
        facts: entries for the protocol.
        progress: show a progress bar.

    Returns:
        What metrics.json holds.

    Raises:
        DataError: the predictions are constant, have plainly another unit, or are no maps.
        ConfigError: an unknown protocol or alignment, or a balancing of another label.

    Example:
        >>> import depthbal
        >>> from depthbal.data import RoomsDataModule
        >>> data = RoomsDataModule(n_train=4, n_val=0, n_test=2, size=(24, 32), num_workers=0)
        >>> def bright_is_far(image):
        ...     return 1 + 5 * image.mean(2) / 255
        >>> result = depthbal.evaluate(bright_is_far, data)
        >>> result["protocol"]["readout"], result["all_pixels"]["few"]["count"] > 0
        ('raw', True)
    """
    if balance is not None and balance.label not in (None, data.label[:2]):
        given, own = (" in ".join(label) for label in (balance.label, data.label[:2]))
        raise ConfigError(f"the balancing is of {given}, not of {own}")
    image_names(data)
    options = {"edges": edges, "alignments": tuple(alignments)}
    rules = depth_protocols(protocol, data, seed, crop, cap, **options)
    predictions = ForeignPredictions(predict, data, kind, rules[0].whole)
    if balance is not None and not force:
        names = [predictions.source.name(index) for index in predictions.indices]
        require_unseen((balance.facts or {}).get("names", []), names)
    require_plausible(predictions, "none" in alignments)
    about: dict[str, Any] = {"data": data.describe_test(), **(facts or {})}
    if balance is not None:
        about["posthoc"] = balance.describe()
        about["interval"] = "68.27 % interval of the label given the prediction"
    more = [] if balance is None else ["balanced"]
    scored = [(rule, rule.scores(more, "raw", about, *more)) for rule in rules]
    words = INVALID if predictions.none == 0 else INVALID_LABEL
    for _, scores in scored:
        counted = {"pixels": 0, "images": []}
        found: dict[str, Any] = {"kind": kind, "invalid": counted, "invalid_rule": words}
        if isinstance(predict, PredictionFolder):
            found |= {"source": str(predict.root.absolute()), "missing": predict.missing}
        scores.given["predictions"] = found

    def read_out(
        rule: DepthProtocol, pair: Pair
    ) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        """Return truth, what counts and every read-out of an image, (1, 1, h, w) each."""
        target, preds = (
            torch.from_numpy(np.ascontiguousarray(one))[None, None]
            for one in (pair.target, pair.preds)
        )
        mask, limits = rule.counts(target), (*rule.bins.ends, predictions.none)
        every = rule.with_aligned({"raw": preds}, target, mask)
        maps = {key: valid(every[key].numpy(), *limits) for key in rule.aligned}
        if balance is not None:
            balanced = balance(next(iter(maps.values()))).astype(np.float32)
            maps["balanced"] = valid(balanced, *limits)
        return target, mask, {key: torch.from_numpy(one) for key, one in maps.items()}

    hidden = not (progress and show_progress())
    for pair in track(predictions, "Evaluating", transient=True, disable=hidden):
        for rule, scores in scored:
            target, mask, maps = read_out(rule, pair)
            inside, counted = mask[0, 0].numpy(), scores.given["predictions"]["invalid"]
            invalid = int((~measured(pair.preds, predictions.none) & inside).sum())
            counted["pixels"] += invalid
            counted["images"] += [pair.name] if invalid else []
            ends = None if balance is None else balance.interval(next(iter(maps.values())))
            far = None if pair.beyond is None else torch.from_numpy(pair.beyond)[None, None]
            one = [pair.name], [pair.group], torch.tensor([pair.place])
            rule.update(scores, maps, target, mask, *one, ends, far)
    (rule, scores), *others = scored
    if rows := [row for _, other in others for row in other.result()["protocols"]]:
        scores.given[SAME_PASS] = rows
    if out is None:
        return scores.result()
    for _, other in others:
        other.save(Path(out) / "eval" / evaluation_name(other))

    def show(index: int) -> tuple[Any, Any, Any]:
        pair = predictions.pair(predictions.indices[index])
        found = rule.scored(read_out(rule, pair)[2][scores.main])[0, 0].numpy()
        return predictions.picture(pair.place), pair.target, found

    result = scores.save(out)
    save_examples(scores, show, Path(out), predictions.none)
    return result


def calibration_samples(
    predictions: ForeignPredictions, data: DepthDataModule, alignment: Alignment = "none"
) -> Iterator[tuple[FloatMap, FloatMap, NDArray[np.bool_], str, str]]:
    """Yield prediction, truth, mask, name and scene of every image, for a `JointHistogram`."""
    require_plausible(predictions, alignment == "none")
    low, high = data.bins().ends
    scenes = scenes_of(predictions.source.group(index) for index in predictions.indices)
    for pair, scene in zip(predictions, scenes, strict=True):
        inside = measured(pair.target, predictions.none)
        aligned = align(pair.preds, pair.target, inside, alignment)
        preds = valid(aligned, low, high, predictions.none)
        yield preds, pair.target, inside, pair.name, scene


def valid(preds: FloatMap, low: float, high: float, none: float = 0.0) -> FloatMap:
    """Return predictions with what is no depth replaced: inf by `high`, the rest by `low`."""
    good = measured(preds, none)
    if good.all():
        return preds
    return np.where(good, preds, np.where(np.isposinf(preds), high, low)).astype(np.float32)

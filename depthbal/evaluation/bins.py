"""Bins of a label range and their many, medium and few shots."""

from collections.abc import Sequence
from copy import copy
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from depthbal.errors import DataError

SHOTS = ("many", "medium", "few")

# Pixels per 0.1 m bin, 0 to 10 m, of the NYUD2-DIR training split, as published with the benchmark
# (Yang et al., "Delving into Deep Imbalanced Regression", ICML 2021; code under the MIT licence).
# fmt: off
NYUD2_PIXELS: tuple[int, ...] = (
    0, 0, 0, 0, 0,
    0, 0, 25_848_691, 24_732_940, 53_324_326,
    69_112_955, 54_455_432, 95_637_682, 71_403_954, 117_244_217,
    84_813_007, 126_524_456, 84_486_706, 133_130_272, 95_464_874,
    146_051_415, 146_133_612, 96_561_379, 138_366_677, 89_680_276,
    127_689_043, 81_608_990, 119_121_178, 74_360_607, 106_839_384,
    97_595_765, 66_718_296, 90_661_239, 53_103_021, 83_340_912,
    51_365_604, 71_262_770, 42_243_737, 65_860_580, 38_415_940,
    53_647_559, 54_038_467, 28_335_524, 41_485_143, 32_106_001,
    35_936_734, 23_966_211, 32_018_765, 19_297_203, 31_503_743,
    21_681_574, 16_363_187, 25_743_420, 12_769_509, 17_675_327,
    13_147_819, 15_798_560, 9_547_180, 14_933_200, 9_663_019,
    12_887_283, 11_803_562, 7_656_609, 11_515_700, 7_756_306,
    9_046_228, 5_114_894, 8_653_419, 6_859_433, 8_001_904,
    6_430_700, 3_305_839, 6_318_461, 3_486_268, 5_621_065,
    4_030_498, 3_839_488, 3_220_208, 4_483_027, 2_555_777,
    4_685_983, 3_145_082, 2_951_048, 2_762_369, 2_367_581,
    2_546_089, 2_343_867, 2_481_579, 1_722_140, 3_018_892,
    2_325_197, 1_952_354, 2_047_038, 1_858_707, 2_052_729,
    1_348_558, 2_487_278, 1_314_198, 3_338_550, 1_132_666,
)
# fmt: on


class Label(NamedTuple):
    """What is predicted: name and unit, for protocols, axes and tables, and its range if known.

    Args:
        name: in plain words.
        unit: of predictions, truths and bin edges.
        range: the values between which labels lie.

    Example:
        >>> Label("age", "years")
        Label(name='age', unit='years', range=None)
    """

    name: str
    unit: str
    range: tuple[float, float] | None = None


DEPTH = Label("depth", "m")
"""Metric depth, the default of every evaluation."""


class LabelBins:
    """Half-open bins [edge_i, edge_i+1) of a scalar label, each with a shot or none.

    The last bin takes everything beyond its upper edge; labels below the first edge, labels that
    are not finite and labels in unscored bins have no bin (-1). Labels and edges are compared in
    float32, so that 0.8 lies in the bin that starts at 0.8 whatever precision either came in.

    Args:
        edges: (bins + 1,) increasing, in label units (metres, years).
        shots: one of "many", "medium", "few" per bin, or None (also "") for a bin in no shot.
            Default: no bin has a shot.
        scored: which bins count at all. Default: those with a shot, or all if `shots` is not given.
            A scored bin without a shot counts in "overall" only.
        per_unit: if given, bin = int(label * per_unit) replaces the comparison with the edges (the
            rule of NYUD2-DIR, bins per metre); the edges must be multiples of 1 / per_unit from 0.
        shot_rule: where the shots come from, in words, for the protocol.

    Raises:
        DataError: edges that do not increase; a wrong number of shots; an unknown shot.

    Example:
        >>> ages = LabelBins.from_counts([0, 1, 2, 3], [150, 50, 4], many_above=100, few_below=20)
        >>> ages.shots
        ('many', 'medium', 'few')
        >>> ages.index(torch.tensor([-1, 0, 1, 2, 90])).tolist()
        [-1, 0, 1, 2, 2]
    """

    unit_suffix = ""
    from_zero = False  # whether the bins of a histogram begin at 0

    def __init__(
        self,
        edges: npt.ArrayLike,
        shots: Sequence[str | None] | None = None,
        *,
        scored: npt.ArrayLike | None = None,
        per_unit: float | None = None,
        shot_rule: str = "",
    ) -> None:
        self.edges = np.array(edges, dtype=np.float64)
        if self.edges.ndim != 1 or len(self.edges) < 2 or not (np.diff(self.edges) > 0).all():
            raise DataError(f"bin edges must be an increasing list of 2 or more, got {edges!r}")
        if shots is not None and len(shots) != len(self):
            raise DataError(f"expected one shot per bin, {len(self)} of them, got {len(shots)}")
        self.shots = tuple(shot or None for shot in shots or [None] * len(self))
        if unknown := set(self.shots) - {*SHOTS, None}:
            raise DataError(f"shots must be among {SHOTS} or None, got {sorted(map(str, unknown))}")
        if scored is None:
            scored = [shots is None or shot is not None for shot in self.shots]
        self.scored: npt.NDArray[np.bool_] = np.array(scored, dtype=bool)
        self.per_unit = per_unit
        if per_unit and not np.allclose(self.edges * per_unit, np.arange(len(self) + 1)):
            raise DataError(f"per_unit={per_unit} needs edges at 0, {1 / per_unit}, ...")
        self.shot_rule = shot_rule
        self.rule = "edge_i <= label < edge_i+1, in float32; the last bin takes everything beyond"
        if per_unit:
            self.rule = f"bin = min(int(label * {per_unit:g}), {len(self) - 1}), in float32"

    def __len__(self) -> int:
        return len(self.edges) - 1

    @classmethod
    def from_counts(
        cls,
        edges: npt.ArrayLike,
        counts: npt.ArrayLike,
        many_above: float,
        few_below: float,
        **options: Any,
    ) -> Self:
        """Give every bin its shot by its number of training labels; empty bins are few-shot.

        Args:
            edges: (bins + 1,) in label units.
            counts: (bins,) training labels per bin.
            many_above: a count above this is many-shot.
            few_below: a count below this is few-shot; the rest is medium-shot.
            **options: of the constructor. Bins that `scored` excludes get no shot.
        """
        values = np.asarray(counts, dtype=np.float64)
        shots = np.where(values > many_above, "many", np.where(values < few_below, "few", "medium"))
        shots = np.where(options.get("scored", np.True_), shots, "")
        rule = f"many: more than {many_above:g} training labels per bin, few: below {few_below:g}"
        return cls(edges, shots.tolist(), **{"shot_rule": rule, **options})

    @classmethod
    def from_histogram(
        cls, histogram: Any, many_above: float = 0.688, few_below: float = 0.265
    ) -> Self:
        """Give every bin of a training histogram its shot by its density, whatever its width.

            density = (pixels of the bin / width) / (pixels of all bins / their range)

        1 is where all labels are equally common. The thresholds are those of NYUD2-DIR, 2.6e7 and
        1.0e7 pixels in 0.1 m of 3.51e9 in 9.3 m, and give its own counts its own shots.

        Of depth, the range from 0 m to the histogram's first edge is filled with unscored bins of
        the first bin's width: with 0.1 m bins, bin 7 starts at 0.7 m for every data set.

        An empty histogram is a DataError.
        """
        counts = np.asarray(histogram.counts, dtype=np.float64)
        if not counts.sum() > 0:
            raise DataError("the histogram holds no pixels; fill it from the training split first")
        edges, below = np.asarray(histogram.edges, dtype=np.float64), 0
        density = counts / np.diff(edges) * (np.ptp(edges) / counts.sum())
        if edges[0] > 0 and cls.from_zero:
            below = max(1, round(edges[0] / (edges[1] - edges[0])))
            edges = np.concatenate([np.linspace(0, edges[0], below + 1)[:-1], edges])
        labels = "depths" if cls.from_zero else "labels"
        rule = f"many above {many_above:g} times the density of equally common {labels}, few below "
        return cls.from_counts(
            edges,
            np.concatenate([np.zeros(below), density]),
            many_above,
            few_below,
            scored=np.arange(len(edges) - 1) >= below,
            shot_rule=f"{rule}{few_below:g}",
        )

    def index(self, values: Tensor) -> Tensor:
        """Return the bin of every label, long of the same shape; -1 for no scored bin."""
        labels = values.detach().to(torch.float32)
        found = self._place(labels)
        if not self.scored.all():
            # one row more, so that index -1 (below the first edge) finds "unscored" too
            lookup = torch.arange(len(self) + 1, device=labels.device)
            lookup[~torch.as_tensor(np.append(self.scored, False), device=labels.device)] = -1
            found = lookup[found]
        return found.masked_fill_(~labels.isfinite(), -1)

    def column(self, values: Tensor) -> Tensor:
        """Return 0 for finite predictions below the first edge, bin + 1, or bins + 1 beyond.

        The last bin includes its upper edge, to which clamped predictions are cut.
        """
        labels = values.detach().to(torch.float32)
        return self._place(labels).add_(1).add_(labels > float(np.float32(self.edges[-1])))

    def _place(self, labels: Tensor) -> Tensor:
        """Return the bin of float32 labels, scored or not: -1 below the first edge."""
        last = len(self) - 1
        if self.per_unit:
            # floor, not the rule's cast, which would send -0.05 to bin 0
            return (labels * self.per_unit).nan_to_num_(-1.0).floor_().clamp_(-1, last).long()
        edges = torch.as_tensor(self.edges, dtype=torch.float32, device=labels.device)
        return torch.bucketize(labels.contiguous(), edges, right=True).sub_(1).clamp_(max=last)

    def groups(self) -> npt.NDArray[np.float64]:
        """Return (4, bins): 1 where the bin belongs to overall, many, medium, few."""
        of_shots = [[shot == name for shot in self.shots] for name in SHOTS]
        return np.stack([self.scored, *(self.scored & np.array(row) for row in of_shots)]) * 1.0

    @property
    def ends(self) -> tuple[float, float]:
        """The ends of the scored bins, label units."""
        scored = np.flatnonzero(self.scored)
        return float(self.edges[scored[0]]), float(self.edges[scored[-1] + 1])

    def all_scored(self) -> Self:
        """Return the same bins, every one of them scored; shots stay as they are."""
        bins = copy(self)
        bins.scored = np.ones(len(self), dtype=bool)
        return bins

    def describe(self) -> dict[str, Any]:
        """Return the definition of bins and shots for a protocol, JSON-able."""
        return {
            "rule": self.rule,
            "edges": self.edges.tolist(),
            "scored": np.flatnonzero(self.scored).tolist(),
            "shots": {s: [i for i, x in enumerate(self.shots) if x == s] for s in SHOTS},
            "shot_rule": self.shot_rule,
        }


class DepthBins(LabelBins):
    """Bins of metric depth that start at 0 m; a depth of 0 or below has no bin.

    Example:
        >>> bins = DepthBins.nyud2()
        >>> bins.index(torch.tensor([0.0, 0.699, 0.7, 5.05, 9.95, 12.0])).tolist()
        [-1, -1, 7, 50, 99, 99]
        >>> bins.shots[7], bins.shots[20], bins.shots[99]
        ('medium', 'many', 'few')
    """

    unit_suffix, from_zero = "_m", True

    @classmethod
    def nyud2(cls) -> Self:
        """Return the benchmark's 100 bins of 0.1 m, bins 0 to 6 unscored, with its official shots.

        Source: NYUD2-DIR (Yang et al., "Delving into Deep Imbalanced Regression", ICML 2021).
        """
        bins = np.arange(len(NYUD2_PIXELS) + 1)
        return cls.from_counts(
            bins / 10,
            NYUD2_PIXELS,
            many_above=2.6e7,
            few_below=1.0e7,
            scored=bins[:-1] >= 7,
            per_unit=10,
            shot_rule="NYUD2-DIR: many above 2.6e7 official training pixels, few below 1.0e7",
        )

    @classmethod
    def uniform(cls, width: float, high: float = 10.0) -> Self:
        """Return scored bins of equal width from 0 to `high` metres, without shots.

        Example:
            >>> len(DepthBins.uniform(0.5))
            20
        """
        return cls(np.arange(round(high / width) + 1) * width)

    def index(self, values: Tensor) -> Tensor:
        """Return the bin of every depth in metres, -1 for no scored bin and for no depth (<= 0)."""
        found = super().index(values)
        # only a scored first bin can hold zeros
        return found.masked_fill_(values <= 0, -1) if self.scored[0] else found

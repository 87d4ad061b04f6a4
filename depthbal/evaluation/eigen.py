"""The protocol of other depth papers: Eigen's crop, clamped predictions, mean over images."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from depthbal.errors import ConfigError
from depthbal.evaluation.bins import LabelBins
from depthbal.evaluation.protocol import Evaluation, Interval
from depthbal.evaluation.scores import GROUPS
from depthbal.evaluation.sums import check_preds, checked_mask, masked_index

MIN_DEPTH, MAX_DEPTH = 1e-3, 10.0


def eigen_crop(height: int, width: int) -> tuple[slice, slice]:
    """Return rows and columns of the crop: [45:471, 41:601] of 480 x 640, scaled to other sizes.

    Source: Eigen, Puhrsch, Fergus, "Depth Map Prediction from a Single Image using a Multi-Scale
    Deep Network", NIPS 2014, as evaluated in the works that follow it.

    Example:
        >>> eigen_crop(480, 640)
        (slice(45, 471, None), slice(41, 601, None))
        >>> eigen_crop(240, 320)
        (slice(23, 236, None), slice(21, 301, None))
    """
    rows = (_scaled(45, height, 480), _scaled(471, height, 480))
    columns = (_scaled(41, width, 640), _scaled(601, width, 640))
    return slice(*rows), slice(*columns)


class EigenEvaluation(Evaluation):
    """Scores all pixels of Eigen's crop, averaged over images.

    Predictions are clamped to 1e-3 to 10 m; truths count between 1e-3 and 10 m (exclusive). Depths
    below the first scored bin count in "overall" and belong to no shot. `update` takes the same
    arguments as `Evaluation.update`; a balanced mask is not used. In `result`, overall, many,
    medium and few are means over images; "bins" and "all_pixels" are pooled over pixels.

    Args:
        bins: bins and shots, starting at 0 m.
        readouts: names of the predictions that `update` gets.
        main: the read-out of the top-level numbers.
        protocol: what only the caller knows.

    Raises:
        ConfigError: bins that start above 0 m; `main` is no read-out.

    Example:
        >>> from depthbal.evaluation import DepthBins
        >>> evaluation = EigenEvaluation(DepthBins.nyud2(), readouts=("raw",), main="raw")
        >>> target = torch.full((2, 1, 48, 64), 5.0)
        >>> evaluation.update({"raw": target * 3}, target, target > 0)
        >>> evaluation.result()["overall"]["rmse"]  # 15 m was clamped to 10 m
        5.0
    """

    default_name = "eigen"

    def __init__(
        self,
        bins: LabelBins,
        readouts: Sequence[str] = ("raw", "clamped", "mean"),
        main: str = "mean",
        protocol: Mapping[str, Any] | None = None,
    ) -> None:
        if bins.edges[0] > 0:
            raise ConfigError(
                f"the eigen protocol needs bins from 0 m, these start at {bins.edges[0]}"
            )
        super().__init__(bins.all_scored(), readouts, main, protocol)

    def update(
        self,
        preds: Mapping[str, Tensor],
        target: Tensor,
        mask: Tensor | None = None,
        balanced: Tensor | None = None,
        names: Sequence[str] | None = None,
        groups: Sequence[str] | None = None,
        interval: Interval | None = None,
    ) -> None:
        """Add whole images, (images, 1, height, width) metres; see `Evaluation.update`."""
        mask = checked_mask(target, mask, names)
        crop = torch.zeros_like(mask)
        rows, columns = eigen_crop(target.shape[-2], target.shape[-1])
        crop[..., rows, columns] = True
        counted = mask & crop & (target > MIN_DEPTH) & (target < MAX_DEPTH)
        for values in preds.values():
            check_preds(values, target, counted, names)  # before the clamp hides an infinite value
        clamped = {name: self.scored(values) for name, values in preds.items()}
        index = masked_index(target, counted, self.bins)
        self._add(clamped, target, counted, {"all": index}, names, groups, interval)

    def scored(self, preds: Tensor) -> Tensor:
        """Return predictions as they are scored: clamped to 1e-3 to 10 m."""
        return preds.clamp(MIN_DEPTH, MAX_DEPTH)

    def result(self) -> dict[str, Any]:
        """Return the contents of metrics.json in the shape of `Evaluation.result` with a mask.

        Raises:
            DataError: no image, or no pixel that counts.
        """
        self._require_images()
        block = {name: self._summary("all", name) for name in self.readouts}
        top = block[self.main]
        return {
            "protocol": {
                **self._protocol(top, top),
                "crop": "[45:471, 41:601] of 480 x 640, scaled",
                "prediction_range_m": [MIN_DEPTH, MAX_DEPTH],
                "truth_range_m": [MIN_DEPTH, MAX_DEPTH],
            },
            **{group: top["per_image_mean"][group] for group in GROUPS},
            "bins": top["bins"],
            "all_pixels": top,
            "per_image_mean": top["per_image_mean"],
            "per_bin_mean": top["per_bin_mean"],
            "readout": {
                name: {group: block[name]["per_image_mean"][group] for group in GROUPS}
                for name in self.readouts
            },
            "calibration": self._calibration(),
        }

    def _averaging(self) -> str:
        return (
            "overall, many, medium, few: mean over images; bins and all_pixels: pooled over pixels"
        )

    def _sizes(self, top: dict[str, Any], everywhere: dict[str, Any]) -> dict[str, int]:
        return {"pixels": top["overall"]["count"], "pixels_all": everywhere["overall"]["count"]}


def _scaled(pixel: int, size: int, reference: int) -> int:
    """Scale a pixel position, halves up (Python's `round` would send them to even numbers)."""
    return (2 * pixel * size + reference) // (2 * reference)

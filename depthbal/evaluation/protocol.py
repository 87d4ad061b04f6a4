"""One evaluation from maps to metrics.json and per_image.npz, with its protocol written into it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from depthbal.errors import ConfigError, DataError
from depthbal.evaluation.bins import LabelBins
from depthbal.evaluation.scores import GROUPS
from depthbal.evaluation.summary import summarise
from depthbal.evaluation.sums import BinnedTruth, check_preds, checked_mask, masked_index
from depthbal.evaluation.terms import MIN_PREDICTION, TERMS


class Evaluation:
    """Scores several read-outs of the same model, on the balanced mask and on all pixels.

    Args:
        bins: bins and shots.
        readouts: names of the predictions that `update` gets.
        main: the read-out of the top-level numbers.
        protocol: what only the caller knows: "name", "mask" (`BalancedMask.describe()`), data.

    Raises:
        ConfigError: `main` is no read-out.

    Example:
        >>> from depthbal.evaluation import DepthBins, balanced_mask
        >>> bins = DepthBins([0, 2, 4], ["many", "few"])
        >>> target = torch.tensor([[[[1.0, 1.5, 3.0, 0.0]]]])
        >>> balanced = torch.tensor([[[[True, False, True, False]]]])
        >>> evaluation = Evaluation(bins, readouts=("raw",), main="raw")
        >>> evaluation.update({"raw": target + 0.5}, target, target > 0, balanced)
        >>> result = evaluation.result()
        >>> result["overall"]["count"], result["all_pixels"]["overall"]["count"]
        (2, 3)
        >>> result["few"]["bias"], result["protocol"]["readout"]
        (0.5, 'raw')
    """

    averaging = (
        "overall, many, medium, few and bins: pooled over pixels; per_image_mean: mean over "
        "images; per_bin_mean: mean over non-empty bins. Top level: balanced mask; all_pixels: "
        "no mask"
    )
    default_name = "balanced mask"
    subsets: tuple[str, ...] = ("mask", "all")

    def __init__(
        self,
        bins: LabelBins,
        readouts: Sequence[str] = ("raw", "clamped", "mean"),
        main: str = "mean",
        protocol: Mapping[str, Any] | None = None,
    ) -> None:
        if main not in readouts:
            raise ConfigError(f"main read-out {main!r} is not among the read-outs {list(readouts)}")
        self.bins = bins
        self.readouts = tuple(readouts)
        self.main = main
        self.protocol = dict(protocol or {})
        self._names: list[str] = []
        self._sums: dict[tuple[str, str], list[npt.NDArray[np.float64]]] = {
            (subset, readout): [] for subset in self.subsets for readout in readouts
        }

    def update(
        self,
        preds: Mapping[str, Tensor],
        target: Tensor,
        mask: Tensor | None,
        balanced: Tensor,
        names: Sequence[str] | None = None,
    ) -> None:
        """Add a batch of images.

        Args:
            preds: for every read-out (images, 1, height, width) metres, at the target's size.
            target: (images, 1, height, width) metres, 0 = no depth.
            mask: the same shape, True counts; None counts all pixels with a scored bin.
            balanced: the same shape, True where the balanced mask chose the pixel.
            names: of the images, for `per_image.npz`. Default: their running numbers.

        Raises:
            DataError: a read-out is missing; shapes differ; values under the mask are not finite.
        """
        mask = checked_mask(target, mask)
        chosen = checked_mask(target, torch.as_tensor(balanced, device=target.device)) & mask
        index = masked_index(target, mask, self.bins)
        self._add(preds, target, mask, {"all": index, "mask": index.masked_fill(~chosen, -1)})
        self._add_names(names, len(target))

    def _add(
        self, preds: Mapping[str, Tensor], target: Tensor, mask: Tensor, indices: dict[str, Tensor]
    ) -> None:
        """Sum every read-out over every subset of pixels, given the bin of each pixel."""
        if set(preds) != set(self.readouts):
            raise DataError(f"expected the read-outs {list(self.readouts)}, got {list(preds)}")
        for readout in self.readouts:
            check_preds(preds[readout], target, mask)
        for subset, index in indices.items():
            truth = BinnedTruth(target, index, len(self.bins))
            for readout in self.readouts:
                sums = truth.sums(preds[readout], TERMS)
                self._sums[subset, readout].append(sums.cpu().numpy())

    def _add_names(self, names: Sequence[str] | None, images: int) -> None:
        known = len(self._names)
        if names is not None and len(names) != images:
            raise DataError(f"{len(names)} names for {images} images")
        self._names += [str(known + i) for i in range(images)] if names is None else list(names)

    def result(self) -> dict[str, Any]:
        """Return the contents of metrics.json: plain dicts, lists, floats, ints and None.

        Top level: the balanced mask, pooled over pixels, main read-out. "all_pixels" has the same
        structure without the mask; "readout" has overall and the shots of every read-out, on the
        mask and, under its own "all_pixels", without.

        Raises:
            DataError: no image, or no pixel that counts.
        """
        block = {key: self._summary(*key) for key in self._sums}
        top, everywhere = block["mask", self.main], block["all", self.main]
        return {
            "protocol": self._protocol(top, everywhere),
            **{key: top[key] for key in (*GROUPS, "bins")},
            "all_pixels": everywhere,
            "per_image_mean": top["per_image_mean"],
            "per_bin_mean": top["per_bin_mean"],
            "readout": {
                name: {
                    **_short(block["mask", name]),
                    "all_pixels": _short(block["all", name]),
                }
                for name in self.readouts
            },
        }

    def per_image(self) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays of per_image.npz, from which every number can be computed again.

        - "sums_all", "sums_mask": (images, bins, terms) float64 of the main read-out
        - "sums_all_NAME", "sums_mask_NAME": the same of every other read-out
        - "terms" (terms,), "edges" (bins + 1,), "shots" (bins,; "" for none), "scored" (bins,),
          "names" (images,), "main"

        `summarise(arrays["sums_mask"], DepthBins(edges, shots, scored=scored))` gives the numbers.
        """
        arrays: dict[str, npt.NDArray[Any]] = {
            f"sums_{subset}" + ("" if readout == self.main else f"_{readout}"): self._stacked(
                subset, readout
            )
            for subset, readout in self._sums
        }
        return {
            **arrays,
            "terms": np.array(TERMS),
            "edges": self.bins.edges.copy(),
            "shots": np.array([shot or "" for shot in self.bins.shots]),
            "scored": self.bins.scored.copy(),
            "names": np.array(self._names),
            "main": np.array(self.main),
        }

    def _stacked(self, subset: str, readout: str) -> npt.NDArray[np.float64]:
        if not self._names:
            raise DataError("nothing was evaluated: the test set gave no image")
        return np.concatenate(self._sums[subset, readout])

    def _summary(self, subset: str, readout: str) -> dict[str, Any]:
        return summarise(self._stacked(subset, readout), self.bins)

    def _protocol(self, top: dict[str, Any], everywhere: dict[str, Any]) -> dict[str, Any]:
        if not everywhere["overall"]["count"]:
            raise DataError(
                f"none of the {len(self._names)} images has a valid pixel in a scored bin; "
                "check the depth unit (metres) and the mask"
            )
        return {
            "name": self.default_name,
            "averaging": self.averaging,
            "readout": self.main,
            "readouts": list(self.readouts),
            "min_prediction_m": MIN_PREDICTION,
            "min_prediction_applies_to": ["log10", "silog", "delta1", "delta2", "delta3"],
            "silog": "100 * sqrt(mean d^2 - (mean d)^2), d = ln prediction - ln truth",
            "images": len(self._names),
            "pixels": top["overall"]["count"],
            "pixels_all": everywhere["overall"]["count"],
            "bins": self.bins.describe(),
            **self.protocol,
        }


def _short(block: dict[str, Any]) -> dict[str, Any]:
    return {key: block[key] for key in (*GROUPS, "per_image_mean", "per_bin_mean")}

"""From sums per image to the contents of metrics.json and per_image.npz."""

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from depthbal.errors import ConfigError, DataError
from depthbal.evaluation.bins import LabelBins
from depthbal.evaluation.calibration import INTERVAL, LEVEL, calibration
from depthbal.evaluation.examples import Example, choose_examples
from depthbal.evaluation.image_sums import ImageSums
from depthbal.evaluation.label import Label
from depthbal.evaluation.scores import GROUPS, metrics_of
from depthbal.evaluation.summary import summarise
from depthbal.evaluation.terms import MIN_ERROR, MIN_PREDICTION
from depthbal.files import replacing

_POSITIVE = ("log10", "silog", "delta1", "delta2", "delta3")
_POOLED = (
    "overall, many, medium, few and bins: pooled over {}; per_image_mean: mean over images; "
    "per_bin_mean: mean over non-empty bins"
)


class EvaluationResults:
    """What all evaluations keep, and how it is written.

    Args:
        bins: bins and shots.
        readouts: names of the predictions; without several of them there is one, "".
        main: the read-out of the top-level numbers.
        protocol: what only the caller knows.
        terms: what is summed; the metrics follow from it.
        label: what is predicted.
        main_metric: the metric that reports open with.

    Raises:
        ConfigError: `main` is no read-out; `main_metric` does not follow from the terms.
    """

    default_name = "all samples"

    def __init__(
        self,
        bins: LabelBins,
        readouts: Sequence[str],
        main: str,
        protocol: Mapping[str, Any] | None,
        terms: Sequence[str],
        label: Label,
        main_metric: str,
    ) -> None:
        if main not in readouts:
            raise ConfigError(f"main read-out {main!r} is not among the read-outs {list(readouts)}")
        self.terms = tuple(dict.fromkeys(terms))
        if "count" not in self.terms:
            raise ConfigError(f'the terms must hold "count", got {list(terms)}')
        if main_metric not in metrics_of(self.terms):
            known = list(metrics_of(self.terms))
            raise ConfigError(f"main metric {main_metric!r} is not among the metrics {known}")
        self.bins = bins
        self.readouts = tuple(readouts)
        self.main = main
        self.protocol = dict(protocol or {})
        self.label = label
        self.main_metric = main_metric
        self.names: list[str] = []
        self.groups: list[str] = []
        self._sums: dict[tuple[str, str], ImageSums] = {}
        self._joint: dict[tuple[str, str], npt.NDArray[np.int64]] = {}
        self._covered: dict[str, npt.NDArray[np.float64]] = {}

    @property
    def masked(self) -> bool:
        """Whether a balanced mask gives the top-level numbers."""
        return ("mask", self.main) in self._sums

    def result(self) -> dict[str, Any]:
        """Return the contents of metrics.json: plain dicts, lists, floats, ints and None.

        Top level: pooled over pixels of the balanced mask, or of all where there is none, main
        read-out. Beside a mask "all_pixels" has the same structure without it. With several
        read-outs "readout" has overall and the shots of each, under its own "all_pixels" without
        the mask. "calibration" is None unless intervals were given.

        Raises:
            DataError: no image, or no pixel that counts.
        """
        self._require_images()
        block = {key: self._summary(*key) for key in self._sums}
        everywhere = block["all", self.main]
        top = block["mask", self.main] if self.masked else everywhere
        result = {
            "protocol": self._protocol(top, everywhere),
            **{key: top[key] for key in (*GROUPS, "bins")},
        }
        if self.masked:
            result["all_pixels"] = everywhere
        result["per_image_mean"] = top["per_image_mean"]
        result["per_bin_mean"] = top["per_bin_mean"]
        if len(self.readouts) > 1:
            result["readout"] = {name: self._of_readout(block, name) for name in self.readouts}
        result["calibration"] = self._calibration()
        return result

    def per_image(self) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays of per_image.npz, from which every number can be computed again.

        - "sums_all": (images, bins, terms) float64 of the main read-out; beside a balanced mask
          "sums_mask" too
        - "sums_all_NAME", "sums_mask_NAME": the same of every other read-out
        - "joint_all", "joint_mask", ...: (bins, bins + 2) int64, see `joint_histogram`
        - "coverage_all", "coverage_mask": (bins, 2) float64, see `coverage_counts`; only with
          intervals
        - "terms" (terms,), "edges" (bins + 1,), "shots" (bins,; "" for none), "scored" (bins,),
          "names" (images,), "groups" (images,; the scene, "" unknown), "main", "label_name",
          "label_unit", "main_metric"

        `summarise(arrays["sums_all"], DepthBins(edges, shots, scored=scored), terms)` gives the
        numbers.

        Raises:
            DataError: no image.
        """
        return dict(self._arrays())

    def examples(self) -> list[Example]:
        """Return which images show what the main read-out does; see `choose_examples`."""
        self._require_images()
        return choose_examples(self._sums["all", self.main].dense(), self.bins, self.terms)

    def save_per_image(self, path: Path) -> None:
        """Write the arrays of `per_image` as a compressed npz file, holding one of them at a time.

        Raises:
            DataError: no image.
        """
        self._require_images()
        with (
            replacing(path) as temporary,
            zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        ):
            for name, array in self._arrays():
                # no date is written: the same evaluation gives the same file
                with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, array, allow_pickle=False)

    def _arrays(self) -> Iterator[tuple[str, npt.NDArray[Any]]]:
        self._require_images()
        for (subset, readout), sums in self._sums.items():
            yield f"sums_{subset}{self._suffix(readout)}", sums.dense()
        for (subset, readout), joint in self._joint.items():
            yield f"joint_{subset}{self._suffix(readout)}", joint
        for subset, covered in self._covered.items():
            yield f"coverage_{subset}", covered
        yield "terms", np.array(self.terms)
        yield "edges", self.bins.edges.copy()
        yield "shots", np.array([shot or "" for shot in self.bins.shots])
        yield "scored", self.bins.scored.copy()
        yield "names", np.array(self.names)
        yield "groups", np.array(self.groups)
        yield "main", np.array(self.main)
        yield "label_name", np.array(self.label.name)
        yield "label_unit", np.array(self.label.unit)
        yield "main_metric", np.array(self.main_metric)

    def _suffix(self, readout: str) -> str:
        return "" if readout == self.main else f"_{readout}"

    def _add_sums(self, subset: str, readout: str, sums: Tensor) -> None:
        kept = self._sums.setdefault((subset, readout), ImageSums(self.terms.index("count")))
        kept.add(sums)

    def _add_names(
        self, names: Sequence[str] | None, groups: Sequence[str] | None, images: int
    ) -> None:
        known = len(self.names)
        for what, given in (("names", names), ("groups", groups)):
            if given is not None and len(given) != images:
                raise DataError(f"{len(given)} {what} for {images} images")
        self.names += [str(known + i) for i in range(images)] if names is None else names
        self.groups += [""] * images if groups is None else groups

    def _require_images(self) -> None:
        if not self.names:
            raise DataError("nothing was evaluated: the test set gave no image")

    def _summary(self, subset: str, readout: str) -> dict[str, Any]:
        return summarise(self._sums[subset, readout].dense(), self.bins, self.terms)

    def _of_readout(self, block: dict[tuple[str, str], dict[str, Any]], name: str) -> Any:
        if not self.masked:
            return _short(block["all", name])
        return {**_short(block["mask", name]), "all_pixels": _short(block["all", name])}

    def _calibration(self) -> dict[str, Any] | None:
        if not self._covered:
            return None
        return {
            "level": LEVEL,
            "interval": INTERVAL,
            **{subset: calibration(counts, self.bins) for subset, counts in self._covered.items()},
        }

    def _averaging(self) -> str:
        if self.masked:
            return f"{_POOLED.format('pixels')}. Top level: balanced mask; all_pixels: no mask"
        return _POOLED.format("samples")

    def _protocol(self, top: dict[str, Any], everywhere: dict[str, Any]) -> dict[str, Any]:
        if not everywhere["overall"]["count"]:
            raise DataError(
                f"none of the {len(self.names)} images has a valid pixel in a scored bin; "
                f"check the unit of the {self.label.name} ({self.label.unit}) and the mask"
            )
        return {
            "name": self.default_name,
            "label": self.label._asdict(),
            "main_metric": self.main_metric,
            "averaging": self._averaging(),
            **({"readout": self.main, "readouts": list(self.readouts)} if self.main else {}),
            **_definitions(metrics_of(self.terms), self.label.unit),
            "images": len(self.names),
            **self._sizes(top, everywhere),
            "bins": self.bins.describe(),
            **self.protocol,
        }

    def _sizes(self, top: dict[str, Any], everywhere: dict[str, Any]) -> dict[str, int]:
        if not self.masked:
            return {"samples": everywhere["overall"]["count"]}
        return {"pixels": top["overall"]["count"], "pixels_all": everywhere["overall"]["count"]}


def _definitions(metrics: Sequence[str], unit: str) -> dict[str, Any]:
    """Return what the values of some metrics depend on."""
    out: dict[str, Any] = {}
    if raised := [name for name in _POSITIVE if name in metrics]:
        out |= {"min_prediction_m": MIN_PREDICTION, "min_prediction_applies_to": raised}
    if "silog" in metrics:
        out["silog"] = "100 * sqrt(mean d^2 - (mean d)^2), d = ln prediction - ln truth"
    if "gm" in metrics:
        out["gm"] = f"exp(mean ln max(|prediction - truth|, {MIN_ERROR:g} {unit}))"
    return out


def _short(block: dict[str, Any]) -> dict[str, Any]:
    return {key: block[key] for key in (*GROUPS, "per_image_mean", "per_bin_mean")}

"""The one accumulator of errors: sums per sample, bin, read-out and subset, and what follows."""

import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchmetrics import Metric

from depthbal.errors import ConfigError, DataError, RunFolderError
from depthbal.evaluation.bins import DEPTH, SHOTS, Label, LabelBins
from depthbal.evaluation.examples import Example, choose_examples
from depthbal.evaluation.summary import result_of
from depthbal.evaluation.sums import Edges, Pixels, check_preds, checked_mask, chunks
from depthbal.evaluation.terms import EDGE_TERMS, TERMS, metrics_of
from depthbal.io import replacing, write_json

RESULT_FILE = "scores.npz"
_DAMAGE = (EOFError, zipfile.BadZipFile, zlib.error)  # what NumPy lets through
_ABOUT: tuple[str, ...] = ("readouts", "main", "terms", "label", "main_metric", "subsets")
_ABOUT += ("averaging", "balanced", "columns")  # what scores.npz says of its object
Arrays = dict[str, npt.NDArray[Any]]


class Scores(Metric):
    """Errors of several read-outs of one model, per bin, shot and overall, of any scalar label.

    For every sample, bin, read-out and subset of pixels the float64 sums of the terms are kept,
    empty bins of a sample excepted; besides the joint histogram of truth and prediction and the
    coverage of intervals. All of it adds up over batches and processes, and every reported number
    follows from it. `compute` gives what metrics.json holds, `save` writes it and scores.npz.

    Args:
        bins: bins and shots of the label.
        readouts: names of the predictions that `update` gets.
        main: the read-out of the top-level numbers.
        terms: what is summed: `TERMS` for depth, also with `EDGE_TERMS` for maps (images, 1,
            height, width), `LABEL_TERMS` for labels that may be 0 or below,
            ("count", ...) with the names of errors that are measured elsewhere.
        label: what is predicted.
        main_metric: the metric that reports open with.
        subsets: names of the subsets of pixels that `update` gets beside all of them; with "mask",
            the balanced mask, the top-level numbers are those of the mask.
        averaging: whether the top-level groups are pooled over pixels or means over images.
        balanced: metrics that get a second form beside them, the mean over non-empty bins, under
            their name with a "b" before it (bmae, bmse).
        columns: names of further numbers per sample, kept for the caller.
        protocol: what only the caller knows: "name", the mask, the data.
        **kwargs: of `torchmetrics.Metric`.

    Raises:
        ConfigError: `main` is no read-out; `main_metric` does not follow from the terms.

    Example:
        >>> from depthbal.evaluation import DepthBins
        >>> scores = Scores(DepthBins([0, 2, 4], ["many", "few"]), ("raw",), "raw")
        >>> target = torch.tensor([[[[1.0, 1.5, 3.0, 0.0]]]])
        >>> scores.update({"raw": target + 0.5}, target, target > 0)
        >>> result = scores.compute()
        >>> result["overall"]["count"], result["few"]["bias"], result["protocol"]["readout"]
        (3, 0.5, 'raw')
    """

    is_differentiable = False
    full_state_update = False

    def __init__(
        self,
        bins: LabelBins,
        readouts: Sequence[str] = ("raw", "clamped", "mean"),
        main: str = "mean",
        *,
        terms: Sequence[str] = TERMS,
        label: Label = DEPTH,
        main_metric: str = "rmse",
        subsets: Sequence[str] = (),
        averaging: Literal["pixels", "images"] = "pixels",
        balanced: Sequence[str] = (),
        columns: Sequence[str] = (),
        protocol: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if main not in readouts:
            raise ConfigError(f"main read-out {main!r} is not among the read-outs {list(readouts)}")
        if "count" not in terms:
            raise ConfigError(f'the terms must hold "count", got {list(terms)}')
        for name in (main_metric, *balanced):
            if name not in (known := metrics_of(terms)):
                raise ConfigError(f"metric {name!r} is not among the metrics {list(known)}")
        self.bins = bins
        self.readouts, self.main = tuple(readouts), main
        # those of whole maps last
        self.terms = tuple(sorted(dict.fromkeys(terms), key=EDGE_TERMS.__contains__))
        self.label, self.main_metric = label, main_metric
        self.subsets = (*subsets, "all")
        self.averaging, self.balanced, self.columns = averaging, tuple(balanced), tuple(columns)
        self.given = dict(protocol or {})
        self._table: Arrays | None = None
        self._batches = 0
        for name in ("order", "text", *(f"column_{column}" for column in columns)):
            self.add_state(name, default=[], dist_reduce_fx="cat")
        for subset in self.subsets:
            for name in (f"lengths_{subset}", f"cells_{subset}"):
                self.add_state(name, default=[], dist_reduce_fx="cat")
            covered = torch.zeros(len(bins), 2, dtype=torch.float64)
            self.add_state(f"coverage_{subset}", default=covered, dist_reduce_fx="sum")
            for readout in self.readouts:
                if subset == "all":
                    counts = torch.zeros(len(bins) + 3, dtype=torch.int64)
                    self.add_state(f"beyond_{readout}", default=counts, dist_reduce_fx="sum")
                joint = torch.zeros(len(bins), len(bins) + 2, dtype=torch.int64)
                self.add_state(f"joint_{subset}_{readout}", default=joint, dist_reduce_fx="sum")
                self.add_state(f"sums_{subset}_{readout}", default=[], dist_reduce_fx="cat")

    # ---- adding ----

    def update(
        self,
        preds: Mapping[str, Tensor],
        target: Tensor,
        mask: Tensor | None = None,
        names: Sequence[str] | None = None,
        groups: Sequence[str] | None = None,
        interval: tuple[Tensor, Tensor] | None = None,
        subsets: Mapping[str, Tensor] | None = None,
        indices: Tensor | None = None,
        beyond: Tensor | None = None,
    ) -> None:
        """Add a batch of images or samples.

        Args:
            preds: for every read-out (images, ...) in label units, of the target's shape, such as
                (images, 1, height, width) metres or (samples,) years.
            target: the same shape, label units.
            mask: the same shape, True counts; None counts all pixels with a scored bin.
            names: of the images. Default: their numbers.
            groups: what images must be resampled together by (the scene). Default: unknown.
            interval: lower and upper end of the 68.27 % interval, label units, the same shape.
            subsets: for every subset the same shape, True where it holds the pixel.
            indices: (images,) their places in the data set, by which results are ordered over
                processes; -1 is padding, which counts nowhere. Default: the order of the calls.
            beyond: the same shape as the target, True for labels that are only known to lie beyond
                the last bin. No error is theirs: they are counted by the prediction's bin.

        Raises:
            DataError: a read-out or subset is missing; shapes differ; values under the mask are not
                finite (the images are named).
        """
        mask = checked_mask(target, mask, names)
        if set(preds) != set(self.readouts):
            raise DataError(f"expected the read-outs {list(self.readouts)}, got {list(preds)}")
        given = {k: torch.as_tensor(v).to(target.device) for k, v in (subsets or {}).items()}
        if {*given, "all"} != set(self.subsets):
            raise DataError(f"expected the subsets {self.subsets[:-1]}, got {list(given)}")
        for values in (*preds.values(), *(interval or ())):
            check_preds(values, target, mask, names)
        chosen = {"all": mask} | {k: checked_mask(target, v, names) for k, v in given.items()}
        if beyond is not None:
            self._add_beyond(preds, checked_mask(torch.zeros_like(target), beyond))
        index = self.bins.index(target).masked_fill_(~mask, -1)
        rows = self._add_samples(target, names, groups, indices)
        if len(rows) < len(target):  # padding counts nowhere
            target, index, mask = target[rows], index[rows], mask[rows]
            preds, chosen = ({k: v[rows] for k, v in maps.items()} for maps in (preds, chosen))
            interval = interval and (interval[0][rows], interval[1][rows])
        with_edges = set(EDGE_TERMS) <= set(self.terms)
        plain = [term for term in self.terms if term not in EDGE_TERMS]
        parts = list(chunks(target))
        for subset in self.subsets:
            inside = index.masked_fill(~chosen[subset], -1)
            edges = Edges(target, mask, inside, self.bins) if with_edges else None
            pixels = [(part, Pixels(target[part], inside[part], self.bins)) for part in parts]
            for readout in self.readouts:
                values = preds[readout]
                sums = torch.cat([some.sums(values[part], plain) for part, some in pixels])
                if edges is not None:
                    sums = torch.cat([sums, edges.sums(values)], dim=2)
                self._add_sums(subset, readout, sums)
                joint = torch.stack([some.joint(values[part]) for part, some in pixels])
                self._add(f"joint_{subset}_{readout}", joint.sum(0))
            if interval is not None:
                for part, some in pixels:
                    covered = some.coverage(interval[0][part], interval[1][part])
                    self._add(f"coverage_{subset}", covered)

    def update_errors(
        self,
        errors: Mapping[str, Tensor],
        label: Tensor,
        names: Sequence[str] | None = None,
        groups: Sequence[str] | None = None,
        columns: Mapping[str, Tensor] | None = None,
        indices: Tensor | None = None,
    ) -> None:
        """Add a batch of samples whose errors are measured elsewhere, such as joints of meshes.

        Args:
            errors: for every term but "count" (samples,), in the unit that the name stands for.
            label: (samples,) in label units, by which the samples are binned.
            names: as for `update`.
            groups: as for `update`.
            columns: for every name in `columns` (samples,).
            indices: as for `update`.

        Raises:
            DataError: an error is missing; shapes differ; values are not finite.
        """
        expected = [term for term in self.terms if term != "count"]
        if set(errors) != set(expected):
            raise DataError(f"expected the errors {expected}, got {list(errors)}")
        if label.ndim != 1:
            raise DataError(f"expected a label of shape (samples,), got {tuple(label.shape)}")
        mask = checked_mask(label, None, names)
        for values in errors.values():
            check_preds(values, label, mask, names)
        rows = self._add_samples(label, names, groups, indices)
        for name in self.columns:
            self._append(f"column_{name}", (columns or {})[name][rows].double())
        index, ones = self.bins.index(label), torch.ones_like(label)
        values = torch.stack([{"count": ones, **errors}[t].double() for t in self.terms], dim=1)
        sums = label.new_zeros(len(label), len(self.bins), len(self.terms), dtype=torch.float64)
        counted = (index >= 0).nonzero().squeeze(1)
        sums[counted, index[counted]] = values[counted]
        self._add_sums("all", self.main, sums[rows])

    def _add_samples(
        self,
        label: Tensor,
        names: Sequence[str] | None,
        groups: Sequence[str] | None,
        indices: Tensor | None,
    ) -> Tensor:
        """Note what the samples are called; return those that are no padding."""
        self._table = self._computed = None
        self._update_count, samples = max(self._update_count, 1), len(label)
        for what, given in (("names", names), ("groups", groups)):
            if given is not None and len(given) != samples:
                raise DataError(f"{len(given)} {what} for {samples} images")
        order = torch.arange(samples) + self._batches if indices is None else indices.cpu()
        self._batches += samples
        kept = (order >= 0).nonzero().flatten()
        lines = [
            f"{order[i] if names is None else names[i]}\n{'' if groups is None else groups[i]}\n"
            for i in kept.tolist()
        ]
        self._append("text", torch.tensor(list("".join(lines).encode()), dtype=torch.uint8))
        self._append("order", order[kept])
        return kept

    def _add_sums(self, subset: str, readout: str, sums: Tensor) -> None:
        """Keep (samples, bins, terms) sums, without the bins that a sample does not have."""
        filled = sums[..., self.terms.index("count")] > 0
        if readout == self.main:
            self._append(f"lengths_{subset}", filled.sum(1))
            self._append(f"cells_{subset}", filled.nonzero()[:, 1])
        self._append(f"sums_{subset}_{readout}", sums[filled])

    def _add_beyond(self, preds: Mapping[str, Tensor], beyond: Tensor) -> None:
        """Count labels beyond the last bin by the prediction's column, and those before half."""
        half = float(self.bins.edges[-1]) / 2
        for readout, values in preds.items():
            found = values[beyond]
            columns = torch.bincount(self.bins.column(found), minlength=len(self.bins) + 2)
            self._add(f"beyond_{readout}", torch.cat([columns, (found < half).sum()[None]]))

    def _append(self, state: str, values: Tensor) -> None:
        getattr(self, state).append(values.detach().to(self.device))

    def _add(self, state: str, values: Tensor) -> None:
        setattr(self, state, getattr(self, state) + values.to(self.device))

    def reset(self) -> None:
        """Forget all samples."""
        super().reset()
        self._table, self._batches = None, 0

    # ---- what was added ----

    def table(self) -> Arrays:
        """Return everything that was added, as scores.npz holds it, samples in their order.

        - "names", "groups": (samples,) text, the group "" where unknown; "column_NAME": (samples,)
        - "lengths_SUBSET": (samples,) how many bins each sample has; "cells_SUBSET": those bins,
          sample after sample; "sums_SUBSET_READOUT": (cells, terms) float64
        - "joint_SUBSET_READOUT": (bins, bins + 2) int64, rows by the truth's bin, columns by the
          prediction's: below the first edge, each bin, beyond the last edge
        - "coverage_SUBSET": (bins, 2) truths inside their interval, and all that have one
        - "beyond_READOUT": (bins + 3,) int64, labels known to lie beyond the last bin by the
          columns of "joint", and how many predictions of them are nearer than half its end
        """
        if self._table is None:
            if not self._batches:
                raise DataError("nothing was evaluated: the test set gave no image")
            self._table = self._collect()
        return self._table

    def _collect(self) -> Arrays:
        def joined(state: str) -> npt.NDArray[Any]:
            values = getattr(self, state)
            values = values if isinstance(values, Tensor) else torch.cat(values)
            return values.cpu().numpy()  # type: ignore[no-any-return]

        order = np.argsort(joined("order"), kind="stable")
        lines = bytes(joined("text")).decode().split("\n")
        out: Arrays = {
            "names": np.array(lines[0:-1:2], dtype=np.str_)[order],
            "groups": np.array(lines[1::2], dtype=np.str_)[order],
        }
        for name in self.columns:
            out[f"column_{name}"] = joined(f"column_{name}")[order]
        for readout in self.readouts:
            out[f"beyond_{readout}"] = getattr(self, f"beyond_{readout}").cpu().numpy()
        for subset in self.subsets:
            lengths = joined(f"lengths_{subset}")
            cells = np.argsort(np.repeat(np.argsort(order), lengths), kind="stable")
            out[f"lengths_{subset}"] = lengths[order]
            out[f"cells_{subset}"] = joined(f"cells_{subset}")[cells]
            out[f"coverage_{subset}"] = getattr(self, f"coverage_{subset}").cpu().numpy()
            for readout in self.readouts:
                key = f"{subset}_{readout}"
                out[f"sums_{key}"] = joined(f"sums_{key}")[cells]
                out[f"joint_{key}"] = getattr(self, f"joint_{key}").cpu().numpy()
        return out

    @property
    def names(self) -> list[str]:
        """What the samples are called, in their order."""
        return self.table()["names"].tolist()  # type: ignore[no-any-return]

    @property
    def groups(self) -> list[str]:
        """What the samples are resampled together by, "" where that is unknown."""
        return self.table()["groups"].tolist()  # type: ignore[no-any-return]

    @property
    def headline(self) -> str:
        """The subset of the top-level numbers."""
        return self.subsets[0]

    def column(self, name: str) -> npt.NDArray[np.float64]:
        """Return a further number of every sample, (samples,)."""
        return self.table()[f"column_{name}"]

    def sums(
        self, subset: str | None = None, readout: str | None = None
    ) -> npt.NDArray[np.float64]:
        """Return (samples, bins, terms) of a subset and read-out, by default the main ones."""
        subset = self.headline if subset is None else subset
        table, readout = self.table(), self.main if readout is None else readout
        lengths = table[f"lengths_{subset}"]
        out = np.zeros((len(lengths), len(self.bins), len(self.terms)))
        sample = np.repeat(np.arange(len(lengths)), lengths)
        out[sample, table[f"cells_{subset}"]] = table[f"sums_{subset}_{readout}"]
        return out

    def joint(self, subset: str | None = None, readout: str | None = None) -> npt.NDArray[np.int64]:
        """Return the joint histogram (bins, bins + 2) of truth and prediction; see `table`."""
        subset = self.headline if subset is None else subset
        return self.table()[f"joint_{subset}_{self.main if readout is None else readout}"]

    def coverage(self, subset: str | None = None) -> npt.NDArray[np.float64] | None:
        """Return (bins, 2): truths inside their interval, and all; None without intervals."""
        counts = self.table()[f"coverage_{self.headline if subset is None else subset}"]
        return counts if counts.any() else None

    def beyond(self, readout: str | None = None) -> npt.NDArray[np.int64] | None:
        """Return counts of labels beyond the last bin, see `table`; None where there are none."""
        counts = self.table().get(f"beyond_{self.main if readout is None else readout}")
        return counts if counts is not None and counts.any() else None

    def examples(self) -> list[Example]:
        """Return which images show what the main read-out does; see `choose_examples`."""
        return choose_examples(self.sums("all"), self.bins, self.terms)

    # ---- numbers ----

    def compute(self) -> dict[str, Any]:
        """Return the contents of metrics.json: plain dicts, lists, floats, ints and None.

        Top level: "overall", "many", "medium", "few" and "bins" of the main read-out, on the
        balanced mask where there is one, else on all pixels; see `summarise`. Beside a mask
        "all_pixels" has the same without it. With several read-outs "readout" has overall and the
        shots of each. "calibration" is None unless intervals were given. "beyond" is there where
        labels are only known to lie beyond the last bin: how many, the share of them "nearer" than
        its end, the share "nearer_than_half", and "bins", their number by the prediction's bin.

        Raises:
            DataError: no image, or no pixel that counts.
        """
        if len(self.order):  # type: ignore[arg-type]  # not so of a loaded result
            self._table = self._collect()  # of all processes: here the states are theirs too
        return self.result()

    def result(self) -> dict[str, Any]:
        """Return what `compute` returns, of a loaded result or after `compute`."""
        return result_of(self)

    # ---- files ----

    def save(self, folder: str | Path, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Write scores.npz and, from it, metrics.json; return what metrics.json holds.

        Args:
            folder: where; made if it is missing.
            more: entries that metrics.json gets besides.
        """
        about = {name: getattr(self, name) for name in _ABOUT}
        about |= {"subsets": self.subsets[:-1], "protocol": self.given}
        about["bins"] = {**self.bins.describe(), "unit_suffix": self.bins.unit_suffix}
        result = {**(self._computed or self.result()), **(more or {})}
        with replacing(Path(folder) / RESULT_FILE) as temporary:
            arrays: Any = {"about": np.array(json.dumps(about)), **self.table()}
            np.savez_compressed(temporary, **arrays)
        write_json(Path(folder) / "metrics.json", result)
        return result

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Return what `save` wrote into a folder, or into a file scores.npz.

        Raises:
            RunFolderError: there is none, or it is not ours.
        """
        file = Path(path) / RESULT_FILE if Path(path).is_dir() else Path(path)
        try:
            with np.load(file, allow_pickle=False) as stored:
                table = dict(stored.items())
            about = json.loads(str(table.pop("about")[()]))
            shown = about.pop("bins")
            shots = {place: name for name in SHOTS for place in shown["shots"][name]}
            edges = np.array(shown["edges"])
            scored = np.isin(np.arange(len(edges) - 1), shown["scored"])
            bins = LabelBins(
                edges,
                [shots.get(place) for place in range(len(scored))],
                scored=scored,
                shot_rule=shown["shot_rule"],
            )
            bins.rule, bins.unit_suffix = shown["rule"], shown["unit_suffix"]
            about["label"] = Label(*about["label"])
            scores = cls(bins, **about)
        except FileNotFoundError as error:
            raise RunFolderError(
                f"{Path(path)} has no {RESULT_FILE}: nothing was evaluated there"
            ) from error
        except (OSError, ValueError, KeyError, TypeError, *_DAMAGE) as error:
            raise RunFolderError(
                f"{file} is damaged or was not written by depthbal ({error}); evaluate again"
            ) from error
        scores._table, scores._batches = table, len(table["names"])
        return scores

"""Trained depth networks as files for other runtimes: ONNX and torch.export, read-out included."""

import json
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

import depthbal
from depthbal.errors import ConfigError, first_line
from depthbal.io import replacing
from depthbal.losses import BinsLoss
from depthbal.losses.bins import read_bins
from depthbal.predictor import Predictor

Format = Literal["onnx", "torch"]
Images = NDArray[np.uint8]
Size = tuple[int, int]

ENDINGS: dict[Format, str] = {"onnx": ".onnx", "torch": ".pt2"}
METADATA = "depthbal.json"  # the name of the extra file in a torch.export archive
TOLERANCE_M = 0.01  # of a file
TABLE_TOLERANCE = 1e-4  # label units, of a read-out
NODES = 2**17 + 1
SHIFT = 1e-4  # label ranges; networks are less exact than that
FAR = 1e4  # label ranges from the centre; a read-out of labels changes no more beyond


def export_predictor(
    predictor: Predictor, form: Format, path: Path, images: Images, protocol: Mapping[str, Any]
) -> tuple[float, float]:
    """Write a predictor, on the CPU, as one file; return its largest and mean error in metres.

    The file takes uint8 RGB `image` (batch, height, width, 3) of the images' size, on which it is
    compared with PyTorch before it is kept, and gives `depth` (batch, height, width), float32
    metres. Its metadata, `protocol` of the network's evaluation (JSON-able) among them, are entries
    of ONNX (JSON where they are no text), or depthbal.json in an archive of torch.export. A network
    of `BinsLoss` has a second input, `tau`, float32 (): the share of the balancing.
    """
    size, posthoc = (images.shape[1], images.shape[2]), predictor.posthoc
    batch = torch.cat([predictor.eval().normalise(image) for image in images])
    raw = predictor.predict_raw(batch, size)  # refuses what gives no maps
    expected = predictor.read_out(raw, (predictor.readout,))[predictor.readout].squeeze(1).detach()
    metadata = {
        "producer": f"depthbal {depthbal.__version__}",
        "input": "image: uint8 (batch, height, width, 3), RGB",
        "output": "depth: float32 (batch, height, width)",
        "unit": "m",
        "height": size[0],
        "width": size[1],
        "short_side": predictor.short_side,
        "mean": predictor.mean.flatten().tolist(),
        "std": predictor.std.flatten().tolist(),
        "readout": predictor.readout,
        "label_range": predictor.label_range and list(predictor.label_range),
        "posthoc_noise_sigma_m": posthoc and posthoc.noise_sigma,
        "balanced": posthoc and posthoc.describe(),
        "world": None,
        "protocol": dict(protocol),
    }
    loss, graph, tau = predictor.criterion, DepthGraph(predictor, size), None
    if isinstance(loss, BinsLoss):
        graph, tau = BinsGraph(predictor, loss, size), loss.tau
        about = "tau: float32 (), share of the balancing in [0, 1]"
        metadata["world"] = {"input": about, "tau": tau, "relative_to": loss.relative_to}
    with replacing(path) as temporary:
        _write(graph, form, temporary, metadata)
        return _apart(torch.from_numpy(open_graph(form, temporary)(images, tau)), expected)


def export_folder(predictor: Predictor, folder: Path, images: Images) -> tuple[float, float]:
    """Write network and image processor as a folder for transformers; return its errors likewise.

    What it gives is the raw prediction.
    """
    from depthbal.models import HFDepth

    network: Any = predictor.model.eval()
    if not isinstance(network, HFDepth):
        raise ConfigError(
            f"a folder for transformers is for networks that come from it (HFDepth), not for "
            f"{type(network).__name__}; use --format onnx or torch"
        )
    batch = torch.cat([predictor.normalise(image) for image in images])
    temporary = folder.with_name(f".{folder.name}.tmp")
    try:
        network.save_pretrained(temporary)
        again = HFDepth(str(temporary), network.saved_output)
        with torch.no_grad():
            apart = _apart(again.eval()(batch), network(batch))
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return apart


def _apart(found: Tensor, expected: Tensor) -> tuple[float, float]:
    """Return the largest and the mean difference in metres; a large one is a ConfigError."""
    apart = (found - expected).abs().double()
    if not apart.max() <= TOLERANCE_M:
        raise ConfigError(
            f"what was exported differs from PyTorch by up to {apart.max():.3g} m, more than "
            f"{TOLERANCE_M:g} m; nothing was written"
        )
    return float(apart.max()), float(apart.mean())


def open_graph(form: Format, path: Path) -> Callable[..., NDArray[np.float32]]:
    """Return a function that runs a written file on uint8 RGB images (B, height, width, 3).

    A network of `BinsLoss` takes tau as the second argument.
    """
    if form == "torch":
        with path.open("rb") as file:
            module = torch.export.load(file).module()
    else:
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    @torch.no_grad()
    def run(images: Images, tau: float | None = None) -> NDArray[np.float32]:
        inputs = {"image": images}
        if tau is not None:
            inputs["tau"] = np.array(tau, dtype=np.float32)
        if form == "onnx":
            return session.run(["depth"], inputs)[0]  # type: ignore[no-any-return]
        return module(*map(torch.from_numpy, inputs.values())).numpy()  # type: ignore[no-any-return]

    return run


def _write(graph: "DepthGraph", form: Format, path: Path, metadata: Mapping[str, Any]) -> None:
    """Write a graph for any number of images at a time."""
    # two images: a batch of one would be taken for a fixed size
    inputs: dict[str, Tensor] = {"image": torch.zeros(2, *graph.size, 3, dtype=torch.uint8)}
    shapes: dict[str, Any] = {"image": {0: torch.export.Dim.DYNAMIC}}
    if isinstance(graph, BinsGraph):
        inputs["tau"], shapes["tau"] = torch.tensor(1.0), None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporters, about their own workings
            given = tuple(inputs.values())
            program = torch.export.export(graph, given, dynamic_shapes=shapes, strict=False)
            if form == "torch":
                with path.open("wb") as file:  # a path would have to end in .pt2
                    extra = {METADATA: json.dumps(metadata, indent=2)}
                    torch.export.save(program, file, extra_files=extra)
                return
            written: Any = torch.onnx.export(
                program,
                input_names=list(inputs),
                output_names=["depth"],
                # the program calls it "s40" or the like
                dynamic_shapes={**shapes, "image": {0: "batch"}},
                opset_version=20,
                verbose=False,
            )
            texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in metadata.items()}
            written.model.metadata_props.update(texts)
            written.save(path, external_data=False)
    except Exception as error:  # the exporters raise what they like, with pages of advice
        deepest: BaseException = error
        while deepest.__cause__ is not None:
            deepest = deepest.__cause__
        way_out = "try --format torch" if form == "onnx" else "use the run in Python"
        raise ConfigError(
            f"{type(graph.network).__name__} cannot be exported as {form}: {first_line(deepest)}; "
            f"{way_out}"
        ) from error


class DepthGraph(nn.Module):
    """What is exported: normalisation, network, enlargement and read-out in plain operations."""

    mean: Tensor
    std: Tensor

    def __init__(self, predictor: Predictor, size: Size) -> None:
        super().__init__()
        self.network, self.size = predictor.model, size
        self.register_buffer("mean", predictor.mean.clone())
        self.register_buffer("std", predictor.std.clone())
        self.readout = _plain_readout(predictor)
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        """Return depth (B, height, width) in metres of uint8 RGB images (B, height, width, 3)."""
        return self.readout(self.enlarged(self.outputs(image))).squeeze(1)  # type: ignore[no-any-return]

    def outputs(self, image: Tensor) -> Tensor:
        """Return what the network gives of uint8 images."""
        pixels = image.permute(0, 3, 1, 2).float() / 255
        return self.network((pixels - self.mean) / self.std).float()  # type: ignore[no-any-return]

    def enlarged(self, raw: Tensor) -> Tensor:
        """Return maps at the images' size."""
        if tuple(raw.shape[-2:]) == self.size:
            return raw
        return F.interpolate(raw, size=self.size, mode="bilinear", align_corners=True)


class BinsGraph(DepthGraph):
    """The same of a network of `BinsLoss`, for the predictor's world at any tau."""

    centers: Tensor
    ratio: Tensor
    unseen: Tensor

    def __init__(self, predictor: Predictor, loss: BinsLoss, size: Size) -> None:
        super().__init__(predictor, size)
        ratio, seen = loss.log_ratio()
        self.register_buffer("centers", loss.centers.float())
        self.register_buffer("ratio", ratio.float())
        self.register_buffer("unseen", torch.where(seen, 0.0, -torch.inf))
        self.balanced = predictor.readout in ("mean", "median")
        self.quantiles = (0.5,) if predictor.readout == "median" else ()

    def forward(self, image: Tensor, tau: Tensor) -> Tensor:  # type: ignore[override]
        """Return depth (B, height, width) in metres, with this share of the balancing."""
        logits = self.outputs(image)
        offsets = self.ratio * tau + self.unseen if self.balanced else self.unseen
        columns = logits.permute(1, 0, 2, 3).flatten(1)
        maps = read_bins(columns, self.centers, offsets, self.quantiles)[-1]
        return self.enlarged(maps.view(-1, 1, *logits.shape[-2:])).squeeze(1)


@torch.no_grad()
def _plain_readout(predictor: Predictor) -> nn.Module:
    """Return the predictor's own read-out in operations that every runtime has."""

    def function(preds: Tensor) -> Tensor:
        return predictor.read_out(preds, (predictor.readout,))[predictor.readout]

    if isinstance(predictor.criterion, BinsLoss):
        return nn.Identity()  # see BinsGraph
    low, high = predictor.label_range or (0.0, 1.0)
    around = torch.linspace(2 * low - high, 2 * high - low, 301)
    found = function(around)
    if torch.equal(found, around):
        return nn.Identity()
    if predictor.label_range is None:
        raise ConfigError(
            f"the read-out {predictor.readout!r} needs a label range, and the run has none; "
            "export with --readout raw"
        )
    if torch.equal(found, around.clamp(low, high)):
        return nn.Hardtanh(low, high)
    return ReadoutTable(function, (low, high))


class ReadoutTable(nn.Module):
    """An increasing function f of one variable, interpolated linearly between nodes.

        u = asinh((p - c) / w),   f(p) ~ linear in u between f at equally spaced u

    The nodes are dense within the label range, of centre c and half width w, and thin out
    exponentially beyond it, where a read-out flattens. Midway between all of them the table must
    agree, to `TABLE_TOLERANCE`, with f within `SHIFT` of the range below and above: f is
    arbitrarily steep near the ends of the labels where a network is balanced afterwards.
    """

    values: Tensor

    def __init__(
        self, function: Callable[[Tensor], Tensor], label_range: tuple[float, float]
    ) -> None:
        super().__init__()
        low, high = label_range
        self.center, self.half_width = (low + high) / 2, (high - low) / 2
        self.reach = float(torch.asinh(torch.tensor(2 * FAR, dtype=torch.float64)))
        u = torch.linspace(-self.reach, self.reach, 2 * NODES - 1, dtype=torch.float64)
        places, shift = self.center + self.half_width * torch.sinh(u), SHIFT * (high - low)
        values, middle = function(places[::2]).double(), places[1::2]
        between = (values[1:] + values[:-1]) / 2
        above, below = between - function(middle + shift), function(middle - shift) - between
        error = torch.maximum(above, below).max()
        if not error <= TABLE_TOLERANCE or (values.diff() < -TABLE_TOLERANCE).any():
            raise ConfigError(
                f"the read-out cannot be put into a table: it differs by {error:.2g}, wanted "
                f"{TABLE_TOLERANCE:.2g}; export with --readout clamped or raw"
            )
        self.register_buffer("values", values.float())

    def forward(self, preds: Tensor) -> Tensor:
        """Return the read-out of predictions of any shape, float32."""
        last = self.values.shape[0] - 1
        u = torch.asinh((preds.float() - self.center) / self.half_width)
        place = ((u + self.reach) * (last / (2 * self.reach))).clamp(0.0, float(last))
        below = place.floor().clamp(max=float(last - 1))
        index = below.long()
        left, right = self.values[index], self.values[index + 1]
        return left + (place - below) * (right - left)

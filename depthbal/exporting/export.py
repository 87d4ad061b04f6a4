"""A run as a file for another runtime, compared with PyTorch before it is kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import depthbal
from depthbal.errors import ConfigError
from depthbal.exporting.formats import Format, open_graph, require_format, write_graph
from depthbal.exporting.graph import DepthGraph
from depthbal.io import replacing
from depthbal.predictor import Predictor

TOLERANCE_M = 0.01


@dataclass(frozen=True)
class Difference:
    """How far an exported file is from PyTorch, over all pixels compared.

    Args:
        largest: Metres.
        mean: Metres.
        images: How many were compared.
    """

    largest: float
    mean: float
    images: int


def export_predictor(
    predictor: Predictor,
    name: Format,
    path: Path,
    images: Sequence[NDArray[np.uint8]],
    protocol: dict[str, Any],
) -> Difference:
    """Write a predictor as one file and compare it with the predictor on images.

    The file takes uint8 RGB ``image`` (batch, height, width, 3) and gives ``depth`` (batch, height,
    width), float32 metres: normalisation and read-out are inside. Its metadata say unit, size,
    read-out and how the network was measured.

    Args:
        predictor: On the CPU.
        name: ``"onnx"`` or ``"torch"``.
        path: The file; replaced only by one that was compared.
        images: uint8 RGB (height, width, 3), one or more of one size, which becomes the file's.
        protocol: Of the network's evaluation, JSON-able; goes into the metadata.

    Returns:
        The difference of the file from PyTorch.

    Raises:
        ConfigError: The format's packages are missing, the network cannot be exported or gives no
            depth maps, the images differ in size, or the file differs from PyTorch by more than
            1 cm.
    """
    require_format(name)
    sizes = {image.shape[:2] for image in images}
    if len(sizes) != 1:
        raise ConfigError(f"expected one or more images of one size to compare, got {sizes}")
    height, width = sizes.pop()
    predictor.eval()
    expected = _expected(predictor, images)  # a network that gives no maps is refused here
    graph = DepthGraph(predictor, (height, width))
    metadata = describe(predictor, (height, width), protocol)
    with replacing(path) as temporary:
        write_graph(graph, name, temporary, metadata)
        difference = _compare(expected, open_graph(name, temporary)(np.stack(images)))
        if not difference.largest <= TOLERANCE_M:
            raise ConfigError(
                f"the exported {name} graph differs from PyTorch by up to {difference.largest:.3g} "
                f"m, more than {TOLERANCE_M:g} m; nothing was written"
            )
    return difference


def describe(
    predictor: Predictor, size: tuple[int, int], protocol: dict[str, Any]
) -> dict[str, Any]:
    """Return the metadata of an exported file, JSON-able."""
    label_range, posthoc = predictor.label_range, predictor.posthoc
    return {
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
        "label_range": None if label_range is None else list(label_range),
        "posthoc_noise_sigma_m": None if posthoc is None else posthoc.noise_sigma,
        "protocol": protocol,
    }


def _expected(predictor: Predictor, images: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
    """Return PyTorch's depth of images, (images, height, width) metres."""
    size = images[0].shape[0], images[0].shape[1]
    batch = torch.cat([predictor.normalise(image) for image in images])
    return predictor.predict_maps(batch, size, (predictor.readout,))[predictor.readout].squeeze(1)


def _compare(expected: torch.Tensor, found: NDArray[np.float32]) -> Difference:
    apart = (torch.from_numpy(found) - expected).abs().double()
    return Difference(float(apart.max()), float(apart.mean()), len(expected))

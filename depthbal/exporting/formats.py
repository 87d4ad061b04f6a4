"""Writing a graph to a file, and running what was written."""

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from depthbal.errors import ConfigError
from depthbal.exporting.graph import DepthGraph

Format = Literal["onnx", "torch"]
Run = Callable[[NDArray[np.uint8]], NDArray[np.float32]]

ENDINGS: dict[Format, str] = {"onnx": ".onnx", "torch": ".pt2"}
METADATA = "depthbal.json"  # the name of the extra file in a torch.export archive
OPSET = 20
_ONNX_NEEDS = ("onnx", "onnxscript", "onnxruntime")


def require_format(name: Format) -> None:
    """Check that what the format needs is installed.

    Raises:
        ConfigError: A package is missing.
    """
    missing = [package for package in _ONNX_NEEDS if find_spec(package) is None]
    if name == "onnx" and missing:
        raise ConfigError(
            f"--format onnx needs {', '.join(missing)}; install them with "
            'pip install "depthbal[export]", or use --format torch'
        )


def write_graph(graph: DepthGraph, name: Format, path: Path, metadata: Mapping[str, Any]) -> None:
    """Write a graph as one file, for any number of images at a time.

    Args:
        graph: What to write.
        name: ``"onnx"`` (opset 20), or ``"torch"``, an archive of ``torch.export``.
        path: The file.
        metadata: JSON-able; ONNX keeps each entry under its key as text, JSON where it is no text,
            the archive all of it in depthbal.json.

    Raises:
        ConfigError: The network holds something that cannot be exported.
    """
    # two images: a batch of one would be taken for a fixed size
    image = torch.zeros(2, *graph.size, 3, dtype=torch.uint8)
    shapes = {"image": {0: torch.export.Dim.DYNAMIC}}
    try:
        with _quiet():
            program = torch.export.export(graph, (image,), dynamic_shapes=shapes, strict=False)
            if name == "torch":
                extra = {METADATA: json.dumps(metadata, indent=2)}
                with path.open("wb") as file:  # a path would have to end in .pt2
                    torch.export.save(program, file, extra_files=extra)
            else:
                _write_onnx(program, path, metadata)
    except ConfigError:
        raise
    except Exception as error:  # the exporters raise what they like
        raise ConfigError(
            f"{type(graph.network).__name__} cannot be exported as {name}: {_first_line(error)}; "
            + ("try --format torch" if name == "onnx" else "use the run in Python")
        ) from error


def open_graph(name: Format, path: Path) -> Run:
    """Return a function that runs a written file on uint8 RGB images (B, height, width, 3)."""
    if name == "torch":
        with path.open("rb") as file:
            module = torch.export.load(file).module()

        def run_torch(images: NDArray[np.uint8]) -> NDArray[np.float32]:
            with torch.no_grad():
                found: NDArray[np.float32] = module(torch.from_numpy(images)).numpy()
            return found

        return run_torch
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run_onnx(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = session.run(["depth"], {"image": images})[0]
        return found

    return run_onnx


def _write_onnx(
    program: torch.export.ExportedProgram, path: Path, metadata: Mapping[str, Any]
) -> None:
    written = torch.onnx.export(
        program,
        input_names=["image"],
        output_names=["depth"],
        dynamic_shapes={"image": {0: "batch"}},  # the program's own name of it is "s40" or the like
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    assert written is not None
    for key, value in metadata.items():
        text = value if isinstance(value, str) else json.dumps(value)
        written.model.metadata_props[key] = text
    written.save(path, external_data=False)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' remarks about their own workings from the terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _first_line(error: Exception) -> str:
    """Return what an exporter complains about, without its pages of advice."""
    deepest: BaseException = error
    while deepest.__cause__ is not None:
        deepest = deepest.__cause__
    lines = [line.strip() for line in str(deepest).splitlines() if line.strip()]
    return lines[0] if lines else type(deepest).__name__

#!/usr/bin/env python
"""Measure feature distribution smoothing: ``python tools/bench_fds.py --out results``.

Calibration (forward and backward) and statistics of a batch of dense features, against the loops
that the tests compare with: over labels and bins for statistics, over bins for calibration, as in
the published code.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from measuring import machine, peak_mib, result_paths, seconds, write_results

from depthbal.commands import run
from depthbal.losses.label_weights import smoothing_kernel
from depthbal.training.fds import (
    Calibration,
    add_features,
    calibration_tables,
    feature_bins,
    update_running,
)
from tests import reference

CHANNELS, SIZE = 128, (114, 152)  # of the published network before its last convolution
EDGES = [0.7 + 0.1 * i for i in range(94)]
KERNEL, CLIP = smoothing_kernel("gaussian", 5, 2.0), (0.2, 5.0)
SUBSET = 600  # images of the published pass after every epoch


def batch(images: int, size: tuple[int, int], device: str) -> tuple[Tensor, Tensor]:
    """Return features (B, 128, h, w) and depth (B, 1, h, w) in metres, skewed as rooms are."""
    generator = torch.Generator().manual_seed(0)
    depth = (torch.randn(images, 1, *size, generator=generator) * 0.5 + 0.95).exp()
    features = torch.rand(images, CHANNELS, *size, generator=generator) + 0.1 * depth
    features = features.contiguous(memory_format=torch.channels_last)
    return features.to(device), depth.clamp(0.7, 10.0).to(device)


def ours(features: Tensor, depth: Tensor) -> dict[str, Callable[[], object]]:
    """Return the two pieces of work as depthbal does them."""
    edges = torch.tensor(EDGES, dtype=torch.float64, device=features.device)
    size = tuple(features.shape[2:])
    zeros = torch.zeros(len(EDGES) - 1, CHANNELS, dtype=torch.float64, device=features.device)
    running = {"passes": torch.zeros(len(zeros), dtype=torch.int64, device=features.device)}
    running |= {"mean": zeros, "variance": zeros}

    def statistics() -> None:
        sums = zeros.new_zeros(3, len(EDGES), CHANNELS)
        add_features(sums, features, feature_bins(depth, None, edges, size))
        update_running(running, sums, 0.9)

    statistics()
    tables = calibration_tables(running, KERNEL, CLIP)
    leaf = features.clone().requires_grad_()

    def calibration() -> None:
        leaf.grad = None
        out = Calibration.apply(leaf, feature_bins(depth, None, edges, size), *tables)
        torch.autograd.backward(out, features)

    return {"statistics": statistics, "calibration": calibration}


def loops(features: Tensor, depth: Tensor) -> dict[str, Callable[[], object]]:
    """Return the same work by loops."""
    rows = features.movedim(1, -1).reshape(-1, CHANNELS)

    def moments() -> Any:
        return reference.fds_moments(rows, reference.fds_bins(depth, EDGES).flatten(), 93)

    running = reference.fds_running([moments()], 0.9)
    bins = reference.fds_bins(depth, EDGES).flatten()
    leaf = rows.clone().requires_grad_()

    def calibration() -> None:
        leaf.grad = None
        out = reference.fds_calibrate(leaf, bins, running, KERNEL.tolist(), CLIP)
        torch.autograd.backward(out, rows)

    return {"statistics": moments, "calibration": calibration}


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure both pieces both ways; the loops on one image, for they take a minute on a batch."""
    size = (24, 32) if options.quick else SIZE
    features, depth = batch(options.images, size, options.device)
    fast = ours(features, depth)
    slow = loops(features[:1].cpu(), depth[:1].cpu())
    rows = []
    for name in fast:
        own = seconds(fast[name], options.repeats, options.device)[0] / options.images
        loop = seconds(slow[name], 3, "cpu")[0]
        row = {"work": name, "ms_per_image": 1000 * own, "loop_ms_per_image": 1000 * loop}
        row |= {"times_as_fast": loop / own, "peak_mib": peak_mib(fast[name], options.device)}
        rows.append(row)
        print(f"{name}: {1000 * own:.2f} ms per image, loop {1000 * loop:.0f} ms", flush=True)
    return rows


def markdown(result: dict[str, Any]) -> str:
    """Return the results as one page."""
    where = ", ".join(f"{key} {value}" for key, value in result["machine"].items())
    rows = result["rows"]
    page = ["# Feature distribution smoothing of dense features", "", where, ""]
    page += [f"Batch {result['features']}, 93 bins of 0.1 m.", ""]
    page += ["| work | ms per image | loop, ms per image | times as fast | peak MiB |"]
    page += ["|---|--:|--:|--:|--:|"]
    for row in rows:
        cells = [row["work"], f"{row['ms_per_image']:.2f}", f"{row['loop_ms_per_image']:,.0f}"]
        cells += [f"{row['times_as_fast']:,.0f}", f"{row['peak_mib']:.0f}"]
        page.append(f"| {' | '.join(cells)} |")
    epoch = SUBSET * rows[0]["ms_per_image"] / 1000
    loop = SUBSET * rows[0]["loop_ms_per_image"] / 1000
    page += ["", f"Statistics of the {SUBSET} images of an epoch, without the network: "]
    page[-1] += f"{epoch:.1f} s, by loops {loop:.0f} s."
    return "\n".join(page) + "\n"


def main(arguments: Sequence[str]) -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=main.__doc__, allow_abbrev=False)
    here = Path(__file__).resolve().parent
    parser.add_argument("--out", type=Path, default=here / "results", help="folder of the tables")
    parser.add_argument("--overwrite", action="store_true", help="replace tables of this name")
    parser.add_argument("--images", type=int, default=32, help="of the batch")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--quick", action="store_true", help="small maps, to try the tool")
    options = parser.parse_args(arguments)
    paths = result_paths(options.out, f"fds_{options.device}", options.overwrite)
    rows = measure(options)
    size = (24, 32) if options.quick else SIZE
    shape = f"{options.images} x {CHANNELS} x {size[0]} x {size[1]}"
    result = {"machine": machine(), "features": shape, "rows": rows}
    write_results(paths, markdown(result), result)


if __name__ == "__main__":
    raise SystemExit(run(main))

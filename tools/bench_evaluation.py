"""Measure the per-bin evaluation: images per second, and how much faster than plain loops.

python tools/bench_evaluation.py --images 16 --threads 1
"""

import argparse
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torchmetrics
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the slow twin lives in tests/

from depthbal.evaluation import DepthBins, Scores, balanced_mask
from tests.reference import plain_evaluation

READOUTS = ("raw", "clamped", "mean")


def best_seconds(function: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Return the shortest wall and CPU time of several runs, after one that is not counted."""
    function()
    wall, cpu = [], []
    for _ in range(repeats):
        start, busy = time.perf_counter(), time.process_time()
        function()
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - busy)
    return min(wall), min(cpu)


def indoor_maps(images: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return predictions and truths of 228 x 304 with depths as skewed as NYU's, 5 % missing."""
    generator = torch.Generator().manual_seed(seed)
    size = (images, 1, 228, 304)
    target = (torch.randn(size, generator=generator) * 0.5 + 0.95).exp().clamp(0.71, 10)
    preds = target * (1 + 0.2 * torch.randn(size, generator=generator))
    target[torch.rand(size, generator=generator) < 0.05] = 0
    return preds, target


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    bins = DepthBins.nyud2()
    preds, target = indoor_maps(args.images)
    mask = target >= 0.7
    drawn = balanced_mask(list(target), bins)
    balanced = torch.from_numpy(np.stack(list(drawn.mask)))[:, None]
    maps = {"raw": preds, "clamped": preds.clamp(0.7, 10), "mean": preds * 0.99}

    def slow() -> object:
        arrays = (preds[:1].numpy(), target[:1].numpy(), mask[:1].numpy())
        return plain_evaluation(*arrays, list(bins.shots))

    def metric() -> object:
        scored = Scores(bins, ("raw",), "raw")
        scored.update({"raw": preds}, target, mask)
        return scored.compute()

    interval = (maps["mean"] - 1, maps["mean"] + 1)

    def evaluation() -> None:
        scored = Scores(bins, READOUTS, subsets=("mask",))
        scored.update(maps, target, mask, interval=interval, subsets={"mask": balanced})

    loops = best_seconds(slow, 2)
    print(f"{platform.processor() or platform.machine()}, {args.threads} thread(s), ", end="")
    print(f"Python {platform.python_version()}, torch {torch.__version__}, ", end="")
    print(f"torchmetrics {torchmetrics.__version__}; 228 x 304, best of {args.repeats}")
    columns = ("images/s", "per CPU second", "times plain loops")
    print(f"{'':44}{columns[0]:>10}{columns[1]:>16}{columns[2]:>19}")
    print(f"{'plain loops, one read-out':44}{1 / loops[0]:>10.2f}{1 / loops[1]:>16.2f}{1:>19}")
    for name, function, readouts in (
        ("Scores, one read-out, with its numbers", metric, 1),
        ("Scores, 3 read-outs, mask and all pixels", evaluation, len(READOUTS)),
    ):
        wall, cpu = (seconds / args.images for seconds in best_seconds(function, args.repeats))
        # plain loops score one read-out at a time
        ratio = readouts * loops[1] / cpu
        print(f"{name:44}{1 / wall:>10.1f}{1 / cpu:>16.1f}{ratio:>19.0f}")
    maps_654 = [depth for _ in range(41) for depth in target[:16]][:654]
    seconds = best_seconds(lambda: balanced_mask(maps_654, bins), 1)[1]
    print(f"balanced mask of {len(maps_654)} maps: {seconds:.1f} s of CPU time")


if __name__ == "__main__":
    main()

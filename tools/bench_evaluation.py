"""Measure the per-bin evaluation: images per second, and how much faster than plain loops.

python tools/bench_evaluation.py --images 16 --threads 1
"""

import argparse
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torchmetrics
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the slow twin lives in tests/

from depthbal.data import DepthDataModule, PairSource, PredictionFolder
from depthbal.evaluation import DepthBins, Scores, balanced_mask
from depthbal.foreign import evaluate
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


def indoor_maps(
    images: int, seed: int = 0, size: tuple[int, int] = (228, 304)
) -> tuple[Tensor, Tensor]:
    """Return predictions and truths with depths as skewed as NYU's, 5 % missing."""
    generator = torch.Generator().manual_seed(seed)
    shape = (images, 1, *size)
    target = (torch.randn(shape, generator=generator) * 0.5 + 0.95).exp().clamp(0.71, 10)
    preds = target * (1 + 0.2 * torch.randn(shape, generator=generator))
    target[torch.rand(shape, generator=generator) < 0.05] = 0
    return preds, target


class Truths(PairSource):
    """Maps of 480 x 640 in memory."""

    def __init__(self, target: Tensor) -> None:
        self.depths = target.numpy()[:, 0]

    def __len__(self) -> int:
        return len(self.depths)

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return a black picture and a map."""
        depth = self.depths[index]
        return np.zeros((*depth.shape, 3), np.uint8), depth

    def name(self, index: int) -> str:
        """Return a path."""
        return f"rgb/{index:04d}.png"

    def fingerprint(self) -> str:
        """Return what the maps depend on."""
        return f"bench {len(self)} {self.depths.sum()}"


class WholeMaps(DepthDataModule):
    """Truths as a data module without resizing or cropping, in NYUD2-DIR's bins."""

    benchmark = "nyud2_dir"

    def __init__(self, target: Tensor) -> None:
        super().__init__(
            short_side=None, crop_size=None, depth_size=None, num_workers=0, val_fraction=0
        )
        self.truths = Truths(target)

    def train_source(self) -> PairSource:
        """Return the maps."""
        return self.truths

    test_source = train_source


def plain_numpy(preds: np.ndarray, target: np.ndarray, edges: np.ndarray) -> dict[str, np.ndarray]:
    """Return the metrics of every bin of one image as a script in NumPy would."""
    inside = (target > 1e-3) & (target < 10)
    p, y = preds[inside].astype(np.float64), target[inside].astype(np.float64)
    place = np.minimum(np.digitize(y, edges) - 1, len(edges) - 2)
    ratio, error, log = np.maximum(p / y, y / p), p - y, np.log(p) - np.log(y)
    terms = {"mse": error**2, "mae": abs(error), "abs_rel": abs(error) / y, "bias": error}
    terms |= {"log10": abs(log), "log": log, "log2": log**2}
    terms |= {f"delta{k}": (ratio < 1.25**k).astype(float) for k in (1, 2, 3)}
    count = np.bincount(place, minlength=len(edges) - 1)
    sums = {k: np.bincount(place, v, minlength=len(count)) for k, v in terms.items()}
    return {k: v / np.maximum(count, 1) for k, v in sums.items()}


def bench_predictions(images: int, repeats: int) -> None:
    """Print what scoring anybody's files costs beyond reading them, at 480 x 640."""
    preds, target = indoor_maps(images, size=(480, 640))
    edges = np.arange(101) / 10
    print(f"\nfiles of anybody's predictions, 480 x 640, {images} images, best of {repeats}")
    print(f"{'':44}{'ms an image':>12}{'times plain NumPy':>19}")
    with tempfile.TemporaryDirectory() as folder:
        for index, one in enumerate(preds):
            np.save(Path(folder) / f"{index:04d}.npy", one[0].numpy())
        data = WholeMaps(target)
        data.setup()
        files = PredictionFolder(folder, [data.truths.name(i) for i in range(images)])
        reading = best_seconds(lambda: [files(i) for i in range(images)], repeats)[1]
        plain = best_seconds(
            lambda: [plain_numpy(preds[i, 0].numpy(), data.truths.depths[i], edges)
                     for i in range(images)], repeats
        )[1]  # fmt: skip
        print(f"{'plain NumPy, one read-out, whole image':44}{1e3 * plain / images:>12.1f}{1:>19}")
        for protocol in ("eigen", "nyud2_dir"):
            for alignments in (("none",), ("none", "median", "inverse")):
                score = partial(evaluate, files, data, protocol=protocol, alignments=alignments)
                cpu = best_seconds(score, repeats)[1]
                own = (cpu - reading) / images
                name = f"depthbal.evaluate, {protocol}, {len(alignments)} read-outs"
                print(f"{name:44}{1e3 * own:>12.1f}{own * images / plain:>19.2f}")


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
    balanced = torch.from_numpy(np.stack([drawn.mask[i] for i in range(args.images)]))[:, None]
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
    bench_predictions(args.images, min(args.repeats, 3))


if __name__ == "__main__":
    main()

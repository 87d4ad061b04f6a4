"""Measure how many training samples are decoded and augmented per second, from files and packed.

python tools/bench_loader.py --images 64 --rounds 5
python tools/bench_loader.py --root /data/nyud2 --images 200
python tools/bench_loader.py --kitti     # a street's size against OpenCV's decoding alone
"""

import argparse
import os
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import albumentations
import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from depthbal.data import FolderDataModule, NYUD2DataModule
from depthbal.data.packing import pack
from depthbal.data.rooms import room

SIZE = (480, 640)  # of the benchmark's files
STREET = (375, 1242)  # of KITTI's files
RAYS = 0.05  # of a street's pixels that a lidar hits
TARGET = 550 / 16  # samples per second and core that keep up with the training step on one GPU


def write_rooms(root: Path, count: int) -> None:
    """Write embedded rooms in the benchmark's layout: JPEG and 8-bit PNG of 640 x 480."""
    folder = root / "data"
    for split, suffixes in (("train", (".jpg", ".png")), ("test", ("_colors.png", "_depth.png"))):
        rows = []
        for index in range(count if split == "train" else 1):
            image, depth = room(0, "train", index, SIZE)
            stem = f"nyu2_{split}/scene{index // 8:03d}_out/{index}"
            (folder / stem).parent.mkdir(parents=True, exist_ok=True)
            levels = depth * 25.5 if split == "train" else depth * 1000
            names = [f"{stem}{suffix}" for suffix in suffixes]
            write(folder / names[0], image[..., ::-1])
            dtype = np.uint8 if split == "train" else np.uint16
            write(folder / names[1], np.rint(levels).clip(0, 65535).astype(dtype))
            rows.append(",".join(f"data/{name}" for name in names))
        (folder / f"nyu2_{split}.csv").write_text("\n".join(rows) + "\n")


def write(path: Path, array: NDArray[np.generic]) -> None:
    """Write an image file."""
    if not cv2.imwrite(str(path), array):
        raise OSError(f"{path} cannot be written")


def rates(function: Callable[[int], object], images: int, rounds: int) -> tuple[float, float]:
    """Return calls per second of wall and of CPU time: the median round, after a warm-up."""
    for index in range(images):
        function(index)
    wall, busy = [], []
    for _ in range(rounds):
        start, cpu = perf_counter(), process_time()
        for index in range(images):
            function(index)
        wall.append(images / (perf_counter() - start))
        busy.append(images / (process_time() - cpu))
    return median(wall), median(busy)


def loader_rate(module: NYUD2DataModule) -> float:
    """Return samples per second of wall time of the second epoch, when all processes run."""
    loader = module.train_dataloader()
    for _ in range(2):
        start, count = perf_counter(), 0
        for batch in loader:
            count += len(batch["index"])
        seconds = perf_counter() - start
    return count / seconds


def measure(name: str, root: Path, arguments: argparse.Namespace) -> float:
    """Print one block of the table; return the samples per CPU second."""
    module = NYUD2DataModule(
        root, num_workers=arguments.workers, val_fraction=0.0, batch_size=arguments.batch_size
    )
    module.setup("fit")
    data = module.train_set
    assert data is not None
    images = min(arguments.images, len(data))
    pairs = [data.source.load(index) for index in range(images)]
    parts: dict[str, Callable[[int], object]] = {
        "read and decode": data.source.load,
        "augment": lambda index: data.transform(*pairs[index], index),
        "sample": lambda index: data[1, index],
    }
    measured = {part: rates(run, images, arguments.rounds) for part, run in parts.items()}
    for part, (wall, cpu) in measured.items():
        print(f"{name:8}{part:34}{wall:>12.0f}{cpu:>16.0f}")
    if arguments.workers:
        title = f"loader, {arguments.workers} processes"
        print(f"{name:8}{title:34}{loader_rate(module):>12.0f}{'':>16}")
    return measured["sample"][1]


def write_streets(root: Path, count: int) -> None:
    """Write rooms as wide as streets in KITTI's layout: noisy pictures, and depth of few rays."""
    drive, rng = "2011_09_26_drive_0001_sync", np.random.default_rng(0)
    for index in range(count):
        image, depth = room(0, "train", index, STREET)
        noisy = image[..., ::-1] + rng.normal(0, 2, image.shape)  # as large as a camera's files
        names = f"raw/{drive}/image_02/data", f"train/{drive}/proj_depth/groundtruth/image_02"
        rays = rng.random(depth.shape) < RAYS
        for name in names:
            (root / name).mkdir(parents=True, exist_ok=True)
        write(root / names[0] / f"{index:010d}.png", noisy.clip(0, 255).astype(np.uint8))
        stored = np.rint(depth * rays * 256).astype(np.uint16)
        write(root / names[1] / f"{index:010d}.png", stored)


def measure_street(root: Path, rounds: int) -> None:
    """Print CPU milliseconds per pair, the best of all rounds, against OpenCV's decoding."""
    module = FolderDataModule(root, layout="kitti", num_workers=0, val_fraction=0.0)
    module.setup("fit")
    source = module.files("train")

    def decode(index: int) -> None:
        for name in source.pairs[index]:
            cv2.imread(str(source.root / name), cv2.IMREAD_UNCHANGED)

    parts: dict[str, Callable[[int], object]] = {
        "OpenCV decodes both files": decode,
        "sample of evaluation": module.plain(source, "test").__getitem__,
        "sample of training, augmented": lambda index: module.train_set[1, index],
    }
    best = dict.fromkeys(parts, float("inf"))
    for _ in range(rounds):  # by turns, so that they share what else the machine does
        for index in range(len(source)):
            for part, run in parts.items():
                start = process_time()
                run(index)
                best[part] = min(best[part], 1000 * (process_time() - start))
    for part, wall in best.items():
        print(f"{part:34}{wall:>8.1f} ms{wall / best['OpenCV decodes both files']:>8.2f} times")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else None)
    parser.add_argument("--root", type=Path, help="NYUD2-DIR folder; default: rendered rooms")
    parser.add_argument("--images", type=int, default=64, help="pictures per round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=0, help="processes of the loader row")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--kitti", action="store_true", help="1242 x 375 pixels, and nothing else")
    arguments = parser.parse_args()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    print(
        f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, NumPy "
        f"{np.__version__}, OpenCV {cv2.__version__}, albumentations {albumentations.__version__}"
    )
    print(f"load average at the start: {os.getloadavg()[0]:.1f}")
    if arguments.kitti:
        with tempfile.TemporaryDirectory() as folder:
            write_streets(Path(folder), min(arguments.images, 8))
            measure_street(Path(folder), 4 * arguments.rounds)
        return
    print(f"{'source':8}{'304 x 228, images per second of':34}{'wall time':>12}{'one CPU':>16}")
    with tempfile.TemporaryDirectory() as folder:
        root = arguments.root or Path(folder) / "files"
        if arguments.root is None:
            write_rooms(root, arguments.images)
        file = Path(folder) / "packed.h5"
        pack(root, file)
        rates_by_source = [measure("files", root, arguments), measure("packed", file, arguments)]
    for name, rate in zip(("files", "packed"), rates_by_source, strict=True):
        print(
            f"{name}: {rate:.0f} images/s/core, {rate / TARGET:.1f} times the {TARGET:.0f} that "
            "550 images/s on 16 cores need"
        )


if __name__ == "__main__":
    main()

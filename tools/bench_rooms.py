"""Measure how many embedded rooms are rendered per second in one process.

python tools/bench_rooms.py --images 200 --rounds 5
"""

import argparse
import os
import platform
from time import perf_counter, process_time

import numpy as np

from depthbal.data.rooms import room


def main() -> None:
    """Print images per second: the best and the median round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=200, help="pictures per round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, nargs=2, default=(120, 160), help="height width")
    options = parser.parse_args()
    height, width = options.size
    room(0, "train", 0, (height, width))  # imports and first-use costs are not the renderer's
    print(f"{width} x {height} pixels, one process, {options.rounds} x {options.images} images")
    for name, clock in (("wall", perf_counter), ("CPU", process_time)):
        speeds = []
        for _ in range(options.rounds):
            start = clock()
            for index in range(options.images):
                room(0, "train", index, (height, width))
            speeds.append(options.images / (clock() - start))
        print(f"per second of {name} time: best {max(speeds):.0f}, median {np.median(speeds):.0f}")
    machine = f"{platform.machine()}, {os.cpu_count()} CPUs, {platform.system()}"
    print(f"{machine}, Python {platform.python_version()}, NumPy {np.__version__}")


if __name__ == "__main__":
    main()

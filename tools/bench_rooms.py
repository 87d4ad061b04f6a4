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
    arguments = parser.parse_args()
    height, width = arguments.size
    room(0, "train", 0, (height, width))  # imports and first-use costs are not the renderer's
    wall, cpu = [], []
    for _ in range(arguments.rounds):
        start, busy = perf_counter(), process_time()
        for index in range(arguments.images):
            room(0, "train", index, (height, width))
        wall.append(arguments.images / (perf_counter() - start))
        cpu.append(arguments.images / (process_time() - busy))
    print(f"{width} x {height} pixels, one process, {arguments.rounds} x {arguments.images} images")
    print(f"per second of wall time: best {max(wall):.0f}, median {np.median(wall):.0f}")
    print(f"per second of CPU time:  best {max(cpu):.0f}, median {np.median(cpu):.0f}")
    print(
        f"{platform.machine()}, {os.cpu_count()} CPUs, {platform.system()}, "
        f"Python {platform.python_version()}, NumPy {np.__version__}"
    )


if __name__ == "__main__":
    main()

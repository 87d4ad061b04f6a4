"""Draw a sheet of embedded rooms, each above its depth.

python tools/show_rooms.py --out rooms.png --rows 3 --columns 6
"""

import argparse

import cv2
import matplotlib.pyplot as plt
import numpy as np

from depthbal.data.rooms import room
from depthbal.data.rooms.datamodule import SPLITS


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="rooms.png", help="picture to write")
    parser.add_argument("--rows", type=int, default=3)
    parser.add_argument("--columns", type=int, default=6)
    parser.add_argument("--size", type=int, nargs=2, default=(120, 160), help="height width")
    parser.add_argument("--picture-seed", type=int, default=0)
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.add_argument("--first", type=int, default=0, help="number of the first picture")
    options = parser.parse_args()
    size, per_row = tuple(options.size), options.columns
    sheet = []
    for first in range(options.first, options.first + options.rows * per_row, per_row):
        numbers = range(first, first + per_row)
        pairs = [room(options.picture_seed, options.split, number, size) for number in numbers]
        sheet.append(np.concatenate([image for image, _ in pairs], axis=1))
        depth = np.concatenate([depth for _, depth in pairs], axis=1)
        share = np.log(np.maximum(depth, 0.7) / 0.7) / np.log(10.0 / 0.7)
        sheet.append(plt.get_cmap("turbo")(share, bytes=True)[..., :3] * (depth > 0)[..., None])
    picture = np.ascontiguousarray(np.concatenate(sheet)[..., ::-1])
    if not cv2.imwrite(options.out, picture, [cv2.IMWRITE_PNG_COMPRESSION, 9]):
        raise SystemExit(f"cannot write {options.out}; is its folder there?")
    print(f"{options.out}: blue is 0.7 m, red is 10 m (logarithmic), black has no depth")


if __name__ == "__main__":
    main()

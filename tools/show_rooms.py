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
    arguments = parser.parse_args()
    size = (arguments.size[0], arguments.size[1])
    sheet = []
    for row in range(arguments.rows):
        numbers = range(row * arguments.columns, (row + 1) * arguments.columns)
        pairs = [
            room(arguments.picture_seed, arguments.split, arguments.first + n, size)
            for n in numbers
        ]
        sheet.append(np.concatenate([image for image, _ in pairs], axis=1))
        sheet.append(np.concatenate([coloured(depth) for _, depth in pairs], axis=1))
    picture = np.ascontiguousarray(np.concatenate(sheet)[..., ::-1])
    if not cv2.imwrite(arguments.out, picture, [cv2.IMWRITE_PNG_COMPRESSION, 9]):
        raise SystemExit(f"cannot write {arguments.out}; is its folder there?")
    print(f"{arguments.out}: blue is 0.7 m, red is 10 m (logarithmic), black has no depth")


def coloured(depth: "np.typing.NDArray[np.float32]") -> "np.typing.NDArray[np.uint8]":
    """Return depth (H, W) in metres as colours (H, W, 3) on a logarithmic scale."""
    share = np.log(np.maximum(depth, 0.7) / 0.7) / np.log(10.0 / 0.7)
    colours = plt.get_cmap("turbo")(share, bytes=True)[..., :3] * (depth > 0)[..., None]
    return np.asarray(colours, np.uint8)


if __name__ == "__main__":
    main()

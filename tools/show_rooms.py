"""Draw a sheet of embedded rooms, each above its depth.

python tools/show_rooms.py --out rooms.png --rows 3 --columns 6
"""

import argparse

import matplotlib.pyplot as plt
import numpy as np

from depthbal.data.rooms import room


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="rooms.png", help="picture to write")
    parser.add_argument("--rows", type=int, default=3)
    parser.add_argument("--columns", type=int, default=6)
    parser.add_argument("--size", type=int, nargs=2, default=(120, 160), help="height width")
    parser.add_argument("--picture-seed", type=int, default=0)
    parser.add_argument("--split", choices=("train", "val", "test"), default="train")
    parser.add_argument("--first", type=int, default=0, help="number of the first picture")
    given = parser.parse_args()
    sheet = []
    for row in range(given.first, given.first + given.rows * given.columns, given.columns):
        numbers = range(row, row + given.columns)
        size = (given.size[0], given.size[1])
        pairs = [room(given.picture_seed, given.split, number, size) for number in numbers]
        sheet.append(np.concatenate([image for image, _ in pairs], axis=1))
        depth = np.concatenate([depth for _, depth in pairs], axis=1)
        share = np.log(np.maximum(depth, 0.7) / 0.7) / np.log(10.0 / 0.7)
        sheet.append(plt.get_cmap("turbo")(share, bytes=True)[..., :3] * (depth > 0)[..., None])
    plt.imsave(given.out, np.concatenate(sheet).astype(np.uint8))
    print(f"{given.out}: blue is 0.7 m, red is 10 m (logarithmic), black has no depth")


if __name__ == "__main__":
    main()

"""Draw a sheet of embedded rooms or streets, each above its depth and what runs predict.

python tools/show_rooms.py --out rooms.png --rows 3 --columns 6
python tools/show_rooms.py --world streets --out outdoor.png --rows 2 --columns 4 --size 64 128
python tools/show_rooms.py --world streets --split test --runs runs/gai-0 runs/gai_censored-0
"""

import argparse

import cv2
import matplotlib.pyplot as plt
import numpy as np

from depthbal import load_predictor
from depthbal.data.label_data import SPLITS
from depthbal.data.rooms.generate import Stage
from depthbal.data.streets import DEPTH_RANGE, Street

WORLDS = {"rooms": (Stage, 0.7, 10.0), "streets": (Street, *DEPTH_RANGE)}


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", choices=WORLDS, default="rooms")
    parser.add_argument("--out", default="rooms.png", help="picture to write")
    parser.add_argument("--rows", type=int, default=3)
    parser.add_argument("--columns", type=int, default=6)
    parser.add_argument("--size", type=int, nargs=2, default=(120, 160), help="height width")
    parser.add_argument("--picture-seed", type=int, default=0)
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.add_argument("--first", type=int, default=0, help="number of the first picture")
    parser.add_argument("--runs", nargs="*", default=[], help="their predictions below the depth")
    options = parser.parse_args()
    predictors = [load_predictor(run) for run in options.runs]
    size, per_row = tuple(options.size), options.columns
    world, low, high = WORLDS[options.world]
    sheet = []
    for first in range(options.first, options.first + options.rows * per_row, per_row):
        numbers = range(first, first + per_row)
        pairs = [world.picture(options.picture_seed, options.split, n, size) for n in numbers]
        sheet.append(np.concatenate([image for image, _ in pairs], axis=1))
        maps = [[depth for _, depth in pairs]]
        maps += [[predictor.predict(image) for image, _ in pairs] for predictor in predictors]
        for depth in (np.concatenate(row, axis=1) for row in maps):
            share = np.log(np.maximum(depth, low) / low) / np.log(high / low)
            colours = plt.get_cmap("turbo")(share, bytes=True)[..., :3] * (depth > 0)[..., None]
            colours[np.isinf(depth)] = 255
            sheet.append(colours)
    picture = np.ascontiguousarray(np.concatenate(sheet)[..., ::-1])
    if not cv2.imwrite(options.out, picture, [cv2.IMWRITE_PNG_COMPRESSION, 9]):
        raise SystemExit(f"cannot write {options.out}; is its folder there?")
    print(
        f"{options.out}: blue is {low:g} m, red is {high:g} m (logarithmic), black has no depth, "
        "white lies beyond the range"
    )


if __name__ == "__main__":
    main()

"""``depthbal prepare``: a data set packed into one file."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from depthbal.commands import make_parser


def main(arguments: Sequence[str]) -> None:
    """Pack, and say what was written."""
    parser = make_parser(
        "prepare",
        "Pack images and depth into one HDF5 file that data modules read as their root. SRC is "
        "the folder of NYUD2-DIR (with data/nyu2_train.csv and nyu2_test.csv), the original "
        "nyu_depth_v2_labeled.mat, or a folder of your own (rgb/ and depth/, or train/ and test/ "
        "with both). Depth of 8 and 16 bit is kept as it is; floating-point depth is rounded to "
        "steps of --step.",
        "DIR --out nyud2.h5",
        argument_default=argparse.SUPPRESS,
    )
    add = parser.add_argument
    add("source", type=Path, metavar="SRC")
    add("--out", type=Path, required=True, metavar="FILE.h5")
    short_side = "pixels of the shorter side (240; 0: as stored)"
    add("--short-side", type=int, default=240, metavar="N", help=short_side)
    add("--overwrite", action="store_true", default=False, help="replace the file at --out")
    add("--lowest", type=float, help="lowest label kept, of --zero-is-label (0)")
    add("--step", type=float, help="metres per level for floating-point depth (0.001)")
    add = parser.add_argument_group("NYUD2-DIR").add_argument
    add("--train-csv", help="default: nyu2_train.csv")
    add("--test-csv", help="default: nyu2_test.csv")
    add = parser.add_argument_group("nyu_depth_v2_labeled.mat").add_argument
    add("--splits", help="the official splits.mat")
    add("--test-fraction", type=float, help="without --splits: share of whole scenes (654 of 1449)")
    add = parser.add_argument_group("folders of your own, as for FolderDataModule").add_argument
    add("--layout", metavar="NAME", help="whose data: kitti ...; see docs/layouts.md")
    add("--rgb", help="folder or pattern of the images (rgb)")
    add("--depth", help="folder or pattern of the depth files (depth)")
    add("--mask", help="likewise, of masks with 0 where depth does not count")
    add("--pairs", help="list of pairs in the place of --rgb and --depth")
    add("--scale", help="metres per unit of the depth files: 0.001, 1/256")
    add("--invalid", type=float, nargs="*", help="values that mean no depth")
    add("--sky", type=float, nargs="*", help="values that are known to lie beyond the range")
    add("--sky-mask", metavar="MASK", help="likewise, of masks that are not 0 in the sky")
    add("--zero-is-label", action="store_true", help="0 is a label, as of heights")
    add("--inverse", action="store_true", help="the files hold inverse depth")
    add("--distance", choices=("planar", "ray"), help="along the optical axis, or along the ray")
    camera = "of rays, in pixels of the depth maps"
    add("--intrinsics", type=float, nargs=4, metavar=("FX", "FY", "CX", "CY"), help=camera)
    given = vars(parser.parse_args(arguments))
    if given["short_side"] < 0:
        parser.error("--short-side: expected a positive number, or 0 to keep the sizes")

    from depthbal.data.packing import pack  # importing torch takes seconds

    pack(**{**given, "short_side": given["short_side"] or None})
    out = given["out"]
    print(f"{out}: {out.stat().st_size / 1e6:,.0f} MB written; use it with --data.root {out}")

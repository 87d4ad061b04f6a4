"""``depthbal prepare``: a data set packed into one file."""

import argparse
from collections.abc import Sequence
from pathlib import Path

DESCRIPTION = """Pack images and depth into one HDF5 file that data modules read as their root.

SRC is the folder of NYUD2-DIR (with data/nyu2_train.csv and nyu2_test.csv), the original
nyu_depth_v2_labeled.mat, or a folder of your own (rgb/ and depth/, or train/ and test/ with both).
Depth of 8 and 16 bit is kept as it is; floating-point depth is rounded to steps of --step."""


def main(arguments: Sequence[str]) -> None:
    """Pack, and say what was written."""
    parser = _parser()
    given = vars(parser.parse_args(arguments))
    source, out, short_side, overwrite = (
        given.pop(name) for name in ("source", "out", "short_side", "overwrite")
    )
    if short_side < 0:
        parser.error("--short-side: expected a positive number, or 0 to keep the sizes")
    from depthbal.data.packing import pack  # importing torch takes seconds

    pack(source, out, short_side or None, overwrite=overwrite, **given)
    print(f"{out}: {out.stat().st_size / 1e6:,.0f} MB written; use it with --data.root {out}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="depthbal prepare",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("source", type=Path, metavar="SRC")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.h5")
    parser.add_argument(
        "--short-side",
        type=int,
        default=240,
        help="pixels of the shorter side (240; 0: as stored)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", default=False, help="replace the file at --out"
    )
    lists = parser.add_argument_group("NYUD2-DIR")
    lists.add_argument("--train-csv", help="default: nyu2_train.csv")
    lists.add_argument("--test-csv", help="default: nyu2_test.csv")
    mat = parser.add_argument_group("nyu_depth_v2_labeled.mat")
    mat.add_argument("--splits", help="the official splits.mat")
    mat.add_argument(
        "--test-fraction", type=float, help="without --splits: share of whole scenes (654 of 1449)"
    )
    own = parser.add_argument_group("folders of your own, as for FolderDataModule")
    own.add_argument("--rgb", help="folder or pattern of the images (rgb)")
    own.add_argument("--depth", help="folder or pattern of the depth files (depth)")
    own.add_argument("--scale", type=float, help="metres per unit of the depth files")
    own.add_argument("--invalid", type=float, nargs="*", help="values that mean no depth")
    parser.add_argument(
        "--step", type=float, help="metres per level for floating-point depth (0.001)"
    )
    return parser

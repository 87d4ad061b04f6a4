#!/usr/bin/env python
"""Compare losses over seeds: ``python tools/compare_losses.py --seeds 0 1 2``."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from depthbal.training.tool import run_tool

ROOT = Path(__file__).resolve().parents[1]
ROOMS = [ROOT / "configs" / "rooms" / name for name in ("mse.yaml", "gai.yaml")]


def main(arguments: Sequence[str]) -> None:
    """Train every config with every seed and print medians; other options go to train.py."""
    from rich.console import Console

    from depthbal.training.compare import compare_configs, print_comparison

    parser = argparse.ArgumentParser(description=main.__doc__, allow_abbrev=False)
    parser.add_argument("--configs", type=Path, nargs="+", default=ROOMS, help="baseline first")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/compare"))
    parser.add_argument(
        "--posthoc", type=float, metavar="SIGMA", help="default: the balanced runs'"
    )
    parser.add_argument("--no-posthoc", action="store_true", help="balance nothing afterwards")
    known, rest = parser.parse_known_args(arguments)
    train_tool = ROOT / "tools" / "train.py"
    results = compare_configs(
        known.configs,
        known.seeds,
        known.out,
        train_tool,
        rest,
        posthoc=not known.no_posthoc,
        posthoc_sigma=known.posthoc,
    )
    print_comparison(Console(), results)


if __name__ == "__main__":
    raise SystemExit(run_tool(main))

#!/usr/bin/env python
"""Measure what sigma does: ``python tools/sweep_sigma.py --sigmas 0.25 0.5 1 2``."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from depthbal.training.tool import run_tool

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ROOT / "configs" / "rooms"


def main(arguments: Sequence[str]) -> None:
    """Train at every sigma and draw the errors; other options go to train.py."""
    from rich.console import Console

    from depthbal.priors.files import write_json
    from depthbal.training.sweep import draw_sweep, sweep_sigma
    from depthbal.training.versions import collect_versions

    parser = argparse.ArgumentParser(description=main.__doc__, allow_abbrev=False)
    parser.add_argument("--plain", type=Path, default=ROOMS / "mse.yaml")
    parser.add_argument("--balanced", type=Path, default=ROOMS / "gai.yaml")
    parser.add_argument("--sigmas", type=float, nargs="+", default=[0.25, 0.5, 0.75, 1.0, 1.5, 2.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=Path("runs/sigma"))
    known, rest = parser.parse_known_args(arguments)
    train_tool = ROOT / "tools" / "train.py"
    sweep = sweep_sigma(
        known.plain, known.balanced, known.sigmas, known.seeds, known.out, train_tool, rest
    )
    versions = collect_versions(known.seeds[0], "cpu")
    write_json(known.out / "sigma.json", {**sweep, "seeds": known.seeds, "versions": versions})
    draw_sweep(sweep, known.out / "sigma.png")
    Console().print(f"Written: {known.out / 'sigma.json'}, {known.out / 'sigma.png'}")


if __name__ == "__main__":
    raise SystemExit(run_tool(main))

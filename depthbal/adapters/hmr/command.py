"""The command of human mesh recovery: train, compare on synthetic people, check files, draw."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from depthbal.adapters.density import require_picture
from depthbal.adapters.hmr.application import HMR
from depthbal.adapters.hmr.check import print_check
from depthbal.adapters.hmr.comparison import compare_seeds, compare_synthetic
from depthbal.adapters.hmr.datamodule import HmrDataModule
from depthbal.adapters.hmr.density import label_density, save_density
from depthbal.adapters.hmr.synthetic import write_synthetic
from depthbal.errors import ConfigError
from depthbal.training.configs import last_config
from depthbal.training.run_config import build_data
from depthbal.training.settings import parsed_settings
from depthbal.training.train import train

USAGE = """\
tools/train_hmr.py                    compare MSE and GAI on synthetic people (--out, --seed)
tools/train_hmr.py --seeds 0 1 2      the same with several trainings, and their medians
tools/train_hmr.py --check DIR        list the files that SPIN's data need, found or missing
tools/train_hmr.py --density PNG ...  draw the density of the labels of a training
tools/train_hmr.py --config FILE ...  train, with these settings:
"""


def run_command(arguments: Sequence[str], configs: Path) -> None:
    """Run the tool: without arguments the comparison on synthetic people.

    Args:
        arguments: ``--check DIR``; ``--density PNG`` with the settings of a training or nothing;
            nothing or ``--out DIR``, ``--seed N`` and ``--seeds N ...``; or the settings of a
            training, with a ``--config``.
        configs: The folder of the presets.

    Raises:
        DepthbalError: Whatever the user can mend.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for flag in ("--check", "--density", "--out"):
        parser.add_argument(flag, type=Path)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--seeds", type=int, nargs="+")
    try:
        known, rest = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise ConfigError(str(error)) from error
    _refuse_unused(known, rest)
    seed = known.seed or 0
    if known.check is not None:
        print_check(Console(), known.check)
    elif known.density is not None:
        draw_density(rest, known.density, configs / "paper.yaml", seed)
    elif rest:
        if {"-h", "--help"} & set(rest):
            print(USAGE)
        train(arguments, configs / "paper.yaml", HMR)
    elif known.seeds:
        compare_seeds(known.out or Path("runs/hmr-seeds"), configs, known.seeds, seed)
    else:
        compare_synthetic(known.out, configs, seed)


def _refuse_unused(known: argparse.Namespace, rest: Sequence[str]) -> None:
    """Say what a command line gives beside --check, --density or --seeds and is not used then."""
    given = {f"--{name}" for name, value in vars(known).items() if value is not None}
    takes: dict[str, set[str]] = {
        "--check": set(),
        "--density": set() if rest else {"--seed"},  # of the synthetic people
        "--seeds": {"--out", "--seed"},
    }
    mode = next((mode for mode in takes if mode in given), None)
    if mode is None:
        return
    settings = [] if mode == "--density" else rest
    if unused := [*sorted(given - {mode} - takes[mode]), *settings]:
        raise ConfigError(f"{mode} does not use {' '.join(unused)}; leave that out, or see --help")


def draw_density(arguments: Sequence[str], path: Path, config: Path, seed: int = 0) -> None:
    """Draw the density of the training labels over the distance to the mean pose.

    Args:
        arguments: The command line of the training; none is for synthetic people.
        path: The picture; its suffix says which kind (png, svg, pdf).
        config: The settings without ``--config``.
        seed: Of the synthetic people.

    Raises:
        ConfigError: Another kind of picture, or a setting is unknown or refused.
        DataError: The folder holds no training data.
    """
    require_picture(path)
    with TemporaryDirectory() as folder:
        given = arguments or ["--data.root", str(write_synthetic(Path(folder), seed))]
        if last_config(given) is None:
            given = ["--config", str(config), *given]
        section = {"data": parsed_settings(HMR, given)["data"]}
        data = build_data(HmrDataModule, section, (), str(last_config(given)))
        data.setup("fit")
        save_density(label_density(data), path)
    print(path)

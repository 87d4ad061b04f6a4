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
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[])
    try:
        known, rest = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise ConfigError(str(error)) from error
    if known.seeds and (rest or known.check or known.density):
        raise ConfigError("--seeds is for the comparison on synthetic people, without settings")
    if known.check is not None:
        print_check(Console(), known.check)
    elif known.density is not None:
        draw_density(rest, known.density, configs / "paper.yaml", known.seed)
    elif rest:
        if {"-h", "--help"} & set(rest):
            print(USAGE)
        train(arguments, configs / "paper.yaml", HMR)
    elif known.seeds:
        compare_seeds(known.out or Path("runs/hmr-seeds"), configs, known.seeds, known.seed)
    else:
        compare_synthetic(known.out, configs, known.seed)


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

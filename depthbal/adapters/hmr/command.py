"""The command of human mesh recovery: train, compare on synthetic people, check files, draw."""

import argparse
import dataclasses
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from depthbal.errors import ConfigError, RunFolderError
from depthbal.priors.files import write_json
from depthbal.training.runs import free_folder, require_claimable

METHODS = {"mse": "mse.yaml", "gai": "paper.yaml"}
"""What the default command compares."""
SYNTHETIC = {
    "--model.model.init_args.features": "64",
    "--model.prior_rows": "4000",
    "--data.batch_size": "32",
    "--data.num_workers": "0",
    "--data.mixing": "spin",
    "--trainer.enable_progress_bar": "false",
}
"""Where the default command differs from the published recipe: small data need more steps."""


USAGE = """\
tools/train_hmr.py                    compare MSE and GAI on synthetic people (--out, --seed)
tools/train_hmr.py --check DIR        list the files that SPIN's data need, found or missing
tools/train_hmr.py --density DIR      draw the density of the training labels (--out FILE)
tools/train_hmr.py --config FILE ...  train, with these settings:
"""


def run_command(arguments: Sequence[str], configs: Path) -> None:
    """Run the tool: without arguments the comparison on synthetic people.

    Args:
        arguments: ``--check DIR``; ``--density DIR [--out FILE]``; nothing or ``--out DIR [--seed
            N]``; or the settings of a training, with a ``--config``.
        configs: The folder of the presets.

    Raises:
        DepthbalError: Whatever the user can mend.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for flag in ("--check", "--density", "--out"):
        parser.add_argument(flag, type=Path)
    parser.add_argument("--seed", type=int, default=0)
    try:
        known, rest = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise ConfigError(str(error)) from error
    if known.check is not None:
        from depthbal.adapters.hmr.check import print_check

        print_check(Console(), known.check)
    elif known.density is not None:
        draw_density(known.density, known.out or Path("density.png"))
    elif rest:
        if {"-h", "--help"} & set(rest):
            print(USAGE)
        from depthbal.adapters.hmr.application import HMR
        from depthbal.training.train import train

        train(arguments, configs / METHODS["gai"], HMR)
    else:
        compare_synthetic(known.out or free_folder(Path("runs"), "hmr"), configs, known.seed)


def compare_synthetic(out: Path, configs: Path, seed: int = 0) -> None:
    """Train plain and balanced regressors on synthetic people and write table.json and report.html.

    Args:
        out: Empty or new folder; gets ``data``, the runs ``mse`` and ``gai``, table and report.
        configs: The folder of the presets.
        seed: Of people and trainings.

    Raises:
        RunFolderError: Something is there already.
    """
    from depthbal.adapters.hmr.application import HMR
    from depthbal.adapters.hmr.synthetic import write_synthetic
    from depthbal.adapters.hmr.table import print_comparison, summary
    from depthbal.reports import write_report
    from depthbal.training.train import train

    if out.is_dir() and any(out.iterdir()):
        raise RunFolderError(f"{out} exists and is not empty; choose another folder with --out")
    require_claimable(out)
    root = write_synthetic(out / "data", seed)
    common = [text for pair in SYNTHETIC.items() for text in pair]
    common += ["--data.root", str(root), "--seed_everything", str(seed), "--data.seed", str(seed)]
    quiet = dataclasses.replace(HMR, show=lambda console, metrics: None)
    metrics = {}
    for name, config in METHODS.items():
        given = ["--config", str(configs / config), "--out", str(out / name), *common]
        with one_thread():
            run = train(given, configs / config, quiet)
        metrics[name] = json.loads(run.metrics().read_text(encoding="utf-8"))
    write_json(out / "table.json", {name: summary(found) for name, found in metrics.items()})
    console = Console()
    print_comparison(console, metrics)
    report = write_report([out / name for name in METHODS], out / "report.html")
    for title, path in (("Table", out / "table.json"), ("Report", report)):
        console.print(f"{title}: {path}", highlight=False, soft_wrap=True)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread: steps this small wait for a second one longer than it helps them.

    On two cores that others use as well, the default command took 8 minutes with two threads and
    one with one.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def draw_density(root: Path, out: Path) -> None:
    """Draw the density of the training labels of a data folder.

    Raises:
        DataError: The folder holds no training data.
    """
    from depthbal.adapters.hmr.datamodule import HmrDataModule
    from depthbal.adapters.hmr.density import label_density, save_density

    data = HmrDataModule(str(root), val_fraction=0.0)
    data.setup("fit")
    save_density(label_density(data), out)
    print(f"Label density: {out}")

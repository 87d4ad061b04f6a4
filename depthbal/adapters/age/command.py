"""The command of age regression: trainings, re-trainings, the comparison of both, a figure."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from depthbal.adapters.age.application import AGE
from depthbal.adapters.age.data import LabelDataModule
from depthbal.adapters.age.prediction import write_ages
from depthbal.adapters.age.retraining import BaseRun, inherit
from depthbal.adapters.age.table import print_runs
from depthbal.adapters.density import density_figure, require_picture, save_figure
from depthbal.errors import ConfigError
from depthbal.evaluation import Label
from depthbal.priors import GaussianMixture
from depthbal.training.compare import missing_work, train_missing
from depthbal.training.configs import config_chain, last_config, read_mapping
from depthbal.training.precision import default_device
from depthbal.training.run_config import build_data
from depthbal.training.runs import RunFolder
from depthbal.training.settings import parsed_settings
from depthbal.training.train import train

COMPONENTS, NOISE_SIGMA = 2, 10.0  # of the published mixture of ages

DESCRIPTION = """\
Without --config, --base and --resume: train on drawn faces with the plain absolute error, re-train
the head with GAI, print both and write report.html into --out DIR. With one of them: a single
training; --config FILE --help lists its settings. With --predict: the ages of one's own pictures
as a csv file, path,age,low,high, with 68 % intervals where the loss has a sigma."""


def run(arguments: Sequence[str], tool: Path, configs: Path) -> None:
    """Do what the command line says.

    Args:
        arguments: The command line without the program's name.
        tool: The training script, for processes of their own.
        configs: The folder configs/age.

    Raises:
        DepthbalError: Whatever the user can mend.
    """
    parser = _parser()
    known, rest = parser.parse_known_args(arguments)
    config = last_config(rest)
    resumes = any(argument.partition("=")[0] == "--resume" for argument in rest)
    single = resumes or known.base is not None or config is not None
    _refuse_unused(known, resumes, single)
    if known.predict is not None:
        predict(known.predict[0], known.predict[1], rest)
        return
    if not single and {"-h", "--help"} & set(rest):
        parser.print_help()
        return
    if known.base is not None:
        default = [] if config else ["--config", str(configs / "rrt_gai.yaml")]
        rest = _retraining([*default, *rest], known.base)
    elif config is not None and not {"-h", "--help"} & set(rest):
        _require_base(config, rest)
    if known.density is not None:
        default = [] if single else ["--config", str(configs / "drawn" / "vanilla.yaml")]
        density([*default, *rest], known.density)
    elif single:
        train(rest, configs / "vanilla.yaml", AGE)
    else:
        compare(rest, known.seeds, tool, configs / "drawn")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=AGE.prog, description=DESCRIPTION, allow_abbrev=False, add_help=False
    )
    base = "finished run whose backbone, of the last epoch, gets a new head; that of its best "
    base += "epoch with --model.base_checkpoint best"
    parser.add_argument("--base", metavar="RUN", help=base)
    parser.add_argument("--density", metavar="PNG", type=Path, help="only draw the label density")
    predicted = "only write the ages of the pictures in FOLDER into --out FILE (ages.csv)"
    parser.add_argument("--predict", metavar=("RUN", "FOLDER"), nargs=2, type=Path, help=predicted)
    parser.add_argument("--seeds", type=int, nargs="+", help="compare over several seeds")
    return parser


def _refuse_unused(known: argparse.Namespace, resumes: bool, single: bool) -> None:
    """Refuse options that what the command line asks for would ignore."""
    for asked, purpose, unused in (
        (known.predict, "--predict RUN FOLDER only writes ages", ("base", "density", "seeds")),
        (known.density, "--density PNG only draws the labels of one training", ("seeds",)),
        (resumes, "--resume RUN only continues a training", ("base", "density", "seeds")),
        (single, "--config and --base are for a single training", ("seeds",)),
    ):
        given = [f"--{name}" for name in unused if getattr(known, name) is not None]
        if asked and given:
            raise ConfigError(f"{purpose}: leave out {', '.join(given)}")


def _require_base(config: Path, arguments: Sequence[str]) -> None:
    """Say what a config that trains a head only lacks, before its settings are looked at."""
    given = any(argument.startswith("--model.base_run") for argument in arguments)
    if retrains(config) and not given:
        raise ConfigError(
            f"{config} trains a new head on the backbone of a finished run: give it with --base "
            "RUN, such as the run of configs/age/vanilla.yaml"
        )


def _retraining(arguments: Sequence[str], base: str) -> list[str]:
    """Return the command line that re-trains a base run's head, whose model it must have.

    Other weights of another model would be fetched before the training compares the models.
    """
    run = BaseRun(base)
    line = run.inherit(arguments)
    ours = run.content["depthbal"]["model"]["init_args"] is not None
    if ours and not {"-h", "--help"} & set(arguments):
        model = parsed_settings(AGE, line)["model"]["model"]
        name = model["class_path"].rpartition(".")[2]
        run.require_model({"name": name, "init_args": model.get("init_args")})
    return line


def retrains(config: Path) -> bool:
    """Whether a config, with those it is a difference to, trains a head only."""
    found = False
    for file in config_chain(config):
        model = read_mapping(file).get("model")
        if isinstance(model, dict):
            found = bool(model.get("retrain", found))
    return found


def compare(rest: Sequence[str], seeds: Sequence[int] | None, tool: Path, configs: Path) -> None:
    """Train with the plain loss, re-train with GAI, print both and write one report.

    A finished run of the same settings is read, not repeated; one that was cut off is continued.

    Args:
        rest: ``--out DIR`` and settings of every training.
        seeds: OUT/vanilla-SEED and OUT/rrt_gai-SEED for each; None is the config's own seed in
            OUT/vanilla and OUT/rrt_gai.
        tool: The training script.
        configs: The folder of vanilla.yaml and rrt_gai.yaml.
    """
    from depthbal.reports import write_report

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--out", type=Path, default=Path("runs/age"))
    known, settings = parser.parse_known_args(rest)
    out: Path = known.out
    runs: dict[str, list[Path]] = {"vanilla": [], "rrt_gai": []}
    for seed in seeds or (None,):
        suffix = "" if seed is None else f"-{seed}"
        seeded = [] if seed is None else [f"--seed_everything={seed}", f"--data.seed={seed}"]
        base = out / f"vanilla{suffix}"
        for name, folders in runs.items():
            line = ["--config", str(configs / f"{name}.yaml"), *seeded, *settings]
            folders.append(out / f"{name}{suffix}")
            if name != "vanilla":
                line = inherit(line, str(base))
            work = [*line, "--out", str(folders[-1])]
            if "--overwrite" not in settings:
                work = missing_work(folders[-1], line, AGE)
            train_missing({folders[-1]: work}, tool)
    console = Console()
    print_runs(console, {name: [_metrics(run) for run in found] for name, found in runs.items()})
    report = write_report([run for found in runs.values() for run in found], out / "report.html")
    console.print(f"Report: {report}", highlight=False, soft_wrap=True)


def predict(run: Path, folder: Path, rest: Sequence[str]) -> None:
    """Write the ages of a folder's pictures; ``rest`` may hold ``--out FILE --overwrite``."""
    parser = argparse.ArgumentParser(prog=AGE.prog, allow_abbrev=False)
    parser.add_argument("--out", type=Path, default=Path("ages.csv"), help="csv file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    parser.add_argument("--device", default=default_device())
    write_ages(run, folder, **vars(parser.parse_args(rest)))


def density(arguments: Sequence[str], path: Path) -> None:
    """Draw the density of a training's labels and the mixture that GAI fits to it.

    Args:
        arguments: The command line of that training.
        path: The picture; its suffix says which kind (png, svg, pdf).

    Raises:
        ConfigError: It says another.
    """
    require_picture(path)
    section = {"data": parsed_settings(AGE, arguments)["data"]}
    data = build_data(LabelDataModule, section, (), str(last_config(arguments)))
    histogram = data.train_histogram()
    mixture = GaussianMixture.fit(histogram, COMPONENTS, noise_sigma=NOISE_SIGMA)
    label = Label(data.label, data.unit)
    save_figure(density_figure(histogram, label, data.bins(), mixture), path)
    print(path)


def _metrics(run: Path) -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads(RunFolder(run).metrics().read_text(encoding="utf-8"))
    return metrics

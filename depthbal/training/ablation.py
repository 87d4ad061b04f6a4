"""One setting of a balanced training varied over seeds, with everything else as it is."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from depthbal.errors import ConfigError
from depthbal.evaluation import GROUPS
from depthbal.predictor import load_predictor
from depthbal.training.ablation_study import Measured, Row
from depthbal.training.application import Application
from depthbal.training.compare import missing_work, train_missing
from depthbal.training.runs import RunFolder


@dataclass(frozen=True)
class Subject:
    """What is ablated: an application, its plain training and its balanced one.

    Args:
        application: What is trained.
        tool: The training script.
        plain: Config of the plain loss.
        balanced: Config of the balanced loss.
        on_base: Turns the command line of a balanced training into one that starts from a finished
            plain run, which is then trained once per seed and shared by all variants; None where
            balanced trainings start from nothing.
        posthoc: Balances a finished plain run afterwards at a sigma and returns the metrics file;
            None where there is no such evaluation.
    """

    application: Application
    tool: Path
    plain: Path
    balanced: Path
    on_base: Callable[[Sequence[str], str], list[str]] | None = None
    posthoc: Callable[[Path, float], Path] | None = None


@dataclass(frozen=True)
class Variant:
    """One value of the setting that is varied.

    Args:
        name: For people: "sigma 6".
        folder: For the run's folder: "sigma6".
        arguments: The settings.
        x: Its place on a figure's axis; None where the training finds it.
        kind: "trained", or "learned" where the training finds the value.
    """

    name: str
    folder: str
    arguments: tuple[str, ...]
    x: float | None
    kind: str = "trained"


def ablate(
    subject: Subject,
    variants: Sequence[Variant],
    seeds: Sequence[int],
    out: Path,
    rest: Sequence[str],
    sigmas_afterwards: Sequence[float] = (),
) -> list[Row]:
    """Train the plain loss once and the balanced one in every variant, per seed.

    Finished runs of the same settings are read, not repeated; those that were cut off are
    continued.

    Args:
        subject: What is trained.
        variants: The values.
        seeds: Seeds of the network's start and of the samples' order.
        out: Folder for the runs, OUT/CONFIG[-VARIANT]-SEED.
        rest: Further settings for every run.
        sigmas_afterwards: At which sigmas the plain runs are also balanced afterwards.

    Returns:
        The plain row, one per variant, and one per sigma afterwards.

    Raises:
        ConfigError: No seeds, or two variants of one folder.
        RunFolderError: A run was made with other settings, or a training failed.
    """
    if not seeds or len({variant.folder for variant in variants}) < len(variants):
        raise ConfigError(f"expected seeds and different values, got seeds {list(seeds)}")
    plain = {seed: out / f"{subject.plain.stem}-{seed}" for seed in seeds}
    runs = {
        variant.folder: {
            seed: out / f"{subject.balanced.stem}-{variant.folder}-{seed}" for seed in seeds
        }
        for variant in variants
    }

    def commands_of_plain() -> dict[Path, list[str]]:
        return {
            run: _missing(subject, subject.plain, run, seed, rest) for seed, run in plain.items()
        }

    def commands_of_variants() -> dict[Path, list[str]]:
        return {
            runs[variant.folder][seed]: _missing(
                subject,
                subject.balanced,
                runs[variant.folder][seed],
                seed,
                [*variant.arguments, *rest],
                plain[seed],
            )
            for seed in seeds
            for variant in variants
        }

    if subject.on_base is None:  # then all folders are checked before the first training
        train_missing({**commands_of_plain(), **commands_of_variants()}, subject.tool)
    else:
        train_missing(commands_of_plain(), subject.tool)
        train_missing(commands_of_variants(), subject.tool)
    rows = [Row(subject.plain.stem, "plain", None, measured_of(plain))]
    rows += [
        Row(variant.name, variant.kind, variant.x, measured_of(runs[variant.folder]))
        for variant in variants
    ]
    if subject.posthoc is not None:
        for sigma in sigmas_afterwards:
            files = {seed: subject.posthoc(run, sigma) for seed, run in plain.items()}
            found = {seed: measure(file) for seed, file in files.items()}
            name = f"{subject.plain.stem}, balanced afterwards, sigma {sigma:g}"
            rows.append(Row(name, "afterwards", sigma, found))
    return rows


def _missing(
    subject: Subject,
    config: Path,
    run: Path,
    seed: int,
    settings: Sequence[str],
    base: Path | None = None,
) -> list[str]:
    """Return what the training script needs to finish a run."""
    line = ["--config", str(config), f"--seed_everything={seed}", f"--data.seed={seed}", *settings]
    if base is not None and subject.on_base is not None:
        line = subject.on_base(line, str(base))
    return missing_work(run, line, subject.application)


def measured_of(runs: Mapping[int, Path]) -> dict[int, Measured]:
    """Return what finished runs scored, with the sigma that they ended with."""
    return {seed: measure(RunFolder(run).metrics(), run) for seed, run in runs.items()}


def measure(metrics: Path, run: Path | None = None) -> Measured:
    """Return the main metric of a result: its mean over label bins, and over all labels.

    Over all test labels, where a result also has a balanced mask.

    Args:
        metrics: The metrics file.
        run: Its run, whose sigma is read; None for none.
    """
    content = json.loads(metrics.read_text(encoding="utf-8"))
    main = content["protocol"]["main_metric"]
    content = content.get("all_pixels") or content
    sigma = None
    if run is not None:
        criterion = load_predictor(run, device="cpu").criterion
        found = getattr(criterion, "noise_sigma", None)
        sigma = None if found is None else float(found)
    return Measured(
        balanced={group: content["per_bin_mean"][group][main] for group in GROUPS},
        natural={group: content[group][main] for group in GROUPS},
        sigma=sigma,
    )

"""The ablations: the noise scale fixed or learned, and the number of the prior's components."""

from collections.abc import Sequence
from pathlib import Path

from depthbal.errors import ConfigError
from depthbal.training.ablation import Subject, Variant, ablate
from depthbal.training.ablation_study import Study

CRITERION = "--model.criterion"


def sweep_sigma(
    subject: Subject,
    sigmas: Sequence[float],
    seeds: Sequence[int],
    out: Path,
    rest: Sequence[str],
    *,
    metric: str,
    unit: str,
    learned: bool = True,
) -> Study:
    """Compare fixed noise scales with a learned one and, where there is that, balancing afterwards.

    Args:
        subject: What is trained.
        sigmas: Noise scales in label units.
        seeds: Seeds.
        out: Folder for the runs.
        rest: Further settings for every run.
        metric: The main metric, with its unit: "RMSE in metres".
        unit: The label's unit.
        learned: Whether to train with a learned sigma, too; it starts where the config says.

    Raises:
        ConfigError: No sigma, or one that is not positive.
        RunFolderError: A run was made with other settings, or a training failed.

    Source: Ren et al., CVPR 2022, supplement, table 2.
    """
    if not sigmas or not all(sigma > 0 for sigma in sigmas):
        raise ConfigError(f"expected positive sigmas in {unit}, got {list(sigmas)}")
    variants = [
        Variant(
            f"sigma {sigma:g}",
            f"sigma{sigma:g}",
            (f"{CRITERION}.noise=fixed", f"{CRITERION}.init_noise_sigma={sigma}"),
            sigma,
        )
        for sigma in dict.fromkeys(sigmas)
    ]
    if learned:
        variants.append(
            Variant("learned", "learned", (f"{CRITERION}.noise=learned",), None, "learned")
        )
    rows = ablate(subject, variants, seeds, out, rest, sigmas_afterwards=sigmas)
    return Study("The noise scale, fixed or learned", f"sigma in {unit}", metric, rows)


def sweep_components(
    subject: Subject,
    components: Sequence[int],
    seeds: Sequence[int],
    out: Path,
    rest: Sequence[str],
    *,
    metric: str,
) -> Study:
    """Compare numbers of components of GAI's Gaussian mixture.

    Args:
        subject: What is trained, its balanced config one of GAI.
        components: Numbers of components.
        seeds: Seeds.
        out: Folder for the runs.
        rest: Further settings for every run.
        metric: The main metric, with its unit.

    Raises:
        ConfigError: No number, or one below 1.
        RunFolderError: A run was made with other settings, or a training failed.

    Source: Ren et al., CVPR 2022, supplement, table 3.
    """
    if not components or not all(number >= 1 for number in components):
        raise ConfigError(f"expected numbers of components of at least 1, got {list(components)}")
    variants = [
        Variant(f"K = {number}", f"K{number}", (f"{CRITERION}.n_components={number}",), number)
        for number in dict.fromkeys(components)
    ]
    rows = ablate(subject, variants, seeds, out, rest)
    return Study("The number of components of the prior", "components K", metric, rows)

"""How often each data set is drawn: the mixtures of SPIN and of the published Balanced MSE."""

from collections.abc import Iterator, Mapping
from typing import Literal, get_args

import torch
from torch import Tensor

from depthbal.data.sampler import EpochSampler
from depthbal.errors import ConfigError

Recipe = Literal["spin", "published"]

PUBLISHED = {
    "h36m": 0.35,
    "mpi_inf_3dhp": 0.15,
    "lsp": 0.10,
    "lspet": 0.10,
    "mpii": 0.10,
    "coco": 0.20,
}
"""MMHuman3D, configs/balanced_mse/resnet50_spin_ihmr_ft_bmc.py."""
SPIN = {"h36m": 0.3, "mpi_inf_3dhp": 0.1}
IN_THE_WILD = 0.6
"""SPIN, datasets/mixed_dataset.py: what the others share in proportion to their sizes."""


def mixing_ratios(sizes: Mapping[str, int], recipe: Recipe = "spin") -> dict[str, float]:
    """Return the share of every data set in the training samples.

    The recipe's shares of the data sets that are there, divided by their sum.

    Args:
        sizes: Number of rows per data set, any subset of the six.
        recipe: ``"spin"``: .3 Human3.6M, .1 MPI-INF-3DHP, .6 for the others by their sizes;
            ``"published"``: .35, .15, and LSP .1, LSPET .1, MPII .1, COCO .2.

    Raises:
        ConfigError: No data set, an unknown one, or an unknown recipe.

    Example:
        >>> shares = mixing_ratios({"h36m": 300, "lsp": 10, "coco": 30})
        >>> {name: round(share, 3) for name, share in shares.items()}
        {'h36m': 0.333, 'lsp': 0.167, 'coco': 0.5}
        >>> round(mixing_ratios({"lsp": 10, "coco": 30}, "published")["coco"], 3)
        0.667
    """
    unknown = set(sizes) - set(PUBLISHED)
    if not sizes or unknown or min(sizes.values()) < 1:
        raise ConfigError(
            f"expected data sets among {', '.join(PUBLISHED)}, each with rows, got {dict(sizes)}"
        )
    if recipe not in get_args(Recipe):
        raise ConfigError(f"expected the mixing spin or published, got {recipe!r}")
    wild = sum(size for name, size in sizes.items() if name not in SPIN)
    shares = {
        name: PUBLISHED[name]
        if recipe == "published"
        else SPIN.get(name, IN_THE_WILD * size / max(wild, 1))
        for name, size in sizes.items()
    }
    total = sum(shares.values())
    return {name: share / total for name, share in shares.items()}


def row_weights(sizes: Mapping[str, int], ratios: Mapping[str, float]) -> Tensor:
    """Return the probability of every row of the data sets laid end to end, (rows,) float64.

    Example:
        >>> row_weights({"lsp": 1, "coco": 2}, {"lsp": 0.5, "coco": 0.5}).tolist()
        [0.5, 0.25, 0.25]
    """
    parts = [
        torch.full((size,), ratios[name] / size, dtype=torch.float64)
        for name, size in sizes.items()
    ]
    return torch.cat(parts)


class MixedSampler(EpochSampler):
    """Draw rows with replacement, in proportion to their weights.

    Like its base it depends on nothing but (seed, epoch). The first number of an address is that of
    the draw and not of the epoch, so that a row drawn twice is augmented differently.

    Args:
        weights: (rows,) as `row_weights` gives them.
        samples: Draws per epoch; published: the rows of the largest data set.
        seed: Of the draws.

    Example:
        >>> [row for _, row in MixedSampler(torch.tensor([0.0, 1.0, 0.0]), samples=2)]
        [1, 1]
    """

    def __init__(self, weights: Tensor, samples: int, seed: int = 0) -> None:
        super().__init__(range(samples), seed=seed)
        self.weights = weights

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield this rank's (draw, row)."""
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + self.epoch) % 2**63)
        drawn = torch.multinomial(self.weights, self.total_size, True, generator=generator)
        numbered = enumerate(drawn.tolist(), start=self.epoch * self.total_size)
        return iter(list(numbered)[self.rank :: self.num_replicas])

"""The columns of the benchmark: a label distribution and a function from input to label."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from depthbal.errors import ConfigError
from depthbal.synthetic.distributions import (
    ExponentialLabels,
    LabelDistribution,
    MVNLabels,
    NormalLabels,
)

NOISE_SIGMA = 1.0  # the true noise scale of every column


class Link(NamedTuple):
    """An invertible f with y = f(x) + noise, and the labels it can reach.

    formula: for people; inverse: f^-1 on ``image``; label_range: the labels that count, inside it.
    """

    formula: str
    inverse: Callable[[Tensor], Tensor]
    image: tuple[float, float] = (-math.inf, math.inf)
    label_range: tuple[float, float] = (0.0, 10.0)


def _signed_root(values: Tensor) -> Tensor:
    return values.sign() * values.abs().sqrt()


# Scaled such that labels on the range have inputs of moderate size.
LINKS: dict[str, Link] = {
    "square": Link("sign(x) x^2", _signed_root),
    "exp": Link("exp(x)", torch.log, (0.1, math.inf), (1.0, 10.0)),
    "log": Link("5 log(x)", lambda y: torch.exp(y / 5)),
    "tan": Link("5 + 4 tan(x)", lambda y: torch.atan((y - 5) / 4)),
}

KINDS: dict[str, type[LabelDistribution]] = {
    "normal": NormalLabels,
    "exponential": ExponentialLabels,
    "mvn": MVNLabels,
    **dict.fromkeys(LINKS, NormalLabels),
}
SKEWNESS: dict[type[LabelDistribution], dict[str, float]] = {
    NormalLabels: {"high": 0.5, "moderate": 0.75, "low": 1.0},
    ExponentialLabels: {"high": 2.0, "moderate": 1.5, "low": 1.0},
    MVNLabels: {"high": 0.25, "moderate": 0.5625, "low": 1.0},
}
LEVELS = ("high", "moderate", "low")

COLUMNS = [f"{kind}_{level}" for kind in ("normal", "exponential", "mvn") for level in LEVELS]
NONLINEAR_COLUMNS = [f"{kind}_{level}" for kind in LINKS for level in LEVELS]


@dataclass(frozen=True)
class Column:
    """One column: labels y ~ p_train, inputs x = f^-1(y - noise), noise N(0, I).

    Args:
        name: E.g. ``normal_high``.
        labels: p_train.
        link: f, or None for a linear task.
    """

    name: str
    labels: LabelDistribution
    link: Link | None = None

    @property
    def dim(self) -> int:
        """Dimension of a label."""
        return self.labels.dim

    @property
    def label_range(self) -> tuple[float, float]:
        """Ends of the range on which labels are tested, along every coordinate."""
        return self.labels.label_range if self.link is None else self.link.label_range


def parse_column(name: str) -> Column:
    """Return the column of a name: a kind, an underscore, and a level or a number.

    Kinds: ``normal``, ``exponential``, ``mvn``; ``square``, ``exp``, ``log``, ``tan`` for
    non-linear tasks with normal labels. Levels: ``high``, ``moderate``, ``low``, or the skewness
    itself: the standard deviation of the normal, the rate of the exponential, the factor of the
    covariance of the mvn.

    Raises:
        ConfigError: An unknown kind or level, or a skewness that is not positive.

    Example:
        >>> parse_column("normal_high").labels
        NormalLabels(skewness=0.5)
        >>> parse_column("exponential_0.7").labels.skewness
        0.7
    """
    kind, _, level = name.rpartition("_")
    if kind not in KINDS:
        raise ConfigError(
            f"expected a column KIND_LEVEL of kind {', '.join(KINDS)}, e.g. normal_high, got "
            f"{name!r}"
        )
    distribution = KINDS[kind]
    skewness = SKEWNESS[distribution].get(level)
    if skewness is None:
        skewness = _number(level, name)
    return Column(name, distribution(skewness), LINKS.get(kind))


def _number(level: str, name: str) -> float:
    try:
        skewness = float(level)
    except ValueError:
        skewness = math.nan
    if not (skewness > 0 and math.isfinite(skewness)):
        raise ConfigError(
            f"expected a column's level to be {', '.join(LEVELS)} or a positive number, got "
            f"{name!r}"
        )
    return skewness


def expected_vanilla_error(column: Column) -> float:
    """Return the test MSE of plain least squares in expectation, for linear tasks.

    The slope is Var(y) / (Var(y) + 1), so that labels uniform on the range and without noise err by

        ((hi - lo)^2 / 12 + (centre - mean)^2) / (1 + Var y)^2

    along every principal axis of the labels, and by the mean of that over the axes.

    Raises:
        ConfigError: A non-linear task.

    Example:
        >>> round(expected_vanilla_error(parse_column("normal_high")), 3)
        5.333
    """
    if column.link is not None:
        raise ConfigError(f"there is no closed form for the non-linear {column.name}")
    low, high = column.label_range
    variances, axes = torch.linalg.eigh(column.labels.covariance)
    offset = ((low + high) / 2 - column.labels.mean) @ axes
    errors = ((high - low) ** 2 / 12 + offset**2) / (1 + variances) ** 2
    return float(errors.mean())

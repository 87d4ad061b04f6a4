"""What is predicted, in words: the name and the unit that reports print."""

from typing import NamedTuple


class Label(NamedTuple):
    """Name and unit of a label, for protocols, axes and tables.

    Args:
        name: in plain words.
        unit: of predictions, truths and bin edges.

    Example:
        >>> Label("age", "years")
        Label(name='age', unit='years')
    """

    name: str
    unit: str


DEPTH = Label("depth", "m")
"""Metric depth, the default of every evaluation."""

"""The result of an ablation: rows over seeds, as data and as a Markdown table."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from depthbal.evaluation import GROUPS

Scores = dict[str, float | None]


@dataclass(frozen=True)
class Measured:
    """What one run scored.

    Args:
        balanced: Per group the mean over label bins of the main metric.
        natural: Per group the main metric over all labels, which common ones dominate.
        sigma: The noise scale that it ended with; None where there is none.
    """

    balanced: Scores
    natural: Scores
    sigma: float | None = None


@dataclass(frozen=True)
class Row:
    """One value of the varied setting, over seeds.

    Args:
        name: For people.
        kind: "plain", "trained", "learned" (the training found the value) or "afterwards".
        x: The value on a figure's axis; None for none.
        seeds: What the run of every seed scored.
    """

    name: str
    kind: str
    x: float | None
    seeds: dict[int, Measured]

    def values(self, group: str, natural: bool = False) -> list[float]:
        """Return a group's score of every seed that has one."""
        runs = self.seeds.values()
        found = [(run.natural if natural else run.balanced)[group] for run in runs]
        return [value for value in found if value is not None]

    def median(self, group: str, natural: bool = False) -> float | None:
        """Return the median over seeds, or None where the group is empty.

        Example:
            >>> row = Row("K = 2", "trained", 2.0, {s: Measured({"few": s}, {}) for s in (1, 3, 9)})
            >>> row.median("few")
            3
        """
        values = self.values(group, natural)
        return statistics.median(values) if values else None

    def sigma(self) -> float | None:
        """Return the median over seeds of the sigma that the runs ended with."""
        found = [run.sigma for run in self.seeds.values() if run.sigma is not None]
        return statistics.median(found) if found else None


@dataclass(frozen=True)
class Study:
    """An ablation.

    Args:
        title: What was varied.
        axis: The varied setting with its unit, for a figure's axis.
        metric: The balanced metric with its unit: "bMAE in years".
        rows: The values, the plain loss first.
    """

    title: str
    axis: str
    metric: str
    rows: Sequence[Row]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON can hold it, medians included."""
        rows = [
            {
                "name": row.name,
                "kind": row.kind,
                "x": row.x,
                "median": {group: row.median(group) for group in GROUPS},
                "median_natural": {group: row.median(group, natural=True) for group in GROUPS},
                "sigma": row.sigma(),
                "seeds": {str(seed): asdict(run) for seed, run in row.seeds.items()},
            }
            for row in self.rows
        ]
        return {"title": self.title, "axis": self.axis, "metric": self.metric, "rows": rows}

    def markdown(self) -> str:
        """Return one table: medians over seeds, and the range of the overall score."""
        seeds = list(self.rows[0].seeds)
        page = [f"# {self.title}", ""]
        page += [
            f"{self.metric}, mean over label bins; the last column over all labels. Median over "
            f"seeds {', '.join(map(str, seeds))}; in brackets the lowest and highest overall.",
            "",
            f"| | {' | '.join(GROUPS)} | over seeds | sigma at the end | all labels |",
            f"|---|{'--:|' * (len(GROUPS) + 3)}",
        ]
        for row in self.rows:
            cells = [row.name, *(_cell(row.median(group)) for group in GROUPS)]
            overall = row.values("overall")
            several = len(overall) > 1
            cells.append(f"[{min(overall):.3f}, {max(overall):.3f}]" if several else "-")
            cells += [_cell(row.sigma()), _cell(row.median("overall", natural=True))]
            page.append(f"| {' | '.join(cells)} |")
        return "\n".join(page) + "\n"


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"

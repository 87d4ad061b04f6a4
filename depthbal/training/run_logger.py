"""metrics.csv in the run folder, continued when a run is resumed."""

import csv
from pathlib import Path
from typing import cast

from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter

from depthbal.files import replacing


class RunLogger(CSVLogger):
    """Lightning's CSV logger that writes to ``RUN/metrics.csv`` and never deletes it.

    Args:
        path: The run folder.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(save_dir=path, name="", version="")

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        """The writer of the file."""
        if self._experiment is None:
            self._experiment = _ContinuingWriter(log_dir=self.log_dir)
        return cast(ExperimentWriter, self._experiment)


class _ContinuingWriter(ExperimentWriter):
    """Append to an existing file; Lightning's writer would delete it."""

    def _check_log_dir_exists(self) -> None:
        self.metrics_keys = _read_rows(Path(self.metrics_file_path))[0]

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        path = Path(self.metrics_file_path)
        _write_rows(path, fieldnames, _read_rows(path)[1])


def drop_rows_from(path: Path, step: int) -> None:
    """Remove the rows at ``step`` and later: an epoch that was cut off is trained again."""
    if path.is_file():
        columns, rows = _read_rows(path)
        _write_rows(path, columns, [row for row in rows if int(row["step"] or 0) < step])


def _read_rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    if not path.is_file():
        return [], []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
        columns = list(reader.fieldnames or [])
    # a kill can leave the last row incomplete
    return columns, [row for row in rows if None not in row.values()]


def _write_rows(path: Path, columns: list[str], rows: list[dict[str, str]]) -> None:
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=columns)
        writer.writeheader()
        writer.writerows(rows)

"""Lightning's CSV logger, which loses no line when a new column comes: the file is whole before and after."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import csv_logs
from lightning.pytorch.loggers.logger import rank_zero_experiment

from mulligan.files import atomic_write


class CSVLogger(csv_logs.CSVLogger):
    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        if self._experiment is None:
            self._experiment = MetricsWriter(log_dir=self.log_dir)
        return self._experiment


class MetricsWriter(csv_logs.ExperimentWriter):
    def save(self) -> None:
        """Append the lines since the last call. Lightning's own empties the file to write it anew with more columns."""
        path, lines = Path(self.metrics_file_path), self.metrics
        if not lines:
            return
        self.metrics = []  # also where that fails: nothing may come behind half a line
        more = sorted({name for line in lines for name in line} - set(self.metrics_keys))
        if more or not path.is_file():
            widen(path, self.metrics_keys, more)
            self.metrics_keys += more
        with path.open("a", newline="") as file:
            csv.DictWriter(file, self.metrics_keys).writerows(lines)


def widen(path: Path, names: Sequence[str], more: Sequence[str]) -> None:
    """Put empty columns behind ``names``, which the file in ``path`` has, if it is there."""
    header = io.StringIO()
    csv.writer(header).writerow([*names, *more])
    with atomic_write(path) as widened:
        widened.write(header.getvalue().encode())
        if path.is_file():
            with path.open("rb") as lines:
                next(lines)
                widened.writelines(line.rstrip(b"\r\n") + b"," * len(more) + b"\r\n" for line in lines)

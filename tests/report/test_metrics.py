"""Columns of a run's log, over its starts."""

import math
from pathlib import Path

import pytest

from mulligan.report.metrics import read_metrics
from tests.report.conftest import points, write_csv


def test_the_later_start_counts_and_empty_cells_are_no_numbers(tmp_path: Path) -> None:
    first = [{"attempt": 1, "loss": 5.0}, {"attempt": 2, "loss": 4.0}, {"attempt": 3, "loss": 3.9}]
    write_csv(tmp_path / "metrics/version_0/metrics.csv", first)
    second = [{"attempt": 3, "loss": "nan"}, {"attempt": 3, "val": 7.0}, {"attempt": 4, "loss": 3.0}]
    write_csv(tmp_path / "metrics/version_1/metrics.csv", second)
    found = read_metrics(tmp_path)
    assert points(found["val"]) == [(3, 7.0)]
    assert found["loss"].attempts.tolist() == [1, 2, 3, 4]
    assert math.isnan(found["loss"].values[2])
    assert found["loss"].last == 3.0


def test_what_an_earlier_start_logged_beyond_is_not_of_this_run(tmp_path: Path) -> None:
    """Killed before its first checkpoint at attempt 30, begun anew, and not as far by now."""
    first = [{"attempt": at, "loss": 6.0, "old": 1.0} for at in range(1, 31)]
    write_csv(tmp_path / "metrics/version_0/metrics.csv", first)
    write_csv(tmp_path / "metrics/version_1/metrics.csv", [{"attempt": at, "loss": 5.0} for at in (10, 20)])
    found = read_metrics(tmp_path)
    assert points(found["loss"]) == [(10, 5.0), (20, 5.0)]
    assert "old" not in found


def test_a_row_without_an_attempt_is_named(tmp_path: Path) -> None:
    write_csv(tmp_path / "metrics/version_0/metrics.csv", [{"attempt": 1.5, "loss": 5.0}])
    with pytest.raises(ValueError, match=r"metrics.csv:2: attempt=1.5 must be a whole number"):
        read_metrics(tmp_path)


def test_columns_are_chosen_by_name(tmp_path: Path) -> None:
    rows = [{"attempt": 1, "loss": 5.0, "note": "no number"}, {"attempt": 2, "loss": "x", "note": ""}]
    write_csv(tmp_path / "metrics/version_0/metrics.csv", rows[:1])
    assert read_metrics(tmp_path, ["attempt", "loss", "other"]).keys() == {"attempt", "loss"}
    write_csv(tmp_path / "metrics/version_0/metrics.csv", rows)
    with pytest.raises(ValueError, match=r"metrics.csv:3: loss='x' is not a number"):
        read_metrics(tmp_path, ["attempt", "loss"])


def test_rows_without_an_attempt_are_a_callbacks_own(tmp_path: Path) -> None:
    file = tmp_path / "metrics/version_0/metrics.csv"
    file.parent.mkdir(parents=True)
    file.write_text("attempt,loss,mine,step\n1,3.0,,1\n,,0.5,0\n2,2.5,,2\n")
    assert {name: list(column.values) for name, column in read_metrics(tmp_path).items()} == {
        "attempt": [1.0, 2.0], "loss": [3.0, 2.5], "step": [1.0, 2.0],
    }  # fmt: skip
    file.write_text("loss,mine\n3.0,1.0\n")
    with pytest.raises(ValueError, match=r"metrics\.csv:2: attempt=None must be a whole number"):
        read_metrics(tmp_path)

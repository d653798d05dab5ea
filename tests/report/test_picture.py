"""The picture of a run tells what was kept from what was given up."""

import math
from pathlib import Path

import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from mulligan.report.curve import Curve
from mulligan.report.picture import GIVEN_UP, KEPT, draw_curve, draw_run, draw_stretches, note_rows, with_spikes
from mulligan.stability.ledger import Ledger

REWIND = {"kind": "rewind", "attempt": 11, "step": 11, "target": 8, "onset": 9, "trigger": "loss"}


def test_lines_hold_their_attempts() -> None:
    axes = Figure().subplots()
    draw_curve(axes, Curve(list(range(1, 15)), [float(number) for number in range(1, 15)], None), [REWIND])
    drawn = [(to_hex(line.get_color()), list(line.get_xdata())) for line in axes.lines[:3]]
    assert drawn == [(KEPT, list(range(1, 9))), (GIVEN_UP, [8, 9, 10, 11]), (KEPT, [12, 13, 14])]
    assert [text.get_text() for text in axes.texts] == ["back to step 8\n(loss, from step 9 on)"]


def test_a_stretch_of_one_attempt_is_seen() -> None:
    axes = Figure().subplots()
    draw_curve(axes, Curve([*range(1, 9), 12], [3.0] * 9, None), [REWIND])
    assert [(list(line.get_xdata()), line.get_marker()) for line in axes.lines[:3:2]] == [
        (list(range(1, 9)), "None"), ([12], "o")
    ]  # fmt: skip


def test_of_a_long_stretch_what_left_the_kept_line_has_no_mark_of_its_own() -> None:
    figure = Figure()
    axes, rewind = figure.subplots(), REWIND | {"step": 9000, "attempt": 9000, "target": 4000}
    draw_stretches(axes, range(1, 9001), [3.0 + math.sin(at) for at in range(9000)], [rewind], marker="o")
    kept, given_up = axes.lines
    assert all(1900 < len(line.get_xdata()) < 2100 for line in axes.lines)
    assert [line.get_markevery()[0] for line in (kept, given_up)] == [0, 1]
    figure.draw_without_rendering()


def test_a_rise_that_the_log_has_not_is_drawn_from_the_ledger() -> None:
    """Logged every 5 steps: what came behind step 5 was dropped by the rewind in attempt 12."""
    values = [[7, 3.0, 1.0], [8, 3.2, 1.0], [9, 8.0, 1.0], [10, None, None]]
    rewind = REWIND | {"step": 10, "attempt": 12, "values": values}
    curve = with_spikes(Curve([5, 10, 17], [3.0, 3.1, 2.9], None), [{"kind": "withheld", "attempt": 3}, rewind])
    assert curve.steps == [5, 10, 11, 12, 17], "from right before the onset on"
    assert curve.losses[:3] == [3.0, 3.1, 8.0], "what was logged stays"
    assert math.isnan(curve.losses[3])
    logged = Curve([10, 11, 12], [3.0, 4.0, 5.0], None)
    assert with_spikes(logged, [rewind]) == logged, "the log comes first"


def test_a_run_is_drawn_from_its_folder(tmp_path: Path) -> None:
    (tmp_path / "metrics/version_0").mkdir(parents=True)
    (tmp_path / "metrics/version_0/metrics.csv").write_text("attempt,cross_entropy,step\n1,3.0,1\n2,2.5,2\n")
    Ledger(tmp_path / "ledger.jsonl").append(**REWIND)
    draw_run(tmp_path, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="or a run's folder"):
        draw_run(tmp_path / "metrics/none", tmp_path / "curve.png")


def test_notes_lie_over_none_and_the_latest_are_shown() -> None:
    assert note_rows([0.1, 0.4, 0.9]) == [0, 0, 0]
    assert note_rows([0.3, 0.31, 0.32, 0.33]) == [None, 2, 1, 0]
    assert note_rows([0.7, 0.85]) == [1, 0], "one to the right of its line, the other to the left"
    assert note_rows([]) == []

"""What is read from a run's folder, whatever state the run is in."""

import errno
import fcntl
from pathlib import Path

import pytest

from mulligan.files import exclusive
from mulligan.report.run_files import RunFiles, json_lines
from tests.report.conftest import CLOSING, REWIND, MakeRun, logged, points


def test_a_healed_run(healed: RunFiles) -> None:
    assert healed.is_finished
    assert (healed.step, healed.num_attempts) == (12, 15)
    kept = healed.kept("cross_entropy")
    assert kept.attempts.tolist() == list(range(1, 13)), "by step, without what was given up"
    assert kept.values == pytest.approx([3.9, 3.8, 3.7, 3.6, 3.5, 3.4, 3.3, 3.2, 3.0, 3.0, 3.0, 3.0])
    assert healed.kept("cross_entropy", per_step=32).attempts.tolist() == [32 * step for step in range(1, 13)]


def test_an_empty_folder(made_run: MakeRun) -> None:
    run = made_run()
    assert (run.step, run.num_attempts, run.metrics) == (0, 0, {})
    assert not run.is_finished
    assert not run.is_halted
    assert run.without_curves is not None
    assert "logger=csv" in run.without_curves


def test_without_metrics_the_checkpoint_says_the_step(made_run: MakeRun) -> None:
    assert made_run(newest_checkpoint=7).step == 7


def test_a_last_line_that_a_kill_cut_off_is_left_out(made_run: MakeRun, tmp_path: Path) -> None:
    made_run([logged(1, 1, 4.0)])
    with (tmp_path / "made/metrics/version_0/metrics.csv").open("a") as file:
        file.write("2,2")
    assert points(made_run().metrics["cross_entropy"]) == [(1, 4.0)]


def test_a_cut_line_leaves_out_the_curves_and_says_where(made_run: MakeRun, tmp_path: Path) -> None:
    made_run([logged(1, 1, 4.0)])
    with (tmp_path / "made/metrics/version_0/metrics.csv").open("a") as file:
        file.write("2,2\n")
    run = made_run()
    assert run.metrics == {}
    assert run.without_curves is not None
    assert "metrics.csv:3: 2 cells where the header has" in run.without_curves


def test_several_starts_and_the_end_still_to_come(made_run: MakeRun) -> None:
    run = made_run([logged(1, 1, 4.0), logged(2, 2, 3.5)], [logged(2, 2, 3.4), logged(3, 3, 3.0)])
    assert (run.step, run.is_finished) == (3, False)
    assert points(run.metrics["cross_entropy"]) == [(1, 4.0), (2, 3.4), (3, 3.0)]


def test_a_summary_of_an_earlier_end_does_not_finish_a_longer_run(made_run: MakeRun) -> None:
    run = made_run([logged(10, 10, 3.0)], summary=CLOSING | {"step": 9})
    assert (run.step, run.is_finished) == (10, False)


def test_halted_until_it_goes_on(made_run: MakeRun) -> None:
    rows = [logged(step, step, 4.0) for step in range(1, 11)]
    run = made_run(rows, ledger=[("halt", REWIND)])
    assert (run.is_halted, run.step, run.num_attempts) == (True, 8, 11)
    assert not made_run(rows, [logged(12, 9, 4.0)]).is_halted


def test_of_a_run_that_was_halted_at_its_start_nothing_is_kept(made_run: MakeRun) -> None:
    run = made_run([logged(step, step, 4.0) for step in range(1, 12)], ledger=[("halt", REWIND | {"target": 0})])
    assert points(run.kept("cross_entropy")) == []
    assert run.newest_kept("cross_entropy") is None


def test_whether_a_run_is_at_work_is_no_error_where_it_cannot_be_told(
    made_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_run()
    with exclusive(tmp_path / "made/.lock"):
        assert made_run().is_at_work
    assert not made_run().is_at_work

    def without_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", without_locks)
    assert not made_run().is_at_work


def test_json_lines_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    assert json_lines(path) == []
    path.write_text('{"step": 1}\n{"step": 2}\n{"ste')
    assert json_lines(path) == [{"step": 1}, {"step": 2}]
    path.write_text('{"step": 1}\nx\n')
    with pytest.raises(ValueError, match=r"samples.jsonl:2: not whole JSON"):
        json_lines(path)
    path.write_text("[1]\n")
    with pytest.raises(ValueError, match=r"samples.jsonl:1: \[1\] must be a JSON object"):
        json_lines(path)

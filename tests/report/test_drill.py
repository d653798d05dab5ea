"""From made-up ledgers and losses to the rows of a drill."""

import math
from pathlib import Path
from typing import Any

import pytest

from mulligan.report.drill import Outcome, outcome_of, summary_of
from mulligan.stability.ledger import Ledger


def ledger(folder: Path, *entries: dict[str, Any]) -> Ledger:
    made = Ledger(folder / "ledger.jsonl")
    for entry in entries:
        made.append(**entry)
    return made


def act(kind: str, judged: int, lost: int = 0, **content: int) -> dict[str, Any]:
    """Judged one step late, when ``lost`` steps had been lost before."""
    return {"kind": kind, "judged_step": judged, "step": judged + 1, "attempt": judged + 1 + lost} | content


def judged(made: Ledger, began: int | None, loss: float | None = 4.0) -> Outcome:
    return outcome_of(made, began=began, tokens_per_step=1000, loss=loss, clean_loss=3.2)


def test_the_first_act_since_the_fault_gives_the_delay_and_rewinds_cost_tokens(tmp_path: Path) -> None:
    outcome = judged(ledger(tmp_path, act("withheld", 202), act("rewind", 205, target=100)), 200)
    assert outcome == Outcome(200, 2, ["withheld", "rewind"], 0, 106_000, 4.0, pytest.approx(25.0))


def test_acts_before_the_fault_are_false_alarms_and_steps_are_counted_as_tried(tmp_path: Path) -> None:
    """The fault of attempt 200 comes in step 139 after a rewind that gave 61 steps up."""
    outcome = judged(ledger(tmp_path, act("rewind", 110, target=50), act("rewind", 142, lost=61, target=100)), 200)
    assert (outcome.delay, outcome.answers, outcome.false_alarms) == (3, ["rewind"], 1)
    assert outcome.tokens_lost == (61 + 43) * 1000


def test_without_a_fault_every_act_is_a_false_alarm(tmp_path: Path) -> None:
    outcome = judged(ledger(tmp_path, act("withheld", 60), act("withheld", 300)), None)
    assert (outcome.delay, outcome.answers, outcome.false_alarms) == (None, [], 2)


def test_nothing_done_a_halt_and_no_number(tmp_path: Path) -> None:
    assert judged(ledger(tmp_path / "none"), 200)[1:5] == (None, [], 0, 0)
    halted = judged(ledger(tmp_path / "halt", act("halt", 200, target=150)), 200, loss=None)
    assert (halted.delay, halted.answers, halted.loss, halted.excess_percent) == (0, ["halt"], None, None)
    assert judged(ledger(tmp_path / "none"), 200, loss=math.nan).excess_percent is None


def test_an_answer_is_a_kind_and_how_often() -> None:
    assert summary_of([]) == "-"
    assert summary_of(["withheld", "withheld", "rewind", "halt"]) == "withheld x2, rewind, halt"

"""What is made of a step's numbers, with all that went before."""

import random
from pathlib import Path
from typing import Any

import torch

from mulligan.stability.detector import Detector
from mulligan.stability.ledger import Ledger
from mulligan.stability.policy import Done, Halt, Policy, Rewind
from mulligan.training.judging import Judge, Verdict
from mulligan.training.step_sums import StepValues

CUT: dict[str, Any] = {
    "step": 210, "judged_step": 209, "onset": 205, "target": 200, "skip": [800, 1600], "skip_steps": 100, "level": 2,
    "rate_factor": 0.5, "rate_steps": 300,
}  # fmt: skip


def judge_of(folder: Path, *, lines: int) -> Judge:
    ledger = Ledger(folder / "ledger.jsonl")
    for _ in range(lines):
        ledger.append("rewind", **CUT)
    return Judge(detector=Detector(), policy=Policy(), ledger=ledger, regime="")


def verdicts(judge: Judge, steps: range, level: float) -> list[Verdict]:
    rng = random.Random(steps.start)
    numbers = ((step, level + rng.gauss(0.0, 0.05)) for step in steps)
    return [judge.verdict(StepValues(step, torch.tensor([loss, 1.0, 1.0, 0.0]))) for step, loss in numbers]


def test_where_a_cut_of_the_rate_ends_a_spike_is_seen(tmp_path: Path) -> None:
    """The cut ends at step 500. The rate that comes back is what a spike comes back with."""
    judge = judge_of(tmp_path, lines=1)
    verdicts(judge, range(200, 505), 2.5)
    assert any(verdict.is_spike for verdict in verdicts(judge, range(505, 510), 4.5))


def test_where_a_cut_of_the_rate_ends_the_loss_may_settle_higher(tmp_path: Path) -> None:
    judge = judge_of(tmp_path, lines=1)
    verdicts(judge, range(200, 501), 2.5)
    assert not any(verdict.is_spike for verdict in verdicts(judge, range(501, 1000), 2.72))


def test_a_rewind_that_would_lose_too_much_is_none(tmp_path: Path) -> None:
    judge = judge_of(tmp_path, lines=0)
    assert isinstance(judge.decision(20_000, 20_004, lambda latest: latest - 10)[0], Rewind)
    asked: list[int] = []
    decision, target = judge.decision(20_000, 20_004, lambda latest: asked.append(latest) or 0)
    assert isinstance(decision, Halt)
    assert (asked, target) == ([19_900, 19_998], 0)


def test_an_older_detectors_state_begins_a_window(tmp_path: Path) -> None:
    judge = judge_of(tmp_path, lines=0)
    verdicts(judge, range(200), 2.5)
    state = judge.state_dict()
    del state["detector"]["waiting"]
    judge.load_state_dict(state)
    assert judge.detector.state_dict() == Detector().state_dict()


def test_what_the_policy_looks_back_on(tmp_path: Path) -> None:
    assert judge_of(tmp_path, lines=1).ledger.history == [Done(205, 210, 200, 100, 2, rate_until=500)]

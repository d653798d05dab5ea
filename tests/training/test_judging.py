"""What is made of a step's numbers, with all that went before."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from mulligan.stability.detector import Detector
from mulligan.stability.ledger import Ledger
from mulligan.stability.policy import Done, Halt, Policy, Rewind
from mulligan.training.clipping import WITHHELD
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


def values_of(step: int, loss: float, left_out: float = 0.0) -> StepValues:
    return StepValues(step, torch.tensor([loss, 1.0, 1.0, left_out]))


def verdicts(judge: Judge, steps: range, level: float, noise: float = 0.05) -> list[Verdict]:
    rng = random.Random(steps.start)
    return [judge.verdict(values_of(step, level + rng.gauss(0.0, noise))) for step in steps]


def test_each_step_is_judged_once_and_the_last_at_once(tmp_path: Path) -> None:
    judge, steps = judge_of(tmp_path, lines=0), [values_of(step, 2.5) for step in range(4)]
    due = [judge.due(values, is_last=values is steps[2]) for values in steps]
    assert due == [[], [steps[0]], [steps[1], steps[2]], []]


def test_bad_gradients_within_a_rise_are_a_spike_from_its_onset_on(tmp_path: Path) -> None:
    judge = judge_of(tmp_path, lines=0)
    judge.policy = Policy(max_withheld=0)
    verdicts(judge, range(200), 2.5)
    assert judge.verdict(values_of(200, 3.5)).judgement.onset == 200
    judgement = judge.verdict(values_of(201, 3.5, WITHHELD)).judgement
    assert (judgement.onset, judgement.triggered) == (200, "gradient")


def test_where_a_cut_of_the_rate_ends_a_spike_is_seen(tmp_path: Path) -> None:
    """The cut ends at step 500. The rate that comes back is what a spike comes back with."""
    judge = judge_of(tmp_path, lines=1)
    verdicts(judge, range(200, 505), 2.5)
    assert any(verdict.is_spike for verdict in verdicts(judge, range(505, 510), 4.5))


def test_the_first_step_behind_a_cut_of_the_rate_is_judged_with_twice_the_slack(tmp_path: Path) -> None:
    """Step 500 was still made with the rate that was cut."""
    judge = judge_of(tmp_path, lines=1)
    verdicts(judge, range(200, 499), 2.5, noise=0.0)
    limits = [verdict.judgement.limit for verdict in verdicts(judge, range(499, 503), 2.5, noise=0.0)]
    assert limits == pytest.approx([2.65, 2.65, 2.8, 2.8])


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


def test_a_state_that_comes_back_has_what_was_told_and_nothing_of_steps_given_up(tmp_path: Path) -> None:
    judge = judge_of(tmp_path, lines=0)
    judge.told_onset = 90
    state = judge.host_state()
    verdicts(judge, range(200), 2.5)
    judge.told_onset = 150
    judge.load_host_state(state)
    assert (judge.latest, judge.band, judge.told_onset, list(judge.recent)) == (None, {}, 90, [])


def test_what_the_policy_looks_back_on(tmp_path: Path) -> None:
    assert judge_of(tmp_path, lines=1).ledger.history == [Done(205, 210, 200, 100, 2, rate_until=500)]

"""The guard's other answers: an update left out, a halt, and what it may be combined with."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.errors import InstantiationException

from mulligan.report.metrics import read_metrics
from mulligan.stability.ledger import Ledger
from mulligan.training.checkpoints import load_checkpoint
from mulligan.training.clipping import Clipping
from mulligan.training.faults import ScaledGradient
from tests.training.conftest import MakeRun, run_program, silent
from tests.training.test_resume import assert_same
from tests.training.test_rewind import LAST, SPOIL, WATCHED, sure_at


def test_what_snapshots_do_not_hold_is_no_rewind_in_place(make_run: MakeRun) -> None:
    averaging = "+callbacks.ema._target_=lightning.pytorch.callbacks.EMAWeightAveraging"
    with pytest.raises(InstantiationException, match=r"callbacks\.ema \(EMAWeightAveraging\) keeps a state, .*=refit"):
        make_run(averaging)
    make_run(averaging, "stability.way=watch")


@pytest.mark.parametrize(("withhold", "limit"), [(True, math.inf), (False, None)])
def test_gradients_have_a_limit_where_the_policy_withholds_updates(
    make_run: MakeRun, withhold: bool, limit: float | None
) -> None:
    trainer: Any = SimpleNamespace()
    module = SimpleNamespace(clipping=Clipping(1.0))
    make_run(f"stability.policy.withhold={withhold}").guard.on_before_optimizer_step(trainer, module, None)
    assert module.clipping.limit == limit


def test_a_lone_bad_gradient_moves_nothing(tiny: tuple[str, ...], tmp_path: Path) -> None:
    """Both ranks leave the update out: weights and moments after step 10 are those before it."""
    overrides = (*tiny, *WATCHED, "trainer=cpu_ddp", "checkpoint.every_n_steps=1", "checkpoint.keep_last=20")
    said = run_program(tmp_path, str(SPOIL), "1", "10", *overrides, "name=spoilt")
    assert "step 10: gradient norm nan, not finite: its update is left out" in said
    (entry,) = Ledger(tmp_path / "runs/spoilt/ledger.jsonl").entries
    assert (entry["kind"], entry["judged_step"], entry["gradient_norm"]) == ("withheld", 10, None)
    before, after, last = (
        load_checkpoint(tmp_path / f"runs/spoilt/checkpoints/step_{step:08d}.ckpt") for step in (9, 10, 14)
    )
    assert_same(before["state_dict"], after["state_dict"])
    assert_same(before["optimizer_states"][0]["state"], after["optimizer_states"][0]["state"])
    assert not last["state_dict"]["model.embedding.weight"].equal(after["state_dict"]["model.embedding.weight"])
    assert all(tensor.isfinite().all() for tensor in last["state_dict"].values())


def test_more_bad_gradients_than_are_tolerated_are_a_spike(make_run: MakeRun) -> None:
    """Their losses are as ever: without an answer the run would stand still and nobody would know."""
    run = make_run(*WATCHED, "stability.detector.window=8")
    run.callbacks.append(ScaledGradient(at_step=7, num_steps=6, factor=1e5))
    run.train(silent, silent)
    entries = Ledger(Path("runs/default/ledger.jsonl")).entries
    assert [(entry["kind"], entry["judged_step"]) for entry in entries] == [
        ("withheld", 7), ("withheld", 8), ("rewind", 9)
    ]  # fmt: skip
    assert (entries[-1]["trigger"], entries[-1]["onset"], entries[-1]["target"]) == ("gradient", 9, 6)
    logged = read_metrics(Path("runs/default"))
    assert list(logged["interventions"].values) == [1.0, 2.0, 3.0]
    assert list(logged["judged_loss"].values) == [entry["loss"] for entry in entries]
    assert list(logged["judged_gradient_norm"].values) == [entry["gradient_norm"] for entry in entries]


def test_the_last_step_is_judged_too(make_run: MakeRun) -> None:
    run = make_run(*WATCHED, "stability.policy.max_withheld=0")
    run.callbacks.append(ScaledGradient(at_step=14, factor=math.nan))
    module = run.train(silent, silent)
    (entry,) = Ledger(Path("runs/default/ledger.jsonl")).entries
    assert (entry["kind"], entry["judged_step"], entry["step"], entry["target"]) == ("rewind", 14, 14, 12)
    assert (run.trainer.global_step, module.attempt) == (14, 16)
    assert load_checkpoint(Path(f"runs/default/{LAST}"))["mulligan"]["attempt"] == 16


def test_a_second_rewind_counts_the_steps_that_the_first_has_lost(make_run: MakeRun) -> None:
    run = make_run(*WATCHED)
    sure_at(run, onset=9, step=10)
    sure_at(run, onset=12, step=13)
    run.train(silent, silent)
    entries = Ledger(Path("runs/default/ledger.jsonl")).entries
    assert [(entry["step"], entry["target"], entry["attempt"]) for entry in entries] == [(11, 6, 11), (14, 8, 14 + 5)]


def test_a_watching_guard_records_every_update_that_is_left_out(make_run: MakeRun) -> None:
    run = make_run(*WATCHED, "stability.detector.window=8", "stability.way=watch")
    run.callbacks.append(ScaledGradient(at_step=7, num_steps=4, factor=1e5))
    said: list[str] = []
    run.train(silent, said.append)
    entries = Ledger(Path("runs/default/ledger.jsonl")).entries
    assert [(entry["kind"], entry["judged_step"]) for entry in entries] == [("withheld", step) for step in range(7, 11)]
    assert any("spike (gradient, from step 9 on" in line and "watch goes on" in line for line in said)


def test_a_cut_of_the_rate_lasts_beyond_the_place_of_the_spike(make_run: MakeRun) -> None:
    run = make_run(*WATCHED, "stability.policy.cut_rate_at_level=0", "stability.policy.rate_steps=3")
    sure_at(run, onset=9, step=10)
    run.train(silent, silent)
    ledger = Ledger(Path("runs/default/ledger.jsonl"))
    assert ledger.entries[0]["target"] == 6
    assert [ledger.rate_factor(step) for step in (5, 6, 11, 12)] == [1.0, 0.5, 0.5, 1.0]


def test_a_rise_too_late_to_be_sure_of_is_told(make_run: MakeRun) -> None:
    run = make_run(*WATCHED)
    observe = run.guard.detector.observe
    run.guard.detector.observe = lambda step, loss, norm: observe(step, loss, norm)._replace(
        onset=13 if step >= 13 else None
    )
    said: list[str] = []
    run.train(silent, said.append)
    assert [line for line in said if line.startswith("the loss rises from step 13 on")]


def test_a_rise_that_stays_is_told_and_then_taken_for_normal(make_run: MakeRun) -> None:
    options = (
        "stability.way=watch",
        "stability.detector.window=8",
        "stability.detector.warmup_steps=0",
        "max_steps=40",
    )
    run = make_run(*WATCHED, *options)
    observe = run.guard.detector.observe
    run.guard.detector.observe = lambda step, loss, norm: observe(step, loss + 9.0 * (step >= 8) * step // 8, norm)
    said: list[str] = []
    run.train(silent, said.append)
    assert [line for line in said if "stayed up since step 8" in line]
    assert sum("watch goes on" in line for line in said) > 1, "and what comes after it is told too"


def test_a_rise_is_not_told_again_by_a_resume(make_run: MakeRun) -> None:
    options = ("stability.way=watch", "stability.detector.window=16", "stability.detector.warmup_steps=0")
    said: list[str] = []
    for steps in (12, 14):
        run = make_run(*WATCHED, *options, f"max_steps={steps}", "schedule=constant", "schedule.warmup=0")
        observe = run.guard.detector.observe
        run.guard.detector.observe = lambda step, loss, norm, judge=observe: judge(step, loss + 9.0 * (step > 8), norm)
        run.train(silent, said.append)
    assert sum("watch goes on" in line for line in said) == 1


def test_halting_saves_the_last_good_state_and_ends_with_one_message(make_run: MakeRun) -> None:
    """The state of step 8 has the loss that rose. The file of step 6 is that of a run which nothing happened to."""
    run = make_run(*WATCHED, "stability.policy.rewind=false")
    sure_at(run, onset=9, step=10)
    said: list[str] = []
    with pytest.raises(ValueError, match=r"halted at step 11, .* from step 9 on: .*; the state of step 6 is saved"):
        run.train(silent, said.append)
    assert any("spike (loss, from step 9 on" in line and line.endswith("the run is halted") for line in said)
    make_run(*WATCHED, "name=whole").train(silent, silent)
    kept, wanted = (
        load_checkpoint(Path(f"runs/{name}/checkpoints/step_00000006.ckpt")) for name in ("default", "whole")
    )
    assert_same(kept, wanted)
    assert not list(Path("runs/default/checkpoints").glob("step_*8.ckpt"))
    assert not list(Path("runs/default/checkpoints").glob("step_*10.ckpt"))
    (entry,) = Ledger(Path("runs/default/ledger.jsonl")).entries
    assert (entry["kind"], entry["target"]) == ("halt", 6)


def test_halting_at_once_leaves_the_checkpoints(make_run: MakeRun) -> None:
    """The only good state is the start, which needs none."""
    run = make_run(*WATCHED, "stability.policy.rewind=false")
    sure_at(run, onset=2, step=4)
    with pytest.raises(ValueError, match=r"halted at step 5, .*; no good one is left, and the checkpoints stay"):
        run.train(silent, silent)
    assert sorted(path.stem for path in Path("runs/default/checkpoints").glob("*.ckpt")) == [
        "step_00000002", "step_00000004",
    ]  # fmt: skip
    (entry,) = Ledger(Path("runs/default/ledger.jsonl")).entries
    assert (entry["kind"], entry["target"], entry["tokens_lost"]) == ("halt", 5, 0)
    make_run(*WATCHED).train(silent, silent)  # goes on

"""PaLM's experiment: which batches each arm sees from which state, and what the outcomes say."""

from pathlib import Path
from typing import Any

import pytest

from mulligan.cli.counterfactual import micro_batch_of
from mulligan.cli.record import write_record
from mulligan.cli.saved_run import SavedRun
from mulligan.data.sequencer import Sequencer
from mulligan.files import read_json
from mulligan.stability.ledger import Ledger
from mulligan.training.checkpoints import Checkpoint
from mulligan.training.counterfactual import SETTLING_STEPS, Arm, Outcome, arms, verdict
from tests.conftest import Cli
from tests.training.conftest import Compose, MakeRun, silent

BATCH = 4
GARBAGE = (
    "+callbacks.fault._target_=mulligan.training.faults.GarbageData", "+callbacks.fault.at_step=60",
    "+callbacks.fault.num_steps=3",
)  # fmt: skip
GUARDED = (
    "max_steps=70", "checkpoint.every_n_steps=10", "checkpoint.keep_last=9", "optimizer.lr=1e-2",
    "stability.detector.window=32", "stability.detector.warmup_steps=10", "stability.snapshots.every_n_steps=10",
    "stability.policy.depth_steps=10", "stability.policy.skip_steps=20", "stability.policy.withhold=false",
)  # fmt: skip


def checkpoint(step: int) -> Checkpoint:
    return Checkpoint(Path(f"step_{step}.ckpt"), step, {}, milestone=False, ledger_lines=0)


def seen(arm: Arm, sequencer: Sequencer) -> list[int]:
    """The global batches of the updates in question, as numbers that a run without skips gives them."""
    sequencer.leave_out([] if arm.skip is None else [arm.skip])
    return [sequencer.first_sample(update - 1, BATCH) // BATCH for update in range(arm.first, arm.last + 1)]


def test_arms_see_the_batches_they_name() -> None:
    """Updates 101 to 104 are in question; the run left out the batches up to 120."""
    sequencer = Sequencer(source_sizes=[10_000], seed=0)
    for far, other in ((checkpoint(50), 50), (None, 90)):
        found = arms(range(101, 105), 120 * BATCH, sequencer, BATCH, checkpoint(90), far)
        same, others, elsewhere = (seen(arm, Sequencer(source_sizes=[10_000], seed=0)) for arm in found)
        assert same[:4] == elsewhere[:4] == [100, 101, 102, 103]
        assert others[:4] == [120, 121, 122, 123]
        assert [len(batches) for batches in (same, others, elsewhere)] == [4 + SETTLING_STEPS] * 3
        assert [(arm.start.step, arm.first) for arm in found] == [(90, 101), (90, 101), (other, other + 1)]


def test_without_another_state_there_are_two_arms() -> None:
    sequencer = Sequencer(source_sizes=[10_000], seed=0)
    assert len(arms(range(91, 95), 0, sequencer, BATCH, checkpoint(90), None)) == 2


@pytest.mark.parametrize(
    ("spiked", "said"),
    [
        ((True, False, True), "the data"),
        ((True, True, False), "the state: "),
        ((True, False, False), "only the two together"),
        ((True, True, True), "the state and the batches, each"),
        ((False, False, False), "it does not come again"),
        ((True, False), "the batches, or they and this state"),
        ((True, True), "the state, whatever"),
    ],
)
def test_the_verdict_follows_from_what_spiked(spiked: tuple[bool, ...], said: str) -> None:
    names = (("the same", "the same"), ("others", "the same"), ("the same", "another"))
    outcomes = [
        Outcome(Arm(*name, checkpoint(0), None, 1, 2), 0.0, one) for name, one in zip(names, spiked, strict=False)
    ]
    assert verdict(outcomes).startswith(said)


# A detector that hears of the garbage by gradients alone.
BY_GRADIENTS = (
    "stability.policy.withhold=true", "stability.policy.max_withheld=1", "stability.detector.norm_ratio=3",
    "stability.detector.patience=50",
)  # fmt: skip
NOISE = (
    "+callbacks.fault._target_=mulligan.training.faults.NoisyWeights", "+callbacks.fault.at_step=60",
    "+callbacks.fault.size=3.0",
)  # fmt: skip


@pytest.mark.parametrize("detected", [(), BY_GRADIENTS])
def test_garbage_is_found_to_be_the_data(
    make_run: MakeRun, composed: Compose, here: Cli, detected: tuple[str, ...]
) -> None:
    settings = (*GUARDED, *detected, *GARBAGE)
    run = make_run(*settings)
    run.train(silent, silent, lambda: write_record(run.folder, composed(*settings)))
    rewinds = Ledger(run.folder / "ledger.jsonl").rewinds
    (number,) = [entry["number"] for entry in rewinds if entry["onset"] <= 61 < entry["step"]]
    assert rewinds[0]["trigger"] == ("gradient" if detected else "loss")
    options = ("run=runs/default", f"intervention={number}", "test=counterfactual", "output=found.json")
    done = here("inspect", *options)
    assert done.returncode == 0, done.stderr
    assert "verdict: the data: these batches spike from another state too" in done.stdout
    found = read_json(Path("found.json"))["counterfactual"]
    assert [arm["spiked"] for arm in found["arms"]] == [True, False, True]
    assert found["arms"][1]["highest_rise"] < 1.0 < found["arms"][0]["highest_rise"]


def test_a_fault_of_the_machine_does_not_come_again(make_run: MakeRun, composed: Compose, here: Cli) -> None:
    run = make_run(*GUARDED, *NOISE)
    run.train(silent, silent, lambda: write_record(run.folder, composed(*GUARDED, *NOISE)))
    number = Ledger(run.folder / "ledger.jsonl").rewinds[0]["number"]
    done = here("inspect", "run=runs/default", f"intervention={number}", "test=counterfactual")
    assert done.returncode == 0, done.stderr
    assert "verdict: it does not come again from this state" in done.stdout


@pytest.mark.parametrize(
    ("micro_batch", "strategy", "held"),
    [(None, "auto", 2), (None, {"tensor_parallel_size": 2}, 4), (1, "auto", 1)],
)
def test_it_holds_as_many_samples_at_once_as_a_rank_did(
    micro_batch: int | None, strategy: Any, held: int, composed: Compose
) -> None:
    folder, content = Path("runs/default"), composed("global_batch_samples=8", f"micro_batch={micro_batch or 'null'}")
    folder.mkdir(parents=True)
    write_record(folder, content | {"trainer": content["trainer"] | {"strategy": strategy}})
    (folder / "provenance.jsonl").write_text('{"world_size": 2}\n{"world_size": 4}\n')
    assert micro_batch_of(SavedRun(folder)) == held

"""Was it the batches, the state, or only the two together? PaLM's own experiment on a spike (Chowdhery et al. 2022,
section 5.1: the batches around a spike, trained on from another checkpoint, made none).
"""

import math
from pathlib import Path
from typing import NamedTuple

from lightning.pytorch import Callback

from mulligan.data.sequencer import Sequencer
from mulligan.stability.ledger import Ledger
from mulligan.training.callbacks.console import ConsoleProgress
from mulligan.training.checkpoint_io import AtomicCheckpointIO
from mulligan.training.checkpoints import Checkpoint
from mulligan.training.faults import Fault
from mulligan.training.judging import Verdict
from mulligan.training.replay import StopAfter
from mulligan.training.run import TrainingRun

SETTLING_STEPS = 8  # judged behind the batches in question: damage shows a little later


class Arm(NamedTuple):
    """``skip`` is left out behind the state of ``start``; the updates ``first`` to ``last`` are judged."""

    batches: str
    state: str
    start: Checkpoint
    skip: tuple[int, int] | None
    first: int
    last: int


class Outcome(NamedTuple):
    """``rise``: the highest loss over the detector's centre, nats; None where the arm could not be tried."""

    arm: Arm
    rise: float
    spiked: bool


def arms(
    updates: range,
    skipped: int,
    sequencer: Sequencer,
    global_batch: int,
    near: Checkpoint,
    far: Checkpoint | None,
) -> list[Arm]:
    """The three experiments on ``updates``, 1-based, from states on the lineage of then.

    Other batches lie behind the sample index ``skipped`` too, up to which the run left them out. ``near`` is the newest
    state before the updates; ``far`` an older one. Without that, another state is ``near`` itself without the batches
    between, if there are any.
    """
    first, last = updates[0], updates[-1]
    before, begin, end = (sequencer.first_sample(step, global_batch) for step in (near.step, first - 1, last))
    until = last + SETTLING_STEPS
    found = [
        Arm("the same", "the same", near, None, first, until),
        Arm("others", "the same", near, (begin, max(end, skipped)), first, until),
    ]
    other = near if far is None else far
    if other.step < first - 1:
        gap = (before if far is None else sequencer.first_sample(far.step, global_batch), begin)
        found.append(Arm("the same", "another", other, gap, other.step + 1, other.step + 1 + until - first))
    return found


def write_start(arm: Arm, ledger: Ledger, folder: Path) -> None:
    """Put into ``folder`` what a run begins the arm from: the state, the lines of ``ledger``, and the arm's skip."""
    (folder / "checkpoints").mkdir()
    for path in (arm.start.path, arm.start.path.with_suffix(".json")):
        (folder / "checkpoints" / path.name).symlink_to(path.resolve())
    path = folder / "ledger.jsonl"
    path.write_text("".join(f"{line}\n" for line in ledger.lines))
    if arm.skip is not None:
        step = arm.first - 1 if arm.state == "the same" else arm.start.step
        unused = {"attempt": step, "onset": step, "level": 0, "skip_steps": 0, "rate_factor": 1.0, "rate_steps": 0}
        Ledger(path).append("rewind", step=step, target=step, skip=list(arm.skip), **unused)


def try_out(arm: Arm, run: TrainingRun) -> Outcome:
    """Train ``run``, whose guard only watches, through the arm's updates; nothing is saved."""
    assert run.guard is not None
    verdicts: list[Verdict] = []
    run.guard.look_on = verdicts.append
    run.trainer.strategy.checkpoint_io = DiscardCheckpoints()
    run.callbacks[:] = [one for one in run.callbacks if not isinstance(one, ConsoleProgress) and not _is_over(one)]
    run.callbacks.append(StopAfter(arm.last + 1))  # judged a step late
    run.train(lambda *_: None, lambda _: None)
    judged = [one for one in verdicts if arm.first <= one.judgement.step <= arm.last]
    judgements = [one.judgement for one in judged]
    rises = [one.loss - one.centre if math.isfinite(one.loss) else math.inf for one in judgements]
    known = [rise for rise in rises if not math.isnan(rise)]
    return Outcome(arm, max(known, default=math.nan), any(one.is_spike for one in judged))


def _is_over(callback: Callback) -> bool:
    """A drill's fault that struck the machine, not the data: it does not strike again."""
    return isinstance(callback, Fault) and callback.undone_by_rewind


def verdict(outcomes: list[Outcome]) -> str:
    """What the experiments say, in one sentence."""
    spiked = {(one.arm.batches, one.arm.state): one.spiked for one in outcomes}
    if not spiked["the same", "the same"]:
        return "it does not come again from this state: the cause lies in neither, a fault of the machine perhaps"
    without_batches, other_state = spiked["others", "the same"], spiked.get(("the same", "another"))
    if other_state is None:
        return "the state, whatever the batches" if without_batches else "the batches, or they and this state together"
    return {
        (True, True): "the state and the batches, each by itself",
        (True, False): "the state: other batches spike from it too, and these do not from another state",
        (False, True): "the data: these batches spike from another state too, and others do not from this one",
        (False, False): "only the two together: neither these batches elsewhere nor others here spike",
    }[without_batches, other_state]


class DiscardCheckpoints(AtomicCheckpointIO):
    """Reads the state an arm begins with, and writes none."""

    def save_checkpoint(self, checkpoint: object, path: object, storage_options: object = None) -> None:
        """Nothing."""

    def remove_checkpoint(self, path: object) -> None:
        """Nothing."""

"""The guard of a run: has each step judged one step late, and heals what is found.

Every rank sees the same global numbers and so decides alike; rank 0 writes the ledger.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

from lightning.pytorch import Callback, Trainer

from mulligan.data.sequencer import Sequencer
from mulligan.stability.detector import Detector
from mulligan.stability.ledger import Ledger
from mulligan.stability.policy import Halt, Policy, Rewind
from mulligan.stability.snapshots import Snapshots
from mulligan.training.callbacks.checkpoint import SaveCheckpoints
from mulligan.training.interventions import circumstances, described, judged_numbers, tell
from mulligan.training.judging import Judge, Verdict
from mulligan.training.module import PretrainModule
from mulligan.training.reach import Way, check_snapshots
from mulligan.training.restore_points import RestorePoints
from mulligan.training.step_sums import StepValues


class Refit(Exception):
    """Raised on every rank out of fit: begin it again from the newest checkpoint that the ledger leaves."""


class Halted(ValueError):
    """The policy allows nothing more; the last good state is on disk."""


class Guard(Callback):
    def __init__(
        self,
        *,
        detector: Detector,
        policy: Policy,
        snapshots: Snapshots,
        way: Way = "in_place",
    ) -> None:
        """``way``: rewind inside the running fit to a snapshot, or leave fit and begin it again at a checkpoint, or
        only tell.
        """
        check_snapshots(way, policy, snapshots)
        self.detector, self.policy, self.snapshots, self.way = detector, policy, snapshots, way
        self.look_on: Callable[[Verdict], None] = lambda verdict: None  # for experiments
        self._step = self._attempt = -1

    def attach(
        self,
        *,
        ledger: Ledger,
        checkpoint: SaveCheckpoints,
        sequencer: Callable[[], Sequencer],
        global_batch: int,
        sequence_length: int,
        regime: str,
        fingerprints: Callable[[], dict[str, str | None]],
        say: Callable[[str], None],
    ) -> None:
        """Bind to a run: its ledger, checkpoints and order of data, and the console.

        ``regime`` names what losses depend on besides the weights: under another one the detector begins afresh.
        ``fingerprints`` are of what a line of the ledger was written under: the config and the data.
        """
        self.ledger, self.checkpoint, self.sequencer = ledger, checkpoint, sequencer
        self.detector.reset()  # of an earlier fit
        self.judge = Judge(detector=self.detector, policy=self.policy, ledger=ledger, regime=regime)
        in_memory = self.snapshots if self.way == "in_place" else None
        self.points = RestorePoints(snapshots=in_memory, folder=checkpoint.folder, ledger=ledger)
        self.global_batch, self.sequence_length = global_batch, sequence_length
        self.fingerprints, self.say = fingerprints, say

    def check_memory(self, state_bytes: float, ranks_of_host: int | None = None) -> float:
        """Gigabytes of host memory that a rank's snapshots of states of ``state_bytes`` take; ValueError if those are
        too many, or those of ``ranks_of_host`` do not fit into this machine.
        """
        return self.snapshots.check_budget(state_bytes, ranks_of_host) if self.way == "in_place" else 0.0

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._step = trainer.global_step
        self.checkpoint.borrow(trainer, partial(self.points.lend, trainer, pl_module))
        self.points.take(trainer, pl_module, self.judge.host_state)
        if self.way == "refit" and not self.points.on_disk(trainer):
            self.checkpoint.save(trainer, also_the_start=True)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
        self.snapshots.wait()
        pl_module.clipping.limit = self.detector.norm_limit if self.policy.withhold else None

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *args: Any) -> None:
        step = trainer.global_step
        if step == self._step:
            return  # in the middle of an accumulation window
        self._step, self._attempt = step, pl_module.attempt
        for values in self.judge.due(pl_module.take_step_values(step), is_last=step == trainer.max_steps):
            if self._takes_back(trainer, pl_module, values):
                return
        if step == trainer.max_steps:
            self._tell_of_a_late_rise()
        self.points.take(trainer, pl_module, self.judge.host_state)

    def state_dict(self) -> dict[str, Any]:
        return self.judge.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.judge.load_state_dict(state_dict)

    def _takes_back(self, trainer: Trainer, module: PretrainModule, values: StepValues) -> bool:
        """Judge one step, and do what the policy says; True when that went back to an earlier one."""
        verdict = self.judge.verdict(values)
        self.look_on(verdict)
        if verdict.is_spike and self._answers(trainer, module, verdict):
            return True
        if verdict.is_withheld:
            self._record_withheld(trainer, verdict)
        return False

    def _answers(self, trainer: Trainer, module: PretrainModule, verdict: Verdict) -> bool:
        """Do what the policy says to a spike; True when that went back to an earlier step."""
        judgement = verdict.judgement
        assert judgement.onset is not None
        if judgement.onset == self.judge.told_onset:
            if self.detector.has_settled:
                self.detector.settle()
                text = f"the loss has stayed up since step {judgement.onset}: that is normal from here on"
                self._tell(trainer, text, verdict)
            return False
        if self.way == "watch":
            self._leave_alone(trainer, verdict, "stability.way=watch goes on")
            return False
        self.checkpoint.wait(trainer)  # what there is to go back to must not hang on how fast the disk is
        find = partial(self.points.find, trainer, onset=judgement.onset)
        decision, target = self.judge.decision(judgement.onset, trainer.global_step, find)
        line = self._circumstances(trainer, verdict) | {"onset": judgement.onset, "target": target}
        if target is not None:
            line["tokens_lost"] = (trainer.global_step - target) * self.global_batch * self.sequence_length
        if isinstance(decision, Halt):
            self._halt(trainer, module, target, decision.reason, verdict, line)
        if target is None:
            self._leave_alone(trainer, verdict, "there is no state before it")
            return False
        self._rewind(trainer, module, target, decision, verdict, line)
        return True

    def _leave_alone(self, trainer: Trainer, verdict: Verdict, why: str) -> None:
        """Tell of a spike once: while it lasts nothing changes."""
        self._tell(trainer, f"{described(verdict)}; {why}", verdict)
        self.judge.told_onset = verdict.judgement.onset

    def _tell_of_a_late_rise(self) -> None:
        onset = None if self.judge.latest is None else self.judge.latest.onset
        if onset not in (None, self.judge.told_onset):
            self.say(
                f"the loss rises from step {onset} on, and the run ends too soon to be sure of a spike: look at its "
                "held-out loss; mulligan export step= has an earlier state"
            )

    def _record_withheld(self, trainer: Trainer, verdict: Verdict) -> None:
        step, norm = verdict.judgement.step, verdict.gradient_norm
        if step in self.ledger.withheld_steps:
            return  # a start from an earlier checkpoint came by again
        self.ledger.append("withheld", **self._circumstances(trainer, verdict))
        why = f"more than {self.detector.norm_ratio:g} times the median" if math.isfinite(norm) else "not finite"
        self._tell(trainer, f"step {step}: gradient norm {norm:.3g}, {why}: its update is left out", verdict)

    def _halt(
        self,
        trainer: Trainer,
        module: PretrainModule,
        target: int | None,
        reason: str,
        verdict: Verdict,
        line: dict[str, Any],
    ) -> NoReturn:
        """End the run with the last good state on disk; where none is left but the start, with those there are."""
        self.ledger.append("halt", **line if target else line | {"target": trainer.global_step, "tokens_lost": 0})
        self._tell(trainer, f"{described(verdict)}; the run is halted", verdict)
        if target:
            self.checkpoint.abandon_after(trainer, target)
            if self._restored(trainer, module, target):
                self.checkpoint.save(trainer)
                self.checkpoint.wait(trainer)
        kept = f"the state of step {target} is saved" if target else "no good one is left, and the checkpoints stay"
        raise Halted(
            f"halted at step {line['step']}, a spike from step {line['onset']} on: {reason}; {kept}. To go on, allow "
            "more in stability.policy, or change what made it spike, which takes accept_changes=true"
        )

    def _rewind(
        self,
        trainer: Trainer,
        module: PretrainModule,
        target: int,
        decision: Rewind,
        verdict: Verdict,
        line: dict[str, Any],
    ) -> None:
        stop = max(decision.latest_target + decision.skip_steps, trainer.global_step)  # wherever the state lies
        skip = [self.sequencer().first_sample(step, self.global_batch) for step in (target, stop)]
        self.ledger.append(
            "rewind",
            **line,
            skip=skip,
            skip_steps=stop - target,
            level=decision.level,
            rate_factor=decision.rate_factor,
            rate_steps=decision.rate_steps and line["onset"] - target + decision.rate_steps,
        )
        back = f"back to step {target}, without the samples {skip[0]} to {skip[1] - 1}"
        self._tell(trainer, f"{described(verdict)}; {back}", verdict)
        self.checkpoint.abandon_after(trainer, target)
        if self.way == "refit" or not self._restored(trainer, module, target):
            trainer.strategy.barrier()  # until rank 0 has written: every rank reads the ledger and the folder anew
            raise Refit
        if not self.points.on_disk(trainer):
            # In place of those given up: a kill must not cost more than it did before.
            self.checkpoint.save(trainer)
            self.checkpoint.wait(trainer)

    def _restored(self, trainer: Trainer, module: PretrainModule, target: int) -> bool:
        """Put the state of ``target`` back in place, if memory has it."""
        self.sequencer().leave_out(self.ledger.skips)
        host_state = self.points.restore(trainer, module, target)
        if host_state is None:
            return False
        self.judge.load_host_state(host_state)
        self._step = target
        return True

    def _tell(self, trainer: Trainer, text: str, verdict: Verdict) -> None:
        entries, numbers = self.ledger.entries, judged_numbers(verdict)
        tell(trainer, self.say, text, attempt=self._attempt, entries=entries, numbers=numbers)

    def _circumstances(self, trainer: Trainer, verdict: Verdict) -> dict[str, Any]:
        return circumstances(
            verdict.judgement,
            step=trainer.global_step,
            attempt=self._attempt,
            gradient_norm=verdict.gradient_norm,
            recent=self.judge.recent,
            fingerprints=self.fingerprints(),
        )

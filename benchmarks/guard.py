"""What the guard of a run costs while all is well, and what a rewind costs.

    python -m benchmarks.guard [--rounds 3] [--steps 50] [--json PATH]

quiet    a run of 30 million parameters whose guard is there and is not there by turns of --steps steps: reading,
         judging and one snapshot each turn. Turns side by side differ by the machine's noise, several percent on a
         shared one, so the time spent inside the guard is shown as well, and is what the aim is held against.
rewind   the same run, made to rewind from memory once a round: restored weights and moments, the ledger's line, and the
         data loader begun anew, in steps' time.
"""

from contextlib import redirect_stdout
from io import StringIO
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from lightning.pytorch import Callback, Trainer

from benchmarks.bare import NEVER, compose_run
from benchmarks.interleave import Timing, clocks
from benchmarks.report import Report, Row, make_parser
from mulligan.stability.detector import Judgement
from mulligan.training.callbacks.stability import Guard

QUIET_AIM, REWIND_AIM = 0.01, 2.0  # share of a step's time; steps
THIRTY_MILLION = (
    *("model.width=512", "model.num_layers=9", "model.feedforward_width=1408", "global_batch_samples=2"),
    *("precision=32-true", "compile=false", "logger=csv", "tokenizer.sample_bytes=1048576", "validation_samples=8"),
    *(f"validate_every_n_steps={NEVER}", f"checkpoint.every_n_steps={NEVER}", "stability.policy.halt_at_level=1000"),
    *("stability.policy.max_rewinds=1000", "stability.policy.max_lost_share=1000.0", "stability.policy.widen=1.0"),
    "stability.policy.cut_rate_at_level=null",
)  # fmt: skip


class GuardByTurns(Callback):
    """Times blocks of steps with and without the guard, then rewinds. The first callback but the guard itself."""

    def __init__(self, guard: Guard, *, block_steps: int, rounds: int) -> None:
        self.guard, self.block_steps, self.rounds = guard, block_steps, rounds
        self.with_guard, self.without, self.inside, self.rewinds = Timing(), Timing(), Timing(), Timing()
        self._watch, self._observe = guard.on_train_batch_end, guard.detector.observe
        guard.on_train_batch_end = self._end_of_step  # type: ignore[method-assign]  # timed, or left out
        self._in_turn, self._blocks = True, 0

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._since = clocks()

    def _end_of_step(self, trainer: Trainer, module: Any, *args: Any) -> None:
        if self._blocks >= 2 * (self.rounds + 1):
            self._rewind(trainer, module)
            return
        if self._in_turn:
            since = clocks()
            self._watch(trainer, module, *args)
            self.inside.lap(since)
        if trainer.global_step % self.block_steps == 0:
            (self.with_guard if self._in_turn else self.without).lap(self._since)
            self._in_turn, self._blocks, self._since = not self._in_turn, self._blocks + 1, clocks()
            self.guard.policy.withhold = self._in_turn  # the norm's limit belongs to the guard

    def _rewind(self, trainer: Trainer, module: Any) -> None:
        """One step to judge, then a judgement that goes back to the last snapshot."""
        if len(self.rewinds.seconds) == self.rounds:
            trainer.should_stop = True
            return
        last = self.guard.snapshots.steps[-1]
        depth = self.guard.policy.depth_steps

        def sure(step: int, loss: float, norm: float) -> Judgement:
            return self._observe(step, loss, norm)._replace(onset=last + depth, triggered="loss")

        if trainer.global_step > last + 1:
            self.guard.detector.observe = sure  # type: ignore[method-assign]  # stands for a spike
            since = clocks()
            self._watch(trainer, module)
            self.rewinds.lap(since)
            self.guard.detector.observe = self._observe  # type: ignore[method-assign]  # as it was
            assert trainer.global_step == last
        else:
            self._watch(trainer, module)


def main() -> None:
    parser = make_parser(__doc__, rounds=3)
    parser.add_argument("--steps", type=int, default=50, help="steps a turn (default 50: one snapshot)")
    options = parser.parse_args()
    with TemporaryDirectory() as folder, redirect_stdout(StringIO()):  # the console's lines are made, not shown
        steps = options.steps
        run = compose_run(
            folder,
            *THIRTY_MILLION,
            f"max_steps={2 * (options.rounds + 1) * steps + 100 * options.rounds}",
            *(f"log_every_n_steps={steps}", f"stability.snapshots.every_n_steps={steps}"),
            f"stability.policy.depth_steps={steps}",
        )
        assert run.guard is not None
        turns = GuardByTurns(run.guard, block_steps=options.steps, rounds=options.rounds)
        run.callbacks.append(turns)
        run.train(lambda *_: None, lambda _: None)
    report = Report()
    rows: list[Row] = []
    for clock in ("seconds", "cpu_seconds"):
        guarded, bare = (getattr(timing, clock)[1:] for timing in (turns.with_guard, turns.without))  # first: warm-up
        side_by_side = median(mine / other - 1.0 for mine, other in zip(guarded, bare, strict=True))
        inside = sum(getattr(turns.inside, clock)) / sum(getattr(turns.with_guard, clock))
        step = median(bare) / options.steps
        rewind = median(getattr(turns.rewinds, clock))
        row: Row = {"clock": clock, "step s": step, "side by side": side_by_side, "inside the guard": inside}
        rows.append(row | {"rewind s": rewind, "in steps": rewind / step})
        if clock == "seconds":
            report.judge("inside the guard", ours=inside, unit="of a run's time", at_most=QUIET_AIM)
            report.judge("a rewind in place", ours=rewind / step, unit="steps", at_most=REWIND_AIM)
    report.add(
        f"guard: {run.model.num_parameters:,} parameters, {options.rounds} rounds of {options.steps} steps", rows
    )
    report.write(options.json)


if __name__ == "__main__":
    main()

"""What a person sees: a bar on a terminal, else one plain line every N steps."""

import sys
import time
from datetime import timedelta
from typing import Any

from lightning.pytorch import Callback, Trainer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mulligan.training.callbacks.metrics import LogMetrics

SHOWN = {
    "loss": ("loss", "{:.3f}"),
    "tokens/s": ("tokens_per_second", "{:,.0f}"),
    "MFU": ("mfu", "{:.1%}"),
    "held-out bits/byte": ("val_bits_per_byte", "{:.3f}"),
}


class ConsoleProgress(Callback):
    def __init__(self, *, metrics: LogMetrics, num_steps: int, every_n_steps: int | None) -> None:
        """Lines come with the metrics, or where these are logged more often, every ``every_n_steps``."""
        if every_n_steps is not None and every_n_steps < 1:
            raise ValueError(f"print_every_n_steps={every_n_steps} must be at least 1, or null for each logged step")
        self.metrics, self.num_steps, self.every_n_steps = metrics, num_steps, every_n_steps or 1
        self._bar: Progress | None = None
        self._task: Any = None
        self._begin = (0.0, 0)
        self._printed: dict[str, float] = {}

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._begin = (time.perf_counter(), pl_module.attempt)
        if not (trainer.is_global_zero and sys.stdout.isatty()):
            return
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(),
            console=Console(),
        )
        self._task = self._bar.add_task("training", total=self.num_steps, completed=trainer.global_step, state="")
        self._bar.start()

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if not trainer.is_global_zero:
            return
        if self._bar is not None:
            self._bar.update(
                self._task,
                completed=trainer.global_step,
                state=_shown(self.metrics.latest | self.metrics.latest_validation),
            )
        elif self.metrics.latest and self.metrics.latest is not self._printed and self._is_due(trainer.global_step):
            self._printed = self.metrics.latest
            print(f"{self._done(trainer)}  {_shown(self._printed)}  {self._left(trainer)}", flush=True)

    def on_validation_end(self, trainer: Trainer, *args: Any) -> None:
        if trainer.is_global_zero and self._bar is None and self.metrics.latest_validation:
            print(f"{self._done(trainer)}  {_shown(self.metrics.latest_validation)}", flush=True)

    def _done(self, trainer: Trainer) -> str:
        return f"step {trainer.global_step}/{self.num_steps} ({trainer.global_step / self.num_steps:.0%})"

    def _is_due(self, step: int) -> bool:
        return step % self.every_n_steps == 0 or step == self.num_steps

    def on_train_end(self, *args: Any) -> None:
        self._stop()

    def on_exception(self, *args: Any) -> None:
        self._stop()

    def _left(self, trainer: Trainer) -> str:
        begin, first_attempt = self._begin
        module: Any = trainer.lightning_module
        done = module.attempt - first_attempt  # with what a rewind gave up, which took its time too
        seconds = (time.perf_counter() - begin) / max(1, done) * (self.num_steps - trainer.global_step)
        return f"{timedelta(seconds=round(seconds))} left"

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _shown(numbers: dict[str, float]) -> str:
    return "  ".join(f"{label} {form.format(numbers[key])}" for label, (key, form) in SHOWN.items() if key in numbers)

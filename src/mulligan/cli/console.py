"""What verbs print on, and progress of the steps around training: on a terminal a bar, elsewhere lines."""

import sys
import time
from types import TracebackType

import rich.console
from rich.progress import Progress, TaskID


class Console(rich.console.Console):
    """Leaves it to ``main`` to end where nobody reads any more; rich would end with 1."""

    def on_broken_pipe(self) -> None:
        raise  # the BrokenPipeError at hand


class Reporter:
    """Called with (what, done, total). Only the process that speaks for the run prints."""

    def __init__(self, *, speaks: bool) -> None:
        self.speaks = speaks
        self._bar: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._started: dict[str, float] = {}

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def __call__(self, what: str, done: int, total: int) -> None:
        if not self.speaks:
            return
        self._started.setdefault(what, time.perf_counter())
        if sys.stdout.isatty():
            self._show(what, done, total)
        elif done == total:
            print(f"{what}: done in {time.perf_counter() - self._started.pop(what):.1f} s", flush=True)

    def _show(self, what: str, done: int, total: int) -> None:
        if self._bar is None:
            self._bar = Progress(console=Console())
            self._bar.start()
        if what not in self._tasks:
            self._tasks[what] = self._bar.add_task(what, total=total)
        self._bar.update(self._tasks[what], completed=done, total=total)
        if all(task.finished for task in self._bar.tasks):
            self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._bar, self._tasks = None, {}

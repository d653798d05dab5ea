"""Work beside training: one job after the other, in a thread."""

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread


class Background:
    """A job that fails is raised by the next ``wait``; those behind it are left out.

    The thread ends with its process: what it writes must be whole or absent by itself. It is one for all jobs that are
    waited for together: beside one at work, another takes 2 ms to start.
    """

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._error: BaseException | None = None

    def then(self, job: Callable[[], None]) -> None:
        """Begin ``job`` when those before it are done."""
        self._jobs.put(job)
        if self._thread is None:
            self._thread = Thread(target=self._work, name="mulligan background", daemon=True)
            self._thread.start()

    def wait(self) -> None:
        """Return when all is done, or raise what went wrong, once."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if self._error is None:
                try:
                    job()
                except BaseException as error:  # raised where someone waits
                    self._error = error

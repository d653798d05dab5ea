"""Work beside training: one job after the other, in a thread."""

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread

from mulligan.distributed import to_this_device


class Background:
    """A job that fails is raised by the next ``wait``; those behind it are left out.

    The thread ends with its process: what it writes must be whole or absent by itself. It is one for all jobs that are
    waited for together: beside one at work, another takes 2 ms to start. Without jobs it can be copied, as callbacks do
    that keep an average of the module.
    """

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Callable[[], None] | None] | None = None
        self._thread: Thread | None = None
        self._error: BaseException | None = None

    def then(self, job: Callable[[], None]) -> None:
        """Begin ``job`` when those before it are done."""
        if self._jobs is None:
            self._jobs = SimpleQueue()
            arguments = (self._jobs, to_this_device())
            self._thread = Thread(target=self._work, args=arguments, name="mulligan background", daemon=True)
            self._thread.start()
        self._jobs.put(job)

    def wait(self) -> None:
        """Return when all is done, or raise what went wrong, once."""
        if self._jobs is not None and self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
            self._jobs = self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _work(self, jobs: "SimpleQueue[Callable[[], None] | None]", begin: Callable[[], None]) -> None:
        begin()
        while (job := jobs.get()) is not None:
            if self._error is None:
                try:
                    job()
                except BaseException as error:  # raised where someone waits
                    self._error = error
            del job  # and what it holds, while there is no other

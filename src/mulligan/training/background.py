"""Work beside training: one job after the other, in a thread."""

import threading
from collections.abc import Callable


class Background:
    """A job that fails is raised by the next ``wait``; those behind it are left out.

    The thread ends with its process: what it writes must be whole or absent by itself.
    """

    def __init__(self) -> None:
        self._last: threading.Thread | None = None
        self._error: BaseException | None = None

    def then(self, job: Callable[[], None]) -> None:
        """Begin ``job`` when those before it are done."""
        former = self._last

        def run() -> None:
            if former is not None:
                former.join()
            if self._error is None:
                try:
                    job()
                except BaseException as error:  # raised where someone waits
                    self._error = error

        self._last = threading.Thread(target=run, name="mulligan background", daemon=True)
        self._last.start()

    def wait(self) -> None:
        """Return when all is done, or raise what went wrong, once."""
        if self._last is not None:
            self._last.join()
            self._last = None
        error, self._error = self._error, None
        if error is not None:
            raise error

"""The ranks that Lightning starts from the first of a host: when one dies, the first ends as well, and says so."""

import signal
import threading
from typing import Any

from mulligan.launcher import PATIENCE_SECONDS, POLL_SECONDS, end_as_lost


class StartedRanks:
    """Watches over them from the moment they are started until ``forget``."""

    def __init__(self, launcher: Any) -> None:
        # Lightning's observer (read in 2.6.6) ends this process by SIGKILL within 5 s, which says nothing and may cut
        # off what hears of it first. It holds the list itself, and ends where that is empty.
        started = launcher.procs
        self._processes = launcher.procs = list(started)  # by which Lightning passes on signals
        started.clear()
        self._forgotten = threading.Event()
        threading.Thread(target=self._watch, name="mulligan started ranks", daemon=True).start()

    def forget(self) -> None:
        self._forgotten.set()

    def _watch(self) -> None:
        while not any(process.poll() for process in self._processes):
            if self._forgotten.wait(POLL_SECONDS):
                return
        if self._forgotten.wait(PATIENCE_SECONDS):
            return
        codes = {f"LOCAL_RANK={number}": process.poll() for number, process in enumerate(self._processes, start=1)}
        for process in self._processes:
            process.send_signal(signal.SIGKILL)  # in a collective they hear no other
        end_as_lost(", ".join(f"{name} has ended with exit code {code}" for name, code in codes.items() if code))

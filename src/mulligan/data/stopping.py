"""Ctrl-C while data is prepared, and SIGTERM while parts are tokenized and joined: this process says so, and ends in
order.

By default SIGTERM ends it without a word, and Python then warns of the semaphores that its workers have shared. While a
tokenizer is trained that stays: it is one long call, in which a handler of Python's would not run. Ctrl-C has one of
Python's by default, and Lightning would end with 1.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

DEFAULTS: dict[int, Any] = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}


@contextmanager
def stops_in_order(*numbers: int) -> Iterator[None]:
    """Within it these signals, or else both, raise SystemExit where nobody else handles them; a second one does as by
    default.
    """
    ours = [number for number in numbers or DEFAULTS if signal.getsignal(number) is DEFAULTS[number]]
    if threading.current_thread() is not threading.main_thread():
        ours = []  # no other may set a handler

    def restore() -> None:
        for number in ours:
            signal.signal(number, DEFAULTS[number])

    def stop(number: int, _: FrameType | None) -> NoReturn:
        restore()
        told = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
        goes_on = "preparing stops; the same command goes on behind the parts that are done"
        print(f"{told}: {goes_on}", file=sys.stderr, flush=True)
        sys.exit(128 + number)

    for number in ours:
        signal.signal(number, stop)
    try:
        yield
    finally:
        restore()


@contextmanager
def starting_workers() -> Iterator[None]:
    """Within it both signals wait: a pool that is half begun cannot be ended in order, nor one with a worker that has
    died of a signal. Processes that are started in it hear neither, which terminals and launchers send to all of them
    and which are for this one; ``heed_sigterm_of_parent_alone`` is for them.
    """
    waiting: list[int] = []
    is_main = threading.current_thread() is threading.main_thread()
    former = {number: signal.signal(number, lambda sent, _: waiting.append(sent)) for number in DEFAULTS if is_main}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, DEFAULTS)  # which they inherit; other threads hear them
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in former.items():
            signal.signal(number, handler)
        for number in waiting[:1]:
            signal.raise_signal(number)


def heed_sigterm_of_parent_alone(_worker: int = 0) -> None:
    """In a worker process: only its parent's SIGTERM ends it. A launcher sends one to the whole process group, and the
    parent, which is to end in order then, would be told that a worker has died.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_wait_for_parent, args=(os.getppid(),), name="mulligan SIGTERM", daemon=True).start()


def _wait_for_parent(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)

"""Ctrl-C while data is prepared, and SIGTERM while parts are tokenized and joined: this process says so, and ends in
order.

By default SIGTERM ends it without a word, and Python then warns of the semaphores that its workers have shared. While a
tokenizer is trained that stays: it is one long call, in which a handler of Python's would not run. Ctrl-C has one of
Python's by default, and Lightning would end with 1.
"""

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
    """Within it both signals wait: a pool that is half begun cannot be ended in order. Processes that are started in it
    never hear Ctrl-C, which a terminal sends to all of them and which is for this one.
    """
    waiting: list[int] = []
    is_main = threading.current_thread() is threading.main_thread()
    former = {number: signal.signal(number, lambda sent, _: waiting.append(sent)) for number in DEFAULTS if is_main}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # which they inherit; other threads hear it
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in former.items():
            signal.signal(number, handler)
        for number in waiting[:1]:
            signal.raise_signal(number)

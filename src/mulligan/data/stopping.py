"""SIGTERM and Ctrl-C while parts are tokenized and joined: this process says so, and ends in order.

By default SIGTERM ends it without a word, and Python then warns of the semaphores that its workers have shared. While a
tokenizer is trained the default stays: that is one long call, in which a handler of Python's would not run.
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
def stops_in_order() -> Iterator[None]:
    """Within it either signal raises SystemExit, where nobody else handles it; a second one does as by default."""
    ours = [number for number, default in DEFAULTS.items() if signal.getsignal(number) is default]
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

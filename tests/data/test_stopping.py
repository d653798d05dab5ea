"""Signals while data is prepared: a line, an exit code, and nothing that Python warns of."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mulligan.data.stopping import DEFAULTS, stops_in_order
from tests.data.prepare_and_stop import hashes, recipe, silent

ENDS = [(signal.SIGTERM, 143, "SIGTERM"), (signal.SIGINT, 130, "Ctrl-C")]
TOLD = "preparing stops; the same command goes on behind the parts that are done\n"
SIGNALLED = """
import os, sys
from concurrent.futures import ProcessPoolExecutor
from tests.data.prepare_and_stop import recipe

moments = [sys.argv[3]]

def reached(moment):
    if moment in moments:
        moments.remove(moment)
        os.killpg(0, int(sys.argv[2]))

def report(what, done, total):
    reached(f"{what} {done}")

def spawn(pool, start=ProcessPoolExecutor._spawn_process):
    start(pool)
    reached("a worker starts")

ProcessPoolExecutor._spawn_process = spawn

recipe(sys.argv[1], workers=2).prepare(report)
"""


@pytest.fixture(autouse=True)
def defaults() -> Iterator[None]:
    """Of both signals, whatever another test has left, here and in what is started here."""
    former = {number: signal.signal(number, default) for number, default in DEFAULTS.items()}
    yield
    for number, handler in former.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("in_two_sources")
@pytest.mark.parametrize(
    ("number", "code", "name", "moment", "num_done"),
    [
        (signal.SIGTERM, 143, "SIGTERM", "tokenizing 3", 3),
        (signal.SIGTERM, 143, "SIGTERM", "a worker starts", 0),
        (signal.SIGINT, 130, "Ctrl-C", "tokenizing 3", 3),
        pytest.param(signal.SIGINT, 130, "Ctrl-C", "a worker starts", 0, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 130, "Ctrl-C", "tokenizer 0", 0, marks=pytest.mark.slow),
    ],
)
def test_a_signal_to_all_processes_is_one_line_and_what_is_done_is_kept(
    number: int, code: int, name: str, moment: str, num_done: int, prepared: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", SIGNALLED, str(tmp_path), str(number), moment]
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": f"{root}/src:{root}"}, capture_output=True, text=True, timeout=180,
        start_new_session=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (code, f"{name}: {TOLD}")
    resumed = recipe(str(tmp_path))
    assert len(list(resumed.folder.glob("parts/*.npz"))) >= num_done
    resumed.prepare(silent)
    assert hashes(resumed.folder) == hashes(prepared)


@pytest.mark.parametrize(("number", "code", "name"), ENDS)
def test_a_second_signal_does_as_by_default(
    number: int, code: int, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before, within = signal.getsignal(number), []

    @stops_in_order()
    def stopped() -> None:
        try:
            os.kill(os.getpid(), number)
        finally:
            within.append(signal.getsignal(number))

    with pytest.raises(SystemExit) as ended:
        stopped()
    assert (ended.value.code, capsys.readouterr().err) == (code, f"{name}: {TOLD}")
    assert within == [before]


def test_the_handler_of_somebody_else_stays() -> None:
    heard: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    with stops_in_order():
        os.kill(os.getpid(), signal.SIGTERM)
    assert heard == [signal.SIGTERM]

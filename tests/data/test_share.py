"""Shares are the whole when taken together, and each is as large as the others."""

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Timer
from typing import Any

import pytest

from mulligan.data.share import Share
from mulligan.data.tokenize import PartJob
from tests.data import prepare_and_stop
from tests.data.prepare_and_stop import hashes, recipe, silent

pytestmark = pytest.mark.usefixtures("in_two_sources")
Start = Callable[..., subprocess.Popen[str]]


def jobs(count: int) -> list[PartJob]:
    source: Any = None
    return [PartJob(source, "web", (), number, b"", 0.5, 1, Path(f"{number}.npz")) for number in range(count)]


@pytest.mark.parametrize(("count", "parts"), [(12, 1), (12, 5), (2, 64), (0, 3)])
def test_every_part_is_in_one_share_of_even_size(count: int, parts: int) -> None:
    shares = [Share(part=part, parts=parts).of(jobs(count)) for part in range(parts)]
    assert sorted(job.part_number for share in shares for job in share) == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_without_numbers_it_is_the_whole() -> None:
    assert Share().is_whole
    assert not Share(part=0, parts=1).is_whole
    assert Share().of(jobs(3)) == jobs(3)


@pytest.mark.parametrize(
    ("part", "parts", "message"),
    [
        (3, None, r"prepare\.part=3 needs prepare\.parts"),
        (None, 64, r"prepare\.parts=64 needs prepare\.part, counted from 0"),
        (0, 0, r"prepare\.parts=0 must be at least 1"),
        (64, 64, r"prepare\.part=64 must be in \[0, 63\]: the prepare\.parts=64 are counted from 0"),
        (-1, 64, r"prepare\.part=-1 must be in \[0, 63\]"),
    ],
)
def test_a_share_that_is_none_is_refused(part: int | None, parts: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Share(part=part, parts=parts)


@pytest.mark.parametrize("parts", [1, 3, 99])
def test_shares_do_not_show(prepared: Path, tmp_path: Path, parts: int) -> None:
    for part in reversed(range(parts)):
        recipe(str(tmp_path)).prepare_share(Share(part=part, parts=parts), silent)
    assert not (recipe(str(tmp_path)).folder / "manifest.json").exists()
    folder = recipe(str(tmp_path)).prepare(lambda what, done, total: None if done == total else fail_if(what))
    assert folder.name == prepared.name
    assert hashes(folder) == hashes(prepared)


def fail_if(what: str) -> None:
    assert what not in ("tokenizer", "tokenizing"), "the last call did again what was there"


def test_a_share_that_is_missing_is_done_by_the_last_call(prepared: Path, tmp_path: Path) -> None:
    said: list[str] = []
    for part in (0, 2):
        recipe(str(tmp_path)).prepare_share(Share(part=part, parts=3), silent, said.append)
    total = number_of_parts()
    first, both = len(range(0, total, 3)), total - len(range(1, total, 3))
    joins = "parts are there; `mulligan prepare` without prepare.part joins them"
    assert said == [f"{first} of {total} {joins}", f"{both} of {total} {joins}"]
    recipe(str(tmp_path)).prepare(silent, said.append)
    assert said[2:] == [f"{both} of {total} parts are tokenized already, {total - both} are left to do here"]
    assert hashes(recipe(str(tmp_path)).folder) == hashes(prepared)


def number_of_parts() -> int:
    return sum(len(source.parts()) for source in recipe("").sources.values())


def test_a_share_of_finished_data_does_nothing(prepared: Path) -> None:
    before, said = hashes(prepared), []
    recipe(str(prepared.parent)).prepare_share(Share(part=0, parts=2), fail_if_called, said.append)
    assert said == [f"{prepared} is prepared already"]
    assert hashes(prepared) == before


def fail_if_called(what: str, done: int, total: int) -> None:
    pytest.fail(f"{what} {done} of {total}")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Prepare in a process of its own, all or one of two shares; whatever happens, it ends after a time."""
    with ExitStack() as stack:

        def run(stage: str, part: int | None = None) -> subprocess.Popen[str]:
            own_part = [] if part is None else [str(part)]
            command = [sys.executable, "-u", prepare_and_stop.__file__, str(tmp_path), stage, *own_part]
            program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            stack.enter_context(program)
            stack.callback(program.kill)
            end = Timer(60, program.kill)
            end.start()
            stack.callback(end.cancel)
            return program

        yield run


def heard(program: subprocess.Popen[str], pattern: str) -> bool:
    """Read what ``program`` prints until a line matches."""
    assert program.stdout is not None
    return any(re.search(pattern, line) for line in program.stdout)


def test_who_prepares_the_whole_waits_for_shares_in_the_making(prepared: Path, tmp_path: Path, start: Start) -> None:
    share = start("pause tokenizing 2", part=0)
    assert heard(share, "pauses")
    whole = start("never 0")
    assert heard(whole, "waiting for other processes to prepare")
    assert not (recipe(str(tmp_path)).folder / "manifest.json").exists()
    share.kill()  # SIGKILL frees its lock
    assert heard(whole, "2 of .* parts are tokenized already")
    assert whole.wait(timeout=60) == 0
    assert hashes(recipe(str(tmp_path)).folder) == hashes(prepared)


@pytest.mark.parametrize("killed", [False, True])
def test_of_two_shares_one_trains_the_tokenizer_and_the_other_waits(
    prepared: Path, tmp_path: Path, start: Start, killed: bool
) -> None:
    first = start("pause tokenizer 0", part=0)
    assert heard(first, "pauses")
    second = start("never 0", part=1)
    assert heard(second, "waiting for the tokenizer, which another process makes")
    if killed:
        first.kill()
    else:
        first.stdin.write("go on\n")
        first.stdin.flush()
    assert heard(second, "parts are there")
    assert (first.wait(timeout=60), second.wait(timeout=60)) == (-signal.SIGKILL if killed else 0, 0)
    if killed:
        recipe(str(tmp_path)).prepare_share(Share(part=0, parts=2), silent)
    recipe(str(tmp_path)).prepare(lambda what, done, total: None if done == total else fail_if(what))
    assert hashes(recipe(str(tmp_path)).folder) == hashes(prepared)


def test_a_killed_share_goes_on_behind_its_last_part(prepared: Path, tmp_path: Path, start: Start) -> None:
    killed = start("tokenizing 2", part=1)
    assert killed.wait(timeout=60) == -signal.SIGKILL
    said: list[str] = []
    recipe(str(tmp_path)).prepare_share(Share(part=1, parts=2), silent, said.append)
    mine = number_of_parts() // 2
    assert said[0] == f"2 of {mine} parts are tokenized already, {mine - 2} are left to do here"
    recipe(str(tmp_path)).prepare(silent)
    assert hashes(recipe(str(tmp_path)).folder) == hashes(prepared)

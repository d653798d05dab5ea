"""A verb from the command line to its exit code: Hydra composes, and a mistake becomes one line.

Neither torch nor what checks types is loaded here: help, and a mistake in a key or a choice, need Hydra alone.
"""

import errno
import logging
import os
import re
import select
import sys
import time
from collections.abc import Callable
from pathlib import Path

import hydra
from hydra.errors import HydraException, InstantiationException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from mulligan.cli.choices import CONF, check_overrides, no_such_choice, no_such_key
from mulligan.cli.help_text import print_help
from mulligan.cli.sweep import JobFailed, Sweep, is_sweep
from mulligan.launcher import RANKS_LOST, check_launcher, end_with_starter, launched_as, loss_of_ranks

USER_ERROR = 2
STDOUT = 1  # the descriptor
# The user's; what else is raised is ours.
MISTAKES = (ValueError, OSError, HydraException, OmegaConfBaseException, JobFailed)
FULL = (errno.ENOSPC, errno.EDQUOT)
LESS_MEMORY = (
    "; if nobody else uses the device, less is needed with a smaller micro_batch, activation_checkpointing=true, "
    "trainer=fsdp on more devices, or a smaller model (`mulligan plan` says how much), and with one of the first three "
    "a run that has begun goes on"
)
HELD_BACK_SECONDS = (5.0, 15.0)  # within which ranks that start together reach the same mistake, at least and at most
_BEGUN = time.monotonic()
_OF_RESOLVER = "ValueError raised while resolving interpolation: "  # omegaconf's words before those of our own
_PLACE = re.compile(r"^full_key: (\S+)$", re.MULTILINE)  # of a node, in Hydra's words
_UNKNOWN = re.compile(r"Could not override '([^']+)'|Could not delete from config. '([^']+)' does not exist")
_OF_CPU_ALLOCATOR = re.compile(r"DefaultCPUAllocator: .*?(you tried to allocate \d+ bytes)")
_OWN_KEY = re.compile(r"\w+=")  # a constructor knows its own keys, not where it stands

logging.getLogger("hydra").addHandler(logging.NullHandler())  # it logs what it then raises, and we say it once


def run_verb(verb: str, task: Callable[[DictConfig], None]) -> int:
    """Compose ``conf/VERB.yaml`` with the command line, run ``task`` on it, and return the exit code."""
    shown = os.environ.get("MULLIGAN_TRACEBACK") == "1"
    failures: list[Exception] = []
    sweep = Sweep(verb)
    asks_for_help = {"-h", "--help"} & set(sys.argv)
    sys.argv = [word for word in sys.argv if word not in asks_for_help]

    def guarded(config: DictConfig) -> None:
        try:
            if asks_for_help:
                print_help(verb, config)
            elif is_sweep():
                sweep.run_job(config)
            else:
                task(config)
        except Exception as error:
            if not loss_of_ranks(error):
                _let_rank_zero_speak()
            together = error.exceptions if isinstance(error, ExceptionGroup) else [error]
            if shown or sweep.is_elsewhere or not all(map(_is_told_in_a_line, together)):
                raise
            failures.extend(together)

    os.environ["HYDRA_FULL_ERROR"] = "1"  # hand us the exception itself
    try:
        check_launcher()
        end_with_starter()
        check_overrides(sys.argv[1:], verb)
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=verb)(guarded)()
    except MISTAKES as error:
        if shown:
            raise
        _let_rank_zero_speak()
        failures.append(error)
    for failure in failures:
        if isinstance(failure, BrokenPipeError) and _nobody_reads():
            raise failure  # no mistake
    sweep.show_runs()
    speaker = " ".join(["mulligan", verb, *launched_as()])
    for failure in failures:
        print(": ".join([speaker, *getattr(failure, "__notes__", []), _one_line(failure, verb)]), file=sys.stderr)
    if any(loss_of_ranks(failure) for failure in failures):
        return RANKS_LOST
    if failures and isinstance(failures[0], JobFailed):
        return failures[0].exit_code
    return USER_ERROR if failures else 0


def _nobody_reads() -> bool:
    """True if the standard output is a pipe whose other end is closed."""
    poll = select.poll()
    poll.register(STDOUT, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _let_rank_zero_speak() -> None:
    """Wait in any other rank: the launcher ends it meanwhile if rank zero made the same mistake, or one before it.

    The slower this rank came here, by its imports above all, the later another one may.
    """
    if launched_as():
        least, most = HELD_BACK_SECONDS
        time.sleep(min(max(least, time.monotonic() - _BEGUN), most))


def _is_told_in_a_line(error: Exception) -> bool:
    return bool(isinstance(error, MISTAKES) or loss_of_ranks(error) or _lack_of_memory(error))


def _one_line(error: BaseException, verb: str) -> str:
    """The message of what the user did wrong, without the layers that passed it on."""
    place = ""
    while isinstance(error, InstantiationException) and error.__cause__ is not None:
        if found := _PLACE.search(str(error)):
            place = f"{found.group(1)}."
        error = error.__cause__
    if reason := loss_of_ranks(error):
        return (
            "the ranks have lost each other; one has died, is out of reach, or has not answered for "
            f"trainer.strategy.timeout_seconds: {reason}"
        )
    if lack := _lack_of_memory(error):
        return f"out of memory: {lack}{LESS_MEMORY if verb == 'train' else ''}"
    if isinstance(error, OSError) and error.errno in FULL:  # what we write ourselves has a name
        path = error.filename or "a file of a logger or a callback"
        return f"{path}: {error.strerror}; make room there, and the same command goes on"
    if isinstance(error, OSError) and error.filename:
        return f"{Path(error.filename)}: {error.strerror}"
    if isinstance(error, OverrideParseException):
        return f"{error.override!r} is not KEY=VALUE as Hydra reads it; quote a value with blanks, commas or brackets"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return no_such_choice(*_group_and_choice(error.missing_cfg_file), error.options or [])
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, InterpolationResolutionError) and lines[0].startswith(_OF_RESOLVER):
        return lines[0].removeprefix(_OF_RESOLVER)
    message = " ".join(lines) or type(error).__name__
    if isinstance(error, ValueError) and _OWN_KEY.match(message):
        message = place + message
    if unknown := _UNKNOWN.search(message):
        key = unknown.group(1) or unknown.group(2)
        inside = str(getattr(error.__cause__, "full_key", ""))  # of KEY={...} the one that is unknown
        return no_such_key(inside if inside.startswith(f"{key}.") else key, verb)
    return message


def _lack_of_memory(error: BaseException) -> str | None:
    """What torch says of memory that it asked a device for and did not get, in few words; None of any other error.

    A GPU's error is known by its name, as torch may not be loaded; that of the CPU is a bare RuntimeError.
    """
    if any((kind.__module__, kind.__qualname__) == ("torch", "OutOfMemoryError") for kind in type(error).__mro__):
        # What was asked for, what the GPU has and who holds it; how the allocator has cut its own comes behind.
        return str(error).removeprefix("CUDA out of memory. ").split(" Of the allocated memory")[0].rstrip(".")
    if type(error) is RuntimeError and (asked := _OF_CPU_ALLOCATOR.search(str(error))):
        return asked.group(1)
    return None


def _group_and_choice(missing: str) -> tuple[str, str]:
    """Hydra joins them, and either may hold a slash."""
    parts = missing.split("/")
    depth = 2 if parts[0] == "hydra" else 1
    return "/".join(parts[:depth]), "/".join(parts[depth:])

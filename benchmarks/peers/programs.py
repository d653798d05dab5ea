"""The programs that are compared, and a process of each that trains when it is its turn."""

import json
import os
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.peers.environments import interpreter_of
from benchmarks.peers.shapes import Work

ROOT = Path(__file__).parents[2]
LAUNCH_SETTINGS = ("MALLOC_", "GLIBC_TUNABLES", "GOMP_")


class Program(NamedTuple):
    """A module of this folder, the environment it runs in, and how it is started."""

    module: str
    environment: str | None = None  # None: ours
    compile: bool = False
    launched: bool = False  # with launch/environment.sh, as launch/local.sh does

    @property
    def is_ours(self) -> bool:
        return self.module == "mulligan_run"


PROGRAMS = {
    "bare": Program("bare_loop"),
    "bare_compiled": Program("bare_loop", compile=True),
    "bare_compiled_launched": Program("bare_loop", compile=True, launched=True),
    "lightning": Program("lightning_trainer"),
    "transformers": Program("transformers_trainer", "transformers"),
    "litgpt_model": Program("litgpt_loop", "litgpt"),
    "litgpt_pretrain": Program("litgpt_pretrain", "litgpt", compile=True),
    "mulligan": Program("mulligan_run", launched=True),
    "mulligan_compiled": Program("mulligan_run", compile=True, launched=True),
    "mulligan_not_launched": Program("mulligan_run"),
}


class ProgramProcess:
    """A running program; a call has it train a block of steps. RuntimeError says why it does not run."""

    def __init__(self, program: Program, work: Work) -> None:
        self.report: dict[str, Any] = {}
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed with the process
        python = interpreter_of(program.environment)
        environment = {key: value for key, value in os.environ.items() if not key.startswith(LAUNCH_SETTINGS)}
        environment["OMP_NUM_THREADS"] = str(len(os.sched_getaffinity(0)))
        launch = "source launch/environment.sh; " if program.launched else ""
        arguments = [python, f"benchmarks.peers.{program.module}", work.to_json()]
        self.process = subprocess.Popen(
            ["bash", "-c", f'{launch}exec "$0" -m "$1" "$2"', *arguments],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def __call__(self) -> None:
        self.start_block()
        self.finish_block()

    def start_block(self) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it ended: finish_block says why
            self.process.stdin.write("\n")
            self.process.stdin.flush()

    def finish_block(self) -> None:
        """Wait for the report, which a program gives before its first block too."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self._errors.seek(0)
            lines = self._errors.read().strip().splitlines() or ["no reason given"]
            raise RuntimeError(f"it ended: {lines[-1]}")
        self.report |= json.loads(line)

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()
        self._errors.close()

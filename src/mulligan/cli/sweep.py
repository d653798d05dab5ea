"""A job of a sweep runs in a process of its own: no rank, environment or open file of it reaches the next one."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from mulligan.cli.choices import parsed
from mulligan.launcher import STARTER

STOPPED = (130, 143)  # Ctrl-C and SIGTERM: they end the sweep, and not the job alone


class JobFailed(Exception):
    """A job ended with ``exit_code``. A launcher may pickle this on another machine."""

    def __init__(self, job: str, exit_code: int) -> None:
        super().__init__(job, exit_code)
        self.exit_code = exit_code

    def __str__(self) -> str:
        job, exit_code = self.args
        return f"the job {job} of the sweep ended with exit code {exit_code}"


class Sweep:
    """Of ``mulligan VERB`` as it was called; travels with the job when Hydra's launcher sends it elsewhere."""

    def __init__(self, verb: str) -> None:
        self.verb, self.given, self.pid = verb, sys.argv[1:], os.getpid()
        self.folders: list[str] = []  # of the runs of jobs in this process

    @property
    def is_elsewhere(self) -> bool:
        """In a process that a launcher made for the job."""
        return os.getpid() != self.pid

    def run_job(self, config: DictConfig) -> None:
        """Run the job at hand as a user would by ``mulligan VERB key=value ...``; raise ``JobFailed``."""
        overrides = [str(override) for override in HydraConfig.get().overrides.task]
        if self.verb == "train" and not self.is_elsewhere:  # there a job may come back to its own folder
            if str(config.folder) in self.folders:
                raise ValueError(
                    f"the job {self._title_of(overrides)} has the folder {config.folder} of an earlier one, whose run "
                    "it would go on with: give each a name, such as name='lr_${optimizer.lr}'"
                )
            self.folders.append(str(config.folder))
        exit_code = _run([sys.executable, "-m", "mulligan", self.verb, *_config_dir(), *overrides, *_number()])
        if exit_code in STOPPED and not self.is_elsewhere:
            sys.exit(exit_code)
        if exit_code:
            raise JobFailed(self._title_of(overrides), exit_code)

    def show_runs(self) -> None:
        """A table of all that were trained, the best first."""
        begun = [folder for folder in dict.fromkeys(self.folders) if _has_begun(folder)]
        if len(begun) > 1:
            listed = ",".join(_quoted(folder) for folder in begun)
            print(flush=True)
            _run([sys.executable, "-m", "mulligan", "runs", f"folders=[{listed}]", "sort_by=held_out"])

    def _title_of(self, overrides: list[str]) -> str:
        """Those that set this job apart from the others."""
        swept = [override.key_or_group for override in parsed(self.given) if override.is_sweep_override()]
        return " ".join([one for one in overrides if one.lstrip("+").split("=")[0] in swept] or overrides)


def _has_begun(folder: str) -> bool:
    try:
        return Path(folder, "provenance.jsonl").is_file()
    except OSError:  # a name that is too long, or of somebody else's
        return False


def is_sweep() -> bool:
    return HydraConfig.get().mode == RunMode.MULTIRUN


def _quoted(text: str) -> str:
    """As Hydra reads it: backslashes stand for themselves, but before a quote."""
    return "'" + re.sub(r"\\+(?='|\Z)", r"\g<0>\g<0>", text).replace("'", r"\'") + "'"


def _number() -> list[str]:
    """What ``${hydra:job.num}`` says in the sweep, and would not say in a run."""
    job = HydraConfig.get().job
    return [f"hydra.job.num={job.num}", f"hydra.job.id='{job.id}'"]


def _config_dir() -> list[str]:
    """The option again, if it was given."""
    sources = HydraConfig.get().runtime.config_sources
    return [word for one in sources if one.provider == "command-line" for word in ("--config-dir", one.path)]


def _run(command: list[str]) -> int:
    """Its exit code, or 128 and the signal that ended it. SIGTERM is passed on, Ctrl-C reaches it by itself.

    A launcher's signal of a preemption, submitit's USR2, waits until the command has saved and ended by SIGTERM.
    """
    requeue, preempted = signal.getsignal(signal.SIGUSR2), False
    if callable(requeue):
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])  # which the command keeps: all of a step get it
    process = subprocess.Popen(command, env=os.environ | {STARTER: str(os.getpid())})

    def preempt(*_: Any) -> None:
        nonlocal preempted
        preempted = True
        process.terminate()

    former = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, lambda number, _: process.send_signal(number)),
        signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN),
    }
    if callable(requeue):
        former[signal.SIGUSR2] = requeue
        signal.signal(signal.SIGUSR2, preempt)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2])
    try:
        code = process.wait()
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        if process.poll() is None:  # what else ends this process
            process.terminate()
            process.wait()
    code = code if code >= 0 else 128 - code
    if preempted and code and callable(requeue):
        requeue(signal.SIGUSR2, None)
        sys.exit(code)  # as another rank, which leaves that to the first, and has no result yet
    return code

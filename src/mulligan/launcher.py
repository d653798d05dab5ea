"""What a launcher says of this process, in the environment, and what ends it with those it belongs to.

The standard library alone: it is asked before anything has loaded torch.
"""

import os
import re
import signal
import sys
import threading
import time
from typing import NoReturn

NUMBERS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "MASTER_PORT", "SLURM_PROCID", "SLURM_NTASKS")
SHELLS = ("bash", "interactive")  # names of a job that salloc and srun --pty give
RANKS_LOST = 75  # the exit code: a temporary failure in sysexits.h, the same command again may succeed
STARTER = "MULLIGAN_STARTER"  # the number of the process that starts another, to that
POLL_SECONDS = 1.0
PATIENCE_SECONDS = 10.0  # for what a death is most often noticed by first, a collective: it lets the run end in order


def launched_world_size() -> int | None:
    """Ranks that a launcher announces, torchrun or SLURM; None without one."""
    announced = os.environ.get("WORLD_SIZE", os.environ.get("SLURM_NTASKS") if _is_slurm_job() else None)
    return None if announced is None else int(announced)


def check_launcher() -> None:
    """Refuse variables of a launcher, which may be set by hand or left over, that are no numbers or name no rank."""
    for name in NUMBERS:
        if not os.environ.get(name, "0").isdecimal():
            raise ValueError(f"{name}={os.environ[name]!r} in the environment must be a whole number")
    if (port := int(os.environ.get("MASTER_PORT", "0"))) >= 2**16:
        raise ValueError(f"MASTER_PORT={port} in the environment must be below {2**16}")
    world_size = launched_world_size() or 1
    for name in ("RANK", "LOCAL_RANK"):
        if (rank := int(os.environ.get(name, "0"))) >= world_size:
            raise ValueError(
                f"{name}={rank} in the environment must be below WORLD_SIZE, which is "
                f"{os.environ.get('WORLD_SIZE', 'not set')}: unset what an earlier launcher has left"
            )
    if world_size > 1 and "RANK" in os.environ and "LOCAL_RANK" not in os.environ and not _is_slurm_job():
        raise ValueError(
            f"RANK={os.environ['RANK']} and WORLD_SIZE={world_size} in the environment without LOCAL_RANK: start the "
            "ranks by launch/torchrun.sh, or give each machine its NODE_RANK in place of both"
        )


def check_slurm() -> None:
    """Refuse several tasks of SLURM that would wait for ranks that never come, or know nothing of each other."""
    tasks = launched_world_size()
    if _is_task_of_shell() and "WORLD_SIZE" not in os.environ:
        raise ValueError(
            f"SLURM_JOB_NAME={os.environ['SLURM_JOB_NAME']} would make each task of srun a run of its own: give srun "
            "another --job-name"
        )
    if not _is_slurm_job() or "WORLD_SIZE" in os.environ or tasks == 1:
        return
    if "SLURM_STEP_ID" not in os.environ:
        raise ValueError(f"SLURM gives this job {tasks} tasks: start them by srun, as launch/slurm.sbatch does")
    if "SLURM_NTASKS_PER_NODE" not in os.environ:
        raise ValueError(f"SLURM has --ntasks={tasks} alone: give --ntasks-per-node, and --nodes if there are several")


def _is_slurm_job() -> bool:
    """As Lightning tells it: a shell on a node has a job of its own, and starts its ranks itself."""
    return "SLURM_NTASKS" in os.environ and os.environ.get("SLURM_JOB_NAME") not in SHELLS


def _is_task_of_shell() -> bool:
    """One of several of a step, in a job that is a shell's. The first may be the shell itself, of `srun --pty`."""
    is_one_of_several = os.environ.get("SLURM_STEP_NUM_TASKS", "1") != "1"
    may_be_shell = "SLURM_PTY_PORT" in os.environ and os.environ.get("SLURM_PROCID") == "0"
    return os.environ.get("SLURM_JOB_NAME") in SHELLS and is_one_of_several and not may_be_shell


def is_launched_rank_zero() -> bool:
    """True in the one process that speaks for the run, also before the process group exists.

    Lightning starts the other ranks of a node with LOCAL_RANK, torchrun sets RANK and SLURM SLURM_PROCID.
    """
    return not launched_as()


def launched_as() -> list[str]:
    """What tells this process from rank zero, such as ``RANK=3`` and ``LOCAL_RANK=1``; nothing in rank zero."""
    # RANK decides alone: torchrun under srun may make the task with SLURM_PROCID=1 rank zero.
    names = ("RANK",) if "RANK" in os.environ else ("LOCAL_RANK", "SLURM_PROCID", "NODE_RANK")
    return [f"{name}={os.environ[name]}" for name in names if os.environ.get(name, "0") != "0"]


def end_with_starter() -> None:
    """Make this process end when the one that started it is killed: a sweep or an agent of torchrun, by SIGTERM, which
    saves a run that trains; or the rank from which Lightning starts the others, as one that has lost it.
    """
    starter = os.environ.pop(STARTER, None)  # not for what this one starts
    by_torchrun = "TORCHELASTIC_RUN_ID" in os.environ
    is_lightnings = int(os.environ.get("LOCAL_RANK", "0")) > 0 and not by_torchrun
    if starter == str(os.getpid()):  # its own mark, of an earlier verb
        starter = None
    if starter is None and not by_torchrun:
        return
    parent = os.getppid()
    watched = parent if starter is None else int(starter)  # another one where that was killed before this line

    def watch() -> None:
        while os.getppid() == parent and _is_alive(watched):
            time.sleep(POLL_SECONDS)
        if not is_lightnings:
            os.kill(os.getpid(), signal.SIGTERM)
            return
        time.sleep(PATIENCE_SECONDS)
        end_as_lost("the one that started this one has ended")

    threading.Thread(target=watch, name="mulligan starter", daemon=True).start()


def end_as_lost(reason: str) -> NoReturn:
    """Say so and end at once, whatever the first thread waits for."""
    print(" ".join(["mulligan", *launched_as()]) + f": the ranks have lost each other; {reason}", file=sys.stderr)
    sys.stderr.flush()
    os._exit(RANKS_LOST)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True  # or another user's


def loss_of_ranks(error: BaseException) -> str | None:
    """What torch says of a failed connection between ranks, in few words; None of any other error.

    Gloo raises a bare RuntimeError (read in torch 2.13), the store and NCCL a DistError, known by its name: an error
    may come before anything has loaded torch.
    """
    text = str(error)
    names = [f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__]
    if "torch.distributed.DistError" not in names and not (type(error) is RuntimeError and "/gloo/" in text):
        return None
    first = re.sub(r"^\[\S+\] ", "", text.splitlines()[0])
    return first.split(". This is typically")[0]

"""``mulligan train``: begin a run, or go on with the one of the same name."""

import logging
import signal
import warnings
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from mulligan.cli.binding import accepted_changes
from mulligan.cli.compose import build, check, plain
from mulligan.cli.console import Reporter
from mulligan.cli.provenance import begun_with, changed_sources, note_start, overwritten, source
from mulligan.cli.record import (
    BY_BYTES,
    DECIDED_ONCE,
    NEUTRAL,
    check_is_of_a_run,
    check_model,
    checkpoints_of,
    differences,
    has_same_data,
    keep_record,
    read_record,
    shared_keys,
    write_record,
)
from mulligan.cli.recorded_data import on_recorded_data
from mulligan.cli.train_tables import print_closing, print_opening
from mulligan.files import exclusive
from mulligan.launcher import is_launched_rank_zero
from mulligan.report.picture import draw_run
from mulligan.training.callbacks.stability import Halted
from mulligan.training.run import TrainingRun

# Loader workers hold the lock with their parent, and notice its death after five seconds.
WORKERS_OUTLIVE_SECONDS = 7.0
# Of a host that is lost NFS keeps the locks for a lease, 90 s by default, and its run may be started again elsewhere.
HOST_OUTLIVES_SECONDS = 180.0


def work(config: DictConfig) -> None:
    quiet_lightning()
    content = plain(config)
    check(content)  # before its folder is read; a mistake in a type would fail there
    check_model(content)
    if not content["folder"].strip():
        raise ValueError("folder='' must name the run's own folder; left out it is runs/NAME")
    folder, speaks = Path(content["folder"]), is_launched_rank_zero()
    around = [parent for parent in folder.parents if (parent / "provenance.jsonl").is_file()]
    if around:
        raise ValueError(f"folder={folder} lies inside that of another run, {around[0]}: choose another name")
    recorded = _recorded(folder, content)
    run, content, changes = _checked(folder, content, recorded)
    made_with = source(content) if speaks else {}

    def record() -> None:
        if recorded is not None and differences(recorded, content, free=(*NEUTRAL, *BY_BYTES)):
            keep_record(folder, run.trainer.global_step)
        write_record(folder, content)
        if changed := changed_sources(folder, made_with):
            print(f"code of your own is not what the last start had: {', '.join(changed)}", flush=True)
        noted = note_start(run, HydraConfig.get().overrides.task, made_with)
        if other := overwritten(noted["initial_weights_sha256"], begun_with(folder)):
            print(f"{other}: it goes on from its checkpoint, but cannot be played again", flush=True)
        for logger in run.trainer.loggers:
            logger.log_hyperparams(content)

    with ExitStack() as stack:
        if speaks:
            patience = HOST_OUTLIVES_SECONDS if run.trainer.num_nodes > 1 else WORKERS_OUTLIVE_SECONDS
            waiting = partial(print, f"{folder} is in use by another process, waiting up to {patience:g} s", flush=True)
            stack.enter_context(exclusive(folder / ".lock", patience_seconds=patience, waiting=waiting))
            if (found := _recorded(folder, content)) != recorded:  # by the process that was waited for
                recorded = found
                run, content, changes = _checked(folder, plain(config), recorded)
            print_opening(run)
            if changes:
                print(f"accept_changes=true goes on with another config: {'; '.join(changes)}", flush=True)
        try:
            summary = run.fit(
                stack.enter_context(Reporter(speaks=speaks)),
                warn=lambda text: print(text, flush=True) if speaks else None,
                begun=record,
                given=shared_keys(content),
            )
        except Exception as error:
            if speaks and isinstance(error, Halted):
                _draw(folder)
            _end_started_ranks(run)
            raise
        finally:
            if speaks:
                _remove_empty_versions(folder)
    if summary is not None:
        _draw(folder)
        print_closing(summary, folder)


def _recorded(folder: Path, content: dict[str, Any]) -> dict[str, Any] | None:
    """The config of what was trained in ``folder``; None until something was, since nothing binds till then. A ledger
    binds alone: a rewind to the start may have left no checkpoint.
    """
    asked = Path(content["checkpoint"]["folder"])
    recorded = read_record(folder)
    if any(asked.glob("step_*.ckpt")) or (folder / "ledger.jsonl").is_file():
        if recorded is None:
            raise ValueError(
                f"{folder}/config.yaml of what was trained is missing: bring it back, or choose another name"
            )
        check_is_of_a_run(recorded, folder)
        return recorded
    if recorded is not None and "checkpoint" in recorded:
        kept = checkpoints_of(folder, recorded)
        if any(kept.glob("step_*.ckpt")):
            raise ValueError(
                f"checkpoint.folder={asked} has no checkpoint, and {kept} has those of this run: move them there, or "
                "choose another name"
            )
    return None


def _checked(
    folder: Path, content: dict[str, Any], recorded: dict[str, Any] | None
) -> tuple[TrainingRun, dict[str, Any], list[str]]:
    """The run, its whole config, and how that differs from the one it was begun with; ValueError where it may not."""
    if recorded is not None:
        content |= {key: recorded[key] for key in DECIDED_ONCE if key in recorded and content[key] == "auto"}
    keeps_data = recorded is not None and has_same_data(recorded, content)
    run: TrainingRun = build(on_recorded_data(content, folder) if keeps_data else content)
    content |= {"precision": run.precision, "compile": run.compile}
    return run, content, [] if recorded is None else accepted_changes(run, content, folder, recorded)


def _remove_empty_versions(folder: Path) -> None:
    """Lightning makes a logger's folder before it is known whether a step will come."""
    for version in folder.glob("*/version_*"):
        with suppress(OSError):  # it holds metrics
            version.rmdir()


def _draw(folder: Path) -> None:
    """The picture of what a CSV logger has written, where there was one."""
    if not any(folder.rglob("version_*/metrics.csv")):
        return
    picture = folder / "curve.png"
    try:
        draw_run(folder, picture)
        print(f"{picture} shows the loss; `mulligan report run={folder}` makes a page of the run", flush=True)
    except ValueError as error:  # a line that a kill cut off, say
        print(f"{picture} is not drawn: {error}", flush=True)


def _end_started_ranks(run: TrainingRun) -> None:
    """Lightning leaves the ranks that it started to wait for this one; in a collective they hear no SIGTERM."""
    launcher = run.trainer.strategy.launcher
    if launcher is not None:
        launcher.kill(signal.SIGKILL)


def quiet_lightning() -> None:
    """Keep Lightning's tips off the console; its warnings stay, but for what does not apply to this loader."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*add the following callbacks.*Guard")  # stability=none is a choice
    warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".*GPU available but not used")  # we say it in our words
    # On a cluster's login node, say; where srun is needed, we say so.
    warnings.filterwarnings("ignore", message=".*srun. command is available.*")
    # That a weight of two-dimensional parallelism is gathered in two turns: only checkpoints and the end do that.
    logging.getLogger("torch.distributed.tensor._redistribute").setLevel(logging.ERROR)
    # Torch 2.13 renames the option; 2.11 knows the old name only.
    warnings.filterwarnings("ignore", message=".*broadcast_buffers. is deprecated.*")

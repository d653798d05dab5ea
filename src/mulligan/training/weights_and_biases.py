"""Weights & Biases beside a run that never waits for it.

One thread does all that talks to W&B's own process. W&B's ``_step`` is the attempt, which only grows: when a run that
was killed makes attempts again, with the same numbers, W&B leaves the second ones out. Pictures go by ``step``.
"""

import os
import queue
import re
import secrets
import sys
import threading
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import wandb
from lightning.pytorch.utilities import rank_zero_only

from mulligan.files import read_json, write_json
from mulligan.training.callbacks.preemption import INTERRUPTED, TERMINATED
from mulligan.training.event_logger import EventLogger
from mulligan.training.wandb_service import why_offline

Job = Callable[[Any], None]  # takes a wandb.Run
MODES = ("online", "offline", "disabled", "dryrun", "run", "shared")  # W&B's
MAX_WAITING = 100_000  # lines, of about a kilobyte each, before further ones are dropped
OFFLINE_SECONDS = 10.0  # for beginning offline, in place of a service that did not answer, and writing all down
COLUMNS = (
    "kind", "time", "step", "attempt", "trigger", "loss", "gradient_norm", "onset", "target", "skip_steps",
    "tokens_lost",
)  # fmt: skip


class WeightsAndBiases(EventLogger):
    """Online where a key is set, else offline in ``save_dir``/wandb, for ``wandb sync``. So too where the service is
    down or has not answered for ``patience_seconds``, which is also how long the end of the run waits for it.

    A run that goes on, goes on in W&B. ``fork_from`` is "ID?_step=ATTEMPT" of another run there. Other keys are those
    of ``wandb.init``.
    """

    def __init__(
        self,
        *,
        save_dir: str,
        project: str,
        name: str,
        entity: str | None = None,
        group: str | None = None,
        job_type: str | None = None,
        tags: list[str] | None = None,
        notes: str | None = None,
        mode: Literal["online", "offline"] | None = None,
        fork_from: str | None = None,
        patience_seconds: float = 15.0,
    ) -> None:
        super().__init__()
        if not 0.0 < patience_seconds <= 3600.0:
            raise ValueError(f"logger.wandb.patience_seconds={patience_seconds} must be above 0 and at most an hour")
        if fork_from is not None and "?_step=" not in fork_from:
            raise ValueError(f"logger.wandb.fork_from={fork_from!r} must be as 'k3h2a9x1?_step=500', an attempt there")
        self._mode = mode or os.environ.get("WANDB_MODE", "online")
        if self._mode not in MODES:
            raise ValueError(f"WANDB_MODE={self._mode!r} in the environment is not one of {', '.join(MODES)}")
        self._save_dir, self._name, self._project = Path(save_dir), name, project
        self._fork_from, self.patience_seconds = fork_from, patience_seconds
        self._options: dict[str, Any] = {
            "project": project, "name": name, "entity": entity, "group": group, "job_type": job_type, "tags": tags,
            "notes": notes,
        }  # fmt: skip
        self._attempt = 0
        self._said: set[str] = set()
        self._jobs: queue.Queue[Job | None] = queue.Queue(MAX_WAITING)
        self._thread: threading.Thread | None = None
        self._exit_code, self._closed = 0, False

    @property
    def name(self) -> str:
        return self._project

    @property
    def version(self) -> str:
        return self._name

    @property
    def save_dir(self) -> str:
        return str(self._save_dir)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        attempt = self._attempt = int(metrics.get("attempt", self._attempt))
        self._then(lambda run: run.log(dict(metrics), step=attempt))

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        self._then(lambda run: run.config.update(params, allow_val_change=True))

    def note_data(self, folder: Path, fingerprint: str) -> None:
        self._refer(f"data-{fingerprint[:16]}", "dataset", folder / "manifest.json", {"fingerprint": fingerprint})

    def note_checkpoint(self, path: Path, description: dict[str, Any]) -> None:
        name = re.sub(r"[^\w.-]", "-", self._name)  # of an artifact: W&B takes no other characters
        self._refer(f"checkpoint-{name}", "model", path, description)

    def note_intervention(self, text: str, entries: Sequence[dict[str, Any]]) -> None:
        attempt, rows = self._attempt, [[entry.get(column) for column in COLUMNS] for entry in entries]

        def tell(run: Any) -> None:
            # A row may have no number in one place and one in another: W&B is not to guess the types.
            table = wandb.Table(columns=list(COLUMNS), data=rows, allow_mixed_types=True)
            run.log({"interventions_table": table}, step=attempt)
            run.alert(title="mulligan: intervention", text=text, level="WARN")

        self._then(tell)

    def note_warning(self, text: str) -> None:
        self._then(lambda run: run.alert(title="mulligan: warning", text=text, level="WARN"))

    def note_summary(self, summary: dict[str, Any]) -> None:
        self._then(lambda run: run.summary.update(summary))

    def close(self, exit_code: int) -> None:
        if self._thread is None or self._closed:
            return
        self._exit_code = exit_code
        thread, self._closed = self._thread, True
        self._put(None)
        thread.join(self.patience_seconds + OFFLINE_SECONDS)
        if thread.is_alive():
            self._say("has not taken all in time; `wandb sync` uploads what it has on disk")

    def _refer(self, name: str, kind: str, path: Path, metadata: dict[str, Any]) -> None:
        def refer(run: Any) -> None:
            if not path.exists():
                return  # while W&B was begun newer checkpoints took the place of this one
            artifact = wandb.Artifact(name, kind, metadata=metadata)
            artifact.add_reference(path.resolve().as_uri(), checksum=False)  # ours stands in the metadata
            run.log_artifact(artifact)

        self._then(refer)

    def _then(self, job: Job) -> None:
        if self._closed:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="mulligan W&B", daemon=True)
            self._thread.start()
        self._put(job)

    def _put(self, job: Job | None) -> None:
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            self._say(f"has {MAX_WAITING:,} lines waiting; those that follow are dropped")

    def _work(self) -> None:
        try:
            run = self._begin()
        except Exception as error:  # whatever W&B raises is not the run's concern
            self._say(f"cannot be used: {_reason(error)}")
            run = None
        while (job := self._jobs.get()) is not None:
            try:
                if run is not None:
                    job(run)
            except Exception as error:
                self._say(f"has not taken something: {_reason(error)}")
        if run is not None:
            if self._exit_code in (INTERRUPTED, TERMINATED):
                run.mark_preempting()  # else it had failed there
            run.finish(exit_code=self._exit_code)

    def _begin(self) -> Any:
        reason = why_offline(self.patience_seconds) if self._mode == "online" else None
        if reason is None:
            try:
                return self._init(self._mode)
            except Exception as error:
                reason = _reason(error)
        self._say(f"{reason}; {self._save_dir / 'wandb'} keeps what `wandb sync` uploads")
        return self._init("offline")

    def _init(self, mode: Any) -> Any:
        run_id, is_new = self._run_id()
        begun: dict[str, Any] = {"fork_from": self._fork_from} if is_new and self._fork_from else {"resume": "allow"}
        folder = str(self._save_dir.resolve())  # W&B's own process may have another working directory
        seconds = self.patience_seconds
        settings = wandb.Settings(init_timeout=seconds, finish_timeout=seconds, silent=True, console="off")
        run = wandb.init(**self._options, **begun, dir=folder, id=run_id, mode=mode, settings=settings)
        if is_new:
            write_json(self._id_path, {"id": run_id, "name": self._name})
        run.define_metric("step")
        run.define_metric("*", step_metric="step")
        return run

    @property
    def _id_path(self) -> Path:
        return self._save_dir / "wandb.json"

    def _run_id(self) -> tuple[str, bool]:
        """The id in W&B, and whether it is new: a folder that was copied for another run has that of the first."""
        known = read_json(self._id_path, "id", "name") if self._id_path.is_file() else {}
        return (known["id"], False) if known.get("name") == self._name else (secrets.token_hex(5), True)

    def _say(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            print(f"W&B: {text}", file=sys.stderr, flush=True)


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]

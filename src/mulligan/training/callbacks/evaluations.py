"""Beside training, every N steps: suites, whose numbers the loggers get, and completions, which a file collects.

All ranks do the same in lockstep, be the model whole on each or in parts; rank zero logs and writes.
"""

import json
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, Trainer

from mulligan.evaluation.generation import Completion, complete
from mulligan.evaluation.sampler import Sampler
from mulligan.evaluation.suites import ReadsText, Subject, Suite, scores_of
from mulligan.files import append_line
from mulligan.training.callbacks.metrics import LogMetrics
from mulligan.training.closing import AUTOCAST_DTYPES
from mulligan.training.datamodule import ShardsDataModule
from mulligan.training.hardware import wait_for
from mulligan.training.module import PretrainModule

SAMPLER = Sampler(temperature=0.8, top_p=0.95)  # of a fixed seed: completions differ by what was learned


class Evaluations(Callback):
    """A line of ``samples_path`` is {"step", "attempt", "prompt", "text"}: the text is what follows the prompt. A run
    that goes on from an earlier step writes no line twice; after a rewind the attempts are new ones.
    """

    def __init__(
        self,
        *,
        every_n_steps: int,
        suites: dict[str, Suite],
        prompts: list[str],
        max_new_tokens: int,
        samples_path: Path,
        metrics: LogMetrics,
    ) -> None:
        if every_n_steps < 1:
            raise ValueError(f"evaluate_every_n_steps={every_n_steps} must be at least 1, or null for never")
        if max_new_tokens < 1:
            raise ValueError(f"sample_tokens={max_new_tokens} must be at least 1; sample_prompts=[] leaves samples out")
        self.every_n_steps, self.suites, self.prompts = every_n_steps, suites, prompts
        self.max_new_tokens, self.samples_path, self.metrics = max_new_tokens, samples_path, metrics
        self._step = -1
        self._written: set[tuple[int, int, str]] = set()

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Before anything is trained: later a rank that could not read its text would stop all in mid-run."""
        for suite in self.suites.values():
            if isinstance(suite, ReadsText):
                suite.read()

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._step = trainer.global_step
        self._written = set(_written(self.samples_path)) if trainer.is_global_zero else set()

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *args: Any) -> None:
        step, former = trainer.global_step, self._step
        self._step = step
        if step <= former or step % self.every_n_steps:  # within an accumulation window, or back from a rewind
            return
        wait_for(pl_module.device)  # what is still at work belongs to training
        start = time.perf_counter()
        with _random_state_kept(pl_module.device), torch.compiler.set_stance("force_eager"):
            self._evaluate(trainer, pl_module)
        self.metrics.leave_out(time.perf_counter() - start)

    def _evaluate(self, trainer: Trainer, module: PretrainModule) -> None:
        subject = _subject(trainer, module)
        numbers: dict[str, float] = {}
        for name, suite in self.suites.items():
            try:
                found = scores_of(suite, subject)
            except ValueError as error:  # a model that has diverged is the guard's to see
                if trainer.is_global_zero:
                    print(f"step {trainer.global_step}: no numbers of {name}: {error}", flush=True)
                continue
            numbers |= {f"{name}_{key.replace(' ', '_')}": float(one.value) for key, one in found.items()}
        if numbers:
            self.metrics.log_numbers(trainer, module, numbers)
        for prompt, text in self._samples(subject):
            place = (trainer.global_step, module.attempt, prompt)
            if trainer.is_global_zero and place not in self._written:
                line = dict(zip(("step", "attempt", "prompt", "text"), (*place, text), strict=True))
                append_line(self.samples_path, json.dumps(line, ensure_ascii=False))
                self._written.add(place)

    def _samples(self, subject: Subject) -> list[tuple[str, str]]:
        completions = [
            Completion(
                subject.tokenizer,
                prompt,
                SAMPLER,
                max_new_tokens=self.max_new_tokens,
                vocab_size=subject.model.config.vocab_size,
            )
            for prompt in self.prompts
        ]
        try:
            complete(subject.model, completions, batch_size=subject.batch_size, autocast_dtype=subject.autocast_dtype)
        except ValueError:  # a model that has diverged is the guard's to see
            return []
        return [(one.prompt, one.text) for one in completions]


def _subject(trainer: Trainer, module: PretrainModule) -> Subject:
    data: ShardsDataModule = trainer.datamodule  # type: ignore[attr-defined]  # set where mypy does not look
    assert module.model is not None
    return Subject(
        model=module.model,
        tokenizer=data.tokenizer,
        held_out=data.held_out_shards,
        sequence_length=data.sequence_length,
        document_mask=module.document_mask,
        batch_size=max(8, data.micro_batch),
        autocast_dtype=AUTOCAST_DTYPES.get(str(trainer.precision)),
    )


def _written(path: Path) -> Iterator[tuple[int, int, str]]:
    for line in path.read_bytes().splitlines(keepends=True) if path.is_file() else []:
        if line.endswith(b"\n"):  # else a kill cut it off
            sample = json.loads(line)
            yield sample["step"], sample["attempt"], sample["prompt"]


@contextmanager
def _random_state_kept(device: torch.device) -> Iterator[None]:
    """Of every generator that a suite may seed or draw from: lm-eval seeds all of them."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)

"""One training run: trained to its end, through rewinds that begin it again, and summed up."""

import sys
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any, NoReturn

from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch.callbacks import LambdaCallback
from lightning.pytorch.utilities.exceptions import SIGTERMException

from mulligan.data.prepared import Report
from mulligan.data.tokenizer import tokenizer_path
from mulligan.distributed import gathered
from mulligan.files import read_json, sha256_file, write_json
from mulligan.model.weights import model_with_weights
from mulligan.stability.ledger import Ledger
from mulligan.training.callbacks.stability import Refit
from mulligan.training.callbacks.standstill import Standstill
from mulligan.training.checkpoint_io import AtomicCheckpointIO
from mulligan.training.checkpoints import model_part, newest_whole
from mulligan.training.closing import closing_summary
from mulligan.training.datamodule import ShardsDataModule
from mulligan.training.event_logger import closed_at_the_end, event_loggers
from mulligan.training.lean_loop import make_lean
from mulligan.training.loss_scale import LossScale
from mulligan.training.module import PretrainModule
from mulligan.training.rewind import begin_anew, keeps_state
from mulligan.training.run_settings import RunSettings
from mulligan.training.strategies import whole_on_rank_zero


class TrainingRun(RunSettings):
    """The settings at work. ``fit`` does all, ``train`` stops short of the summary."""

    @property
    def _is_child(self) -> bool:
        """Started by Lightning from its host's first rank, which Lightning kills when such a process fails."""
        environment = getattr(self.trainer.strategy, "cluster_environment", None)
        return isinstance(environment, LightningEnvironment) and environment.local_rank() > 0

    def fit(
        self,
        report: Report,
        warn: Callable[[str], None],
        begun: Callable[[], None] = lambda: None,
        given: dict[str, Any] | None = None,
    ) -> dict[str, Any] | None:
        """Train to the end, evaluate and sample; rank 0 returns a summary."""
        with closed_at_the_end(self.trainer.loggers):
            module = self.train(report, warn, begun, given)
            if any(gathered(self.stop.was_asked)):  # the same command evaluates
                self._end_as_asked()
            summary = self._judged(module, report)
            if summary is not None:
                for logger in event_loggers(self.trainer.loggers):
                    logger.note_summary(summary)
        return summary

    def _judged(self, module: PretrainModule, report: Report) -> dict[str, Any] | None:
        """Rank 0's summary. The others wait for it: were it lost, none could be started again without them."""
        state = whole_on_rank_zero(self.trainer.strategy.lightning_module_state_dict())
        module.model = None  # its part of the weights, with the gradients and the moments: the whole needs the room
        self.trainer.strategy.optimizers, self.trainer.strategy.lr_scheduler_configs = [], []
        summary = self._summary(module, state, report) if self.is_rank_zero else None
        self.checkpoint.wait(self.trainer)
        return summary

    def _summary(self, module: PretrainModule, state: dict[str, Any], report: Report) -> dict[str, Any]:
        trained = self.metrics.seconds_trained
        return closing_summary(
            self.folder,
            model_with_weights(self.model, model_part(state), self.trainer.strategy.root_device),
            self.data,
            known={
                "name": self.name,
                "step": self.trainer.global_step,
                "attempt": module.attempt,
                "num_parameters": self.model.num_parameters,
                "precision": self.precision,
                "compile": self.compile,
                "world_size": self.trainer.world_size,
                "document_mask": self.data.document_mask,
                "evaluate_bytes": self.evaluate_bytes,
                "sample_prompt": self.sample_prompt,
            },
            tokens_per_second=self.metrics.tokens_trained / trained if trained else None,
            sequence_length=self.sequence_length,
            batch_size=max(8, self.micro_batch),
            report=report,
        )

    def train(
        self,
        report: Report,
        warn: Callable[[str], None],
        begun: Callable[[], None] = lambda: None,
        given: dict[str, Any] | None = None,
    ) -> PretrainModule:
        """Train to the end, from the newest whole checkpoint or the start.

        Rank 0 calls ``begun`` when all is restored and the first step comes: what fails before changes nothing on disk.
        ``given`` are settings by their keys, of which every rank must have been given the same.
        """

        def record(_: Any, module: PretrainModule) -> None:
            if self.is_rank_zero:
                self._note_data()
                begun()
                if module.change_of_rate is not None:
                    warn(module.change_of_rate)
                for logger in event_loggers(self.trainer.loggers):
                    logger.note_data(self.data.folder, module.data_fingerprint())

        warmup_steps = self.schedule.warmup_steps(self.num_steps)
        # Before the guard, which may save the start: nothing goes on from a checkpoint without its run's config.
        self.callbacks.insert(0, start := LambdaCallback(on_train_start=record))
        self.callbacks.append(Standstill(metrics=self.metrics, warmup_steps=warmup_steps, say=warn))
        unbegun = {one: deepcopy(one.state_dict()) for one in self.own_callbacks.values() if keeps_state(one)}
        while True:
            try:
                module = self._fit_once(report, warn, given or {})
                if self.is_rank_zero:
                    self._note_data()  # also of a run that had ended, whose note is lost
                return module
            except Refit:
                if start in self.callbacks:
                    self.callbacks.remove(start)  # this process has been noted
                begin_anew(self.trainer)
                for callback, state in unbegun.items():
                    callback.load_state_dict(state)
            except SIGTERMException:  # saved by the checkpoint callback; 0 would make a preempted job look finished
                self._end_as_asked()

    def _end_as_asked(self) -> NoReturn:
        sys.exit(0 if self._is_child else self.stop.exit_code)

    def _note_data(self) -> None:
        write_json(self.folder / "data.json", {"folder": str(self.data.folder.resolve())})

    def _fit_once(self, report: Report, warn: Callable[[str], None], given: dict[str, Any]) -> PretrainModule:
        """Fit from the newest whole checkpoint of the present lineage, or the start."""
        ledger = Ledger(self.folder / "ledger.jsonl", writes=self.is_rank_zero)
        found = newest_whole(self.checkpoint.folder, ledger, lambda text: None, thorough=False)
        datamodule = ShardsDataModule(
            data=self.data,
            sequence_length=self.sequence_length,
            global_batch=self.global_batch,
            micro_batch=self.micro_batch,
            validation_samples=self.validation_samples,
            tensor_parallel_size=self.tensor_parallel_size,
            seed=self.seed,
            ledger=ledger,
            report=report,
            say=warn,
            also_on_rank_zero=partial(self._choose_checkpoint, ledger, warn),
            decided=given
            | {
                # Not which: a network's storage may show the newest to some of them late.
                "whether there is a checkpoint": found is not None,
                "the number of lines in the ledger": len(ledger.lines),
            },
        )
        module = PretrainModule(
            model=self.model,
            initial_weights=self.initial_weights,
            float8=self.float8,
            objective=self.objective,
            optimizer=self.optimizer,
            schedule=self.schedule,
            num_steps=self.num_steps,
            accumulation=self.accumulation,
            tensor_parallel_size=self.tensor_parallel_size,
            seed=self.seed,
            begin_id=datamodule.begin_id,
            document_mask=self.data.document_mask,
            compile_model=self.compile,
            checkpoints_activations=self.activation_checkpointing,
            loss_scale=LossScale() if self.precision == "16-mixed" else None,
            token_bytes=datamodule.token_bytes,
            data_fingerprint=datamodule.fingerprint,
            ledger=ledger,
        )
        if self.guard is not None:
            self.guard.attach(
                ledger=ledger,
                checkpoint=self.checkpoint,
                sequencer=lambda: datamodule.sequencer,
                global_batch=self.global_batch,
                sequence_length=self.sequence_length,
                regime=self.regime,
                fingerprints=lambda: {"config": self.config_hash, "data": datamodule.fingerprint()},
                say=warn,
            )
        make_lean(self.trainer, module)
        self.trainer.fit(module, datamodule, ckpt_path=found.path if found else None, weights_only=True)
        return module

    def _choose_checkpoint(self, ledger: Ledger, warn: Callable[[str], None]) -> None:
        """Read all bytes of the newest checkpoints, while the other ranks wait for however long that takes."""
        found = newest_whole(self.checkpoint.folder, ledger, warn)
        checkpoint_io = self.trainer.strategy.checkpoint_io
        assert isinstance(checkpoint_io, AtomicCheckpointIO)
        checkpoint_io.chosen = found and found.path
        if found is None:
            self._look_at_tokenizer(warn)
            return
        if found.step > self.num_steps:
            raise ValueError(
                f"{self.folder} is at step {found.step}, which lies behind the {self.num_steps} steps asked for: give "
                f"max_steps={found.step} or more; `mulligan export run={self.folder} step={self.num_steps} to=FILE` "
                "gives the weights of then, where that checkpoint is kept"
            )
        where = "all was trained by" if found.step == self.num_steps else "going on from"
        warn(f"{where} step {found.step} ({found.path})")

    def _look_at_tokenizer(self, warn: Callable[[str], None]) -> None:
        """To a model the tokens of another tokenizer than its own mean nothing."""
        own = None if self.initial_weights is None else tokenizer_path(self.initial_weights.folder)
        if own is None:
            return
        prepared = read_json(self.data.folder / "manifest.json", "tokenizer_sha256")
        if sha256_file(own) != prepared["tokenizer_sha256"]:
            warn(
                f"{self.data.folder} was prepared with another tokenizer than {own} of initial_weights, whose numbers "
                f"stand for other text: set tokenizer=file tokenizer.model_file={own}, unless that is meant"
            )

"""One training run: its constructor is the schema of conf/train.yaml, ``fit`` does the work."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import LambdaCallback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.exceptions import SIGTERMException

from mulligan.data.prepare import DataRecipe, Report
from mulligan.data.tokenizer import Tokenizer
from mulligan.distributed import launched_world_size
from mulligan.files import sha256_file, write_json
from mulligan.model.config import ModelConfig
from mulligan.model.weights import model_with_weights
from mulligan.objective.next_token import NextToken
from mulligan.stability.ledger import Ledger
from mulligan.training.arithmetic import accumulation_of, num_steps_of, samples_of_global_batch
from mulligan.training.callbacks.checkpoint import SaveCheckpoints
from mulligan.training.callbacks.console import ConsoleProgress
from mulligan.training.callbacks.metrics import LogMetrics
from mulligan.training.callbacks.preemption import StopOnSigterm
from mulligan.training.callbacks.stability import Guard, Refit
from mulligan.training.checkpoints import model_part, newest_whole
from mulligan.training.closing import closing_summary
from mulligan.training.datamodule import ShardsDataModule
from mulligan.training.hardware import Precision, resolve_compile
from mulligan.training.loss_scale import LossScale
from mulligan.training.module import PretrainModule
from mulligan.training.optimizers import AdamWRecipe
from mulligan.training.schedules import Schedule
from mulligan.training.strategies import FullyShardedStrategy
from mulligan.training.trainer import make_trainer


class TrainingRun:
    """Everything a run is made of. Sizes are in samples, tokens and steps; ``folder`` is the run's own."""

    def __init__(
        self,
        *,
        name: str,
        folder: str,
        seed: int,
        sequence_length: int,
        global_batch_samples: int | None,
        global_batch_tokens: int | None,
        micro_batch: int | None,
        max_steps: int | None,
        max_tokens: int | None,
        max_tokens_per_parameter: float | None,
        precision: Precision,
        compile: bool | Literal["auto"],
        validate_every_n_steps: int,
        validation_samples: int,
        log_every_n_steps: int,
        evaluate_bytes: int,
        sample_prompt: str,
        accept_changes: bool,
        model: ModelConfig,
        objective: NextToken,
        optimizer: AdamWRecipe,
        schedule: Schedule,
        data: DataRecipe,
        checkpoint: SaveCheckpoints,
        stability: Guard | None,
        trainer: Callable[..., Trainer],
        logger: dict[str, Logger | None],
        callbacks: dict[str, Callback | None],
    ) -> None:
        if sequence_length < 1 or sequence_length > model.max_length:
            raise ValueError(f"sequence_length={sequence_length} must be in [1, model.max_length={model.max_length}]")
        if model.vocab_size < data.tokenizer.vocab_size:
            raise ValueError(
                f"model.vocab_size={model.vocab_size} is smaller than tokenizer.vocab_size={data.tokenizer.vocab_size}"
            )
        for key, number in (
            ("validate_every_n_steps", validate_every_n_steps),
            ("validation_samples", validation_samples),
            ("evaluate_bytes", evaluate_bytes),
        ):
            if number < 1:
                raise ValueError(f"{key}={number} must be at least 1")
        if not name.strip() or Path(name).is_absolute() or ".." in Path(name).parts:
            raise ValueError(f"name={name!r} must name a folder below runs/")
        if not -(2**63) <= seed < 2**63:
            raise ValueError(f"seed={seed} must fit into 64 bits")
        self.name, self.folder, self.seed = name, Path(folder), seed
        self.model, self.objective, self.optimizer, self.schedule = model, objective, optimizer, schedule
        self.data, self.sequence_length, self.validation_samples = data, sequence_length, validation_samples
        self.global_batch = samples_of_global_batch(
            samples=global_batch_samples, tokens=global_batch_tokens, sequence_length=sequence_length
        )
        self.tokens_per_step = self.global_batch * sequence_length
        self.num_steps = num_steps_of(
            steps=max_steps,
            tokens=max_tokens,
            tokens_per_parameter=max_tokens_per_parameter,
            tokens_per_step=self.tokens_per_step,
            num_parameters=model.num_parameters,
        )
        self.metrics = LogMetrics(
            every_n_steps=log_every_n_steps,
            tokens_per_step=self.tokens_per_step,
            flops_per_token=model.flops_per_token(sequence_length),
        )
        self.stop = StopOnSigterm(every_n_steps=log_every_n_steps)
        self.checkpoint, self.guard = checkpoint, stability
        self.trainer = make_trainer(
            trainer,
            precision,
            num_steps=self.num_steps,
            folder=self.folder,
            loggers=[one for one in logger.values() if one is not None],
            callbacks=[
                *([] if self.guard is None else [self.guard]),  # first: the others see the step it goes back to
                *(one for one in callbacks.values() if one is not None),
                self.metrics,
                ConsoleProgress(metrics=self.metrics, num_steps=self.num_steps),
                self.stop,
                self.checkpoint,
            ],
        )
        self.num_ranks = self.trainer.num_devices * self.trainer.num_nodes
        if launched_world_size() not in (None, self.num_ranks):
            raise ValueError(
                f"the launcher started {launched_world_size()} ranks, but trainer.devices x trainer.num_nodes is "
                f"{self.num_ranks}: give the launcher and the trainer the same number"
            )
        self.micro_batch, self.accumulation = accumulation_of(
            global_batch=self.global_batch, micro_batch=micro_batch, world_size=self.num_ranks
        )
        self.snapshot_gigabytes = 0.0
        if self.guard is not None:
            self.guard.check_reach(checkpoint)
            self.snapshot_gigabytes = self.guard.check_memory(self._state_bytes)
        self.trainer.accumulate_grad_batches = self.accumulation
        self.trainer.val_check_interval = validate_every_n_steps * self.accumulation
        self.compile = resolve_compile(
            compile, self.trainer.strategy.root_device.type, self.num_steps * self.flops_per_step
        )
        self.evaluate_bytes = evaluate_bytes
        self.sample_prompt, self.accept_changes = sample_prompt, accept_changes

    @property
    def precision(self) -> str:
        return str(self.trainer.precision)

    @property
    def callbacks(self) -> list[Callback]:
        """Those of the trainer, in their order; it takes more until it trains."""
        return self.trainer.callbacks  # type: ignore[attr-defined]  # set where mypy does not look

    @property
    def on_cpu(self) -> bool:
        return self.trainer.strategy.root_device.type == "cpu"

    @property
    def _state_bytes(self) -> float:
        """Weights and two moments, one rank's part."""
        parts = self.num_ranks if isinstance(self.trainer.strategy, FullyShardedStrategy) else 1
        return 3 * self.model.num_parameters * (2 if self.precision == "bf16-true" else 4) / parts

    @property
    def _config_hash(self) -> str | None:
        """Of the config as its folder holds it; a run that was built by hand has none."""
        path = self.folder / "config.yaml"
        return sha256_file(path) if path.is_file() else None

    @property
    def flops_per_step(self) -> int:
        return self.model.flops_per_token(self.sequence_length) * self.tokens_per_step

    @property
    def is_rank_zero(self) -> bool:
        return self.trainer.is_global_zero

    @property
    def _is_child_of_rank_zero(self) -> bool:
        """Started by Lightning from rank 0, which Lightning kills when such a process fails."""
        environment = getattr(self.trainer.strategy, "cluster_environment", None)
        return not self.is_rank_zero and isinstance(environment, LightningEnvironment)

    def fit(
        self, report: Report, warn: Callable[[str], None], begun: Callable[[], None] = lambda: None
    ) -> dict[str, Any] | None:
        """Train to the end, evaluate and sample; rank 0 returns a summary."""
        module = self.train(report, warn, begun)
        state = self.trainer.strategy.lightning_module_state_dict()  # of a sharded model: gathered from all ranks
        if not self.is_rank_zero:
            return None
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
        self, report: Report, warn: Callable[[str], None], begun: Callable[[], None] = lambda: None
    ) -> PretrainModule:
        """Train to the end, from the newest whole checkpoint or the start.

        Rank 0 calls ``begun`` when all is restored and the first step comes: what fails before changes nothing on disk.
        """

        def record(*_: Any) -> None:
            if self.is_rank_zero:
                write_json(self.folder / "data.json", {"folder": str(self.data.folder.resolve())})
                begun()

        self.callbacks.append(LambdaCallback(on_train_start=record))
        while True:
            try:
                return self._fit_once(report, warn)
            except Refit:
                continue
            except SIGTERMException:  # saved by the checkpoint callback; 0 would make a preempted job look finished
                sys.exit(0 if self._is_child_of_rank_zero else self.stop.exit_code)

    def _fit_once(self, report: Report, warn: Callable[[str], None]) -> PretrainModule:
        """Fit from the newest whole checkpoint of the present lineage, or the start."""
        ledger = Ledger(self.folder / "ledger.jsonl", writes=self.is_rank_zero)
        datamodule = ShardsDataModule(
            recipe=self.data,
            sequence_length=self.sequence_length,
            global_batch=self.global_batch,
            micro_batch=self.micro_batch,
            validation_samples=self.validation_samples,
            seed=self.seed,
            ledger=ledger,
            report=report,
        )
        module = PretrainModule(
            model=self.model,
            objective=self.objective,
            optimizer=self.optimizer,
            schedule=self.schedule,
            num_steps=self.num_steps,
            accumulation=self.accumulation,
            seed=self.seed,
            begin_id=Tokenizer.begin_id,
            document_mask=self.data.document_mask,
            compile_model=self.compile,
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
                regime=repr(  # knows no ranks and no micro-batches
                    [self.num_steps, self.global_batch, self.sequence_length, self.precision]
                    + [self.data.document_mask, self.data.weights]
                    + [vars(part) for part in (self.model, self.optimizer, self.schedule, self.objective)]
                ),
                fingerprints=lambda: {"config": self._config_hash, "data": datamodule.fingerprint()},
                say=warn,
            )
        found = newest_whole(self.checkpoint.folder, ledger, warn)
        if found is not None:
            warn(f"going on from step {found.step} ({found.path})")
        self.trainer.fit(module, datamodule, ckpt_path=found.path if found else None, weights_only=True)
        return module

"""What a run is made of: the constructor is the schema of conf/train.yaml, and checks it before anything is begun."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger

from mulligan.data.prepared import PreparedData
from mulligan.evaluation.suites import Suite
from mulligan.files import sha256_file
from mulligan.launcher import launched_world_size
from mulligan.model.config import ModelConfig
from mulligan.model.folder import ModelFolder
from mulligan.model.linears import Linears
from mulligan.objective.next_token import NextToken
from mulligan.planning.memory import Layout, state_bytes
from mulligan.training.arithmetic import accumulation_of, check_length, check_tensor_parallel, sizes_of
from mulligan.training.callbacks.checkpoint import SaveCheckpoints
from mulligan.training.callbacks.console import ConsoleProgress
from mulligan.training.callbacks.evaluations import Evaluations
from mulligan.training.callbacks.metrics import LogMetrics
from mulligan.training.callbacks.preemption import StopOnSigterm
from mulligan.training.callbacks.profiler import StepProfiler
from mulligan.training.callbacks.stability import Guard
from mulligan.training.hardware import Precision, resolve_compile
from mulligan.training.optimizers import OptimizerRecipe
from mulligan.training.reach import check_callbacks, check_checkpoints
from mulligan.training.regime import settings_of
from mulligan.training.schedules import LearningRateSchedule
from mulligan.training.strategies import FullyShardedStrategy
from mulligan.training.trainer import make_trainer


class RunSettings:
    """Everything a run is made of, checked. Sizes are in samples, tokens and steps; ``folder`` is the run's own."""

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
        max_tokens: int | float | None,
        max_tokens_per_parameter: float | None,
        precision: Precision,
        compile: bool | Literal["auto"],
        deterministic: bool = True,
        activation_checkpointing: bool,
        validate_every_n_steps: int,
        validation_samples: int,
        log_every_n_steps: int,
        print_every_n_steps: int | None,
        evaluate_bytes: int,
        sample_prompt: str,
        evaluate_every_n_steps: int | None,
        sample_prompts: list[str],
        sample_tokens: int,
        suite: dict[str, Suite],
        accept_changes: bool,
        initial_weights: str | None = None,
        float8: Linears | None = None,
        model: ModelConfig,
        objective: NextToken,
        optimizer: OptimizerRecipe,
        schedule: LearningRateSchedule,
        data: PreparedData,
        checkpoint: SaveCheckpoints,
        stability: Guard | None,
        trainer: Callable[..., Trainer],
        logger: dict[str, Logger | None],
        profiler: StepProfiler | None = None,
        callbacks: dict[str, Callback | None],
    ) -> None:
        check_length(sequence_length=sequence_length, max_length=model.max_length)
        if model.vocab_size < data.vocab_size:
            raise ValueError(
                f"model.vocab_size={model.vocab_size} is smaller than tokenizer.vocab_size={data.vocab_size}"
            )
        for key, number in (
            ("validate_every_n_steps", validate_every_n_steps),
            ("validation_samples", validation_samples),
            ("evaluate_bytes", evaluate_bytes),
        ):
            if number < 1:
                raise ValueError(f"{key}={number} must be at least 1")
        if not name.strip() or not Path(name).parts or Path(name).is_absolute() or ".." in Path(name).parts:
            raise ValueError(f"name={name!r} must name a folder below runs/")
        for group, kind, made in (("callbacks", Callback, callbacks), ("logger", Logger, logger)):
            for key, one in made.items():
                if one is not None and not isinstance(one, kind):
                    raise ValueError(f"{group}.{key} makes {one!r}, which is no Lightning {kind.__name__}")
        if not hasattr(optimizer, "clip_norm"):
            raise ValueError(
                f"optimizer makes a {type(optimizer).__name__}, which has no clip_norm: give it one, or None"
            )
        if not -(2**63) <= seed < 2**63:
            raise ValueError(f"seed={seed} must fit into 64 bits")
        self.initial_weights = None if initial_weights is None else ModelFolder(Path(initial_weights))
        if self.initial_weights is not None:
            self.initial_weights.check_fits(model)
        self.name, self.folder, self.seed = name, Path(folder), seed
        self.model, self.objective, self.optimizer, self.schedule = model, objective, optimizer, schedule
        self.data, self.sequence_length, self.validation_samples = data, sequence_length, validation_samples
        self.global_batch, self.tokens_per_step, self.num_steps = sizes_of(
            sequence_length=sequence_length,
            global_batch_samples=global_batch_samples,
            global_batch_tokens=global_batch_tokens,
            max_steps=max_steps,
            max_tokens=max_tokens,
            max_tokens_per_parameter=max_tokens_per_parameter,
            num_parameters=model.num_parameters,
        )
        if profiler is not None:
            profiler.check_length(self.num_steps)
        self.metrics = LogMetrics(
            every_n_steps=log_every_n_steps,
            tokens_per_step=self.tokens_per_step,
            flops_per_token=model.flops_per_token(sequence_length),
            more=dict if stability is None else lambda: stability.judge.band,
        )
        evaluations: list[Callback] = []
        if evaluate_every_n_steps is not None:
            evaluations.append(
                Evaluations(
                    every_n_steps=evaluate_every_n_steps,
                    suites=suite,
                    prompts=sample_prompts,
                    max_new_tokens=sample_tokens,
                    samples_path=self.folder / "samples.jsonl",
                    metrics=self.metrics,
                )
            )
        self.own_callbacks = {key: one for key, one in callbacks.items() if one is not None}
        self.stop = StopOnSigterm(every_n_steps=log_every_n_steps)
        self.checkpoint, self.guard = checkpoint, stability
        self.trainer = make_trainer(
            trainer,
            precision,
            deterministic=deterministic,
            num_steps=self.num_steps,
            log_every_n_steps=log_every_n_steps,
            folder=self.folder,
            loggers=[one for one in logger.values() if one is not None],
            callbacks=[
                *([] if self.guard is None else [self.guard]),  # first: the others see the step it goes back to
                *self.own_callbacks.values(),
                self.metrics,
                *([] if profiler is None else [profiler]),
                *evaluations,
                ConsoleProgress(metrics=self.metrics, num_steps=self.num_steps, every_n_steps=print_every_n_steps),
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
        strategy = self.trainer.strategy
        self.tensor_parallel_size = strategy.tensor_parallel_size if isinstance(strategy, FullyShardedStrategy) else 1
        check_tensor_parallel(self.tensor_parallel_size, model=model, num_ranks=self.num_ranks)
        self.data_parallel_size = self.num_ranks // self.tensor_parallel_size
        self.micro_batch, self.accumulation = accumulation_of(
            global_batch=self.global_batch,
            micro_batch=micro_batch,
            world_size=self.data_parallel_size,
            tensor_parallel_size=self.tensor_parallel_size,
        )
        self.layout = Layout(
            precision=self.precision,
            sharded=isinstance(strategy, FullyShardedStrategy),
            data_parallel_size=self.data_parallel_size,
            tensor_parallel_size=self.tensor_parallel_size,
            micro_batch=self.micro_batch,
            sequence_length=sequence_length,
            activation_checkpointing=activation_checkpointing,
            on_cpu=self.on_cpu,
        )
        self.float8 = float8
        if float8 is not None:
            float8.check(
                model,
                device=strategy.root_device,
                precision=self.precision,
                tensor_parallel_size=self.tensor_parallel_size,
                micro_batch=self.micro_batch,
                sequence_length=sequence_length,
            )
        self.snapshot_gigabytes = 0.0
        if self.guard is not None:
            check_checkpoints(self.guard.way, self.guard.policy, checkpoint)
            check_callbacks(self.guard.way, self.own_callbacks)
            num_bytes = state_bytes(model, self.layout)
            self.snapshot_gigabytes = self.guard.check_memory(num_bytes, self.trainer.num_devices)
        self.trainer.accumulate_grad_batches = self.accumulation
        self.trainer.val_check_interval = validate_every_n_steps * self.accumulation
        self.compile = resolve_compile(
            compile, self.trainer.strategy.root_device.type, self.num_steps * self.flops_per_step
        )
        self.deterministic, self.activation_checkpointing = deterministic, activation_checkpointing
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
    def config_hash(self) -> str | None:
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
    def regime(self) -> str:
        """What losses depend on besides the weights; it knows no ranks and no micro-batches."""
        parts = [settings_of(part) for part in (self.model, self.optimizer, self.schedule, self.objective)]
        if self.float8 is not None:
            parts.append(settings_of(self.float8))
        sizes = [self.num_steps, self.global_batch, self.sequence_length, self.precision]
        return repr([*sizes, self.data.document_mask, self.data.weights, *parts])

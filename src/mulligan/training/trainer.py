"""Lightning's Trainer from the user's keys and the run's own."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from mulligan.launcher import check_slurm
from mulligan.training.checkpoint_io import AtomicCheckpointIO
from mulligan.training.hardware import Precision, resolve_precision
from mulligan.training.lean_loop import NoProfiler
from mulligan.training.strategies import FullyShardedStrategy, ReplicatedStrategy

# What a user may choose; everything else follows from the run's own keys, or would change its numbers unseen.
USER_KEYS = (
    "accelerator",
    "devices",
    "num_nodes",
    "strategy",
    "detect_anomaly",
)


def make_trainer(
    trainer: Callable[..., Trainer],
    precision: Precision,
    *,
    deterministic: bool,
    num_steps: int,
    log_every_n_steps: int,
    folder: Path,
    loggers: list[Logger],
    callbacks: list[Callback],
) -> Trainer:
    """``trainer`` holds the keys of conf/trainer; others raise ValueError."""
    chosen = getattr(trainer, "keywords", {})
    check_user_keys(chosen)
    check_slurm()
    accelerator = _accelerator_of(chosen.get("accelerator", "auto"))
    resolved = resolve_precision(precision, accelerator)
    is_float16 = resolved == "16-mixed"
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # all would be written twice
    try:
        made = trainer(
            max_steps=num_steps,
            max_epochs=-1,
            log_every_n_steps=log_every_n_steps,
            logger=loggers,
            callbacks=callbacks,
            plugins=[AtomicCheckpointIO(), *([_float16(accelerator)] if is_float16 else [])],
            precision=None if is_float16 else resolved,
            deterministic=(deterministic and accelerator == "cuda") or None,  # a CPU's kernels are so by themselves
            profiler=NoProfiler(),
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            default_root_dir=str(folder),
        )
    except (MisconfigurationException, ValueError, TypeError) as error:
        named = ", ".join(f"trainer.{key}={chosen.get(key)}" for key in ("accelerator", "devices", "num_nodes"))
        hint = "; trainer=cpu, cpu_ddp and cpu_fsdp need no GPU" if "gpu backend" in str(error) else ""
        raise ValueError(f"{named}: {str(error).rstrip('.!')}{hint}") from None
    _check_strategy(made, chosen)
    _check_launched(made)
    return made


def check_user_keys(chosen: dict[str, Any]) -> None:
    for key in sorted(chosen.keys() - set(USER_KEYS)):
        raise ValueError(f"trainer.{key}={chosen[key]} is the run's to set; trainer takes {', '.join(USER_KEYS)}")


def _check_strategy(trainer: Trainer, chosen: dict[str, Any]) -> None:
    """Refuse Lightning's own for several ranks: a run that goes on has other bits there."""
    if trainer.world_size > 1 and not isinstance(trainer.strategy, ReplicatedStrategy | FullyShardedStrategy):
        raise ValueError(
            f"trainer.strategy={chosen.get('strategy', 'auto')} is for one device, and "
            f"trainer.devices={chosen.get('devices')} with trainer.num_nodes={trainer.num_nodes} are "
            f"{trainer.world_size}: choose trainer=ddp, fsdp, cpu_ddp or cpu_fsdp"
        )


def _check_launched(trainer: Trainer) -> None:
    """Refuse to wait for machines that nothing has told where to meet."""
    environment = getattr(trainer.strategy, "cluster_environment", None)
    if environment is None or isinstance(environment, LightningEnvironment):
        node_rank = int(os.environ.get("NODE_RANK", "0"))
        if node_rank >= trainer.num_nodes:
            raise ValueError(
                f"NODE_RANK={node_rank} in the environment must be below trainer.num_nodes={trainer.num_nodes}: set "
                "that, or unset what an earlier launcher has left"
            )
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK") if name not in os.environ]
    if trainer.num_nodes > 1 and isinstance(environment, LightningEnvironment) and missing:
        raise ValueError(
            f"trainer.num_nodes={trainer.num_nodes} needs a launcher on every machine: launch/torchrun.sh, srun, or "
            f"mulligan itself with {', '.join(missing)} set"
        )


def _float16(accelerator: str) -> MixedPrecision:
    """Autocast, without Lightning's scaler of the loss: that would wait for the device, and ours is the module's."""
    return MixedPrecision("16-mixed", accelerator, torch.amp.GradScaler(accelerator, enabled=False))


def _accelerator_of(named: str) -> str:
    """cpu or cuda, as the Trainer will choose: precision must be known before it is made."""
    if named in ("auto", "gpu", "cuda"):
        return "cuda" if torch.cuda.is_available() else "cpu"
    return named

"""``mulligan plan``: size, compute, expected loss, memory, time and cost of a run, or of a budget."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from mulligan.cli.compose import build, check, plain
from mulligan.cli.console import Console
from mulligan.cli.output import output_path
from mulligan.cli.plan_numbers import RunPlan
from mulligan.cli.plan_view import show
from mulligan.cli.plan_worth import budget_numbers
from mulligan.files import write_json
from mulligan.model.config import ModelConfig
from mulligan.model.linears import Linears
from mulligan.planning.accelerators import ACCELERATORS
from mulligan.planning.communication import Network
from mulligan.planning.pace import Pace
from mulligan.planning.scaling_laws import filled_in
from mulligan.training.callbacks.checkpoint import SaveCheckpoints
from mulligan.training.callbacks.stability import Guard
from mulligan.training.trainer import check_user_keys

NOT_BUILT = ("data", "logger", "callbacks")  # they may look for files, or for other machines
CPU = "cpu"
BYTES_PER_GIGABIT = 1e9 / 8
LENGTHS = {"max_steps", "max_tokens", "max_tokens_per_parameter"}


class Plan:
    """The schema of conf/plan.yaml; of conf/train.yaml's keys it takes what has a size. No Trainer is made: Lightning
    refuses one without the devices.
    """

    def __init__(
        self,
        *,
        hardware: str | None,
        mfu: float,
        cpu_flops: float,
        price_per_hour: float | None,
        devices_per_host: int,
        network_gigabits: float,
        flops: float | None,
        params: float | None,
        tokens: float | None,
        hours: float | None,
        output: str | None,
        model: ModelConfig,
        checkpoint: SaveCheckpoints,
        stability: Guard | None,
        float8: Linears | None,
        trainer: Callable[..., Any],
        **training: Any,
    ) -> None:
        if hardware not in (None, CPU, *ACCELERATORS):
            raise ValueError(f"hardware={hardware!r} is not one of {', '.join((*sorted(ACCELERATORS), CPU))}")
        if not 0.0 < mfu <= 1.0:
            raise ValueError(f"mfu={mfu} must be above 0 and at most 1")
        if devices_per_host < 1:
            raise ValueError(f"devices_per_host={devices_per_host} must be at least 1")
        budget = {"flops": flops, "params": params, "tokens": tokens, "hours": hours}
        rates = {"cpu_flops": cpu_flops, "price_per_hour": price_per_hour, "network_gigabits": network_gigabits}
        for key, number in {**rates, **budget}.items():
            if number is not None and not 0.0 < number < math.inf:
                raise ValueError(f"{key}={number} must be a number above 0")
        self.given = {key: number for key, number in budget.items() if number is not None}
        if len(self.given) > 2 or {"flops", "hours"} <= self.given.keys():
            named = " ".join(f"{key}={number:g}" for key, number in self.given.items())
            raise ValueError(f"{named}: give one or two of flops or hours, params, tokens; the rest follows")
        chosen: dict[str, Any] = getattr(trainer, "keywords", {})
        check_user_keys(chosen)
        self.hardware = CPU if hardware is None and not self.given and chosen["accelerator"] == CPU else hardware
        if hours is not None and hardware is None:
            raise ValueError(f"hours={hours:g} needs hardware: one of {', '.join((*sorted(ACCELERATORS), CPU))}")
        self.num_devices = _count("devices", chosen["devices"]) * _count("num_nodes", chosen["num_nodes"])
        self.pace: Pace | None = None
        if self.hardware is not None:
            peak = cpu_flops if self.hardware == CPU else ACCELERATORS[self.hardware].peak_flops
            self.pace = Pace(self.num_devices, peak, mfu, price_per_hour)
        accelerator = ACCELERATORS.get(self.hardware or CPU)
        self.device_bytes = self.network = None
        if accelerator is not None:
            self.device_bytes = accelerator.memory_bytes
            self.network = Network(
                devices_per_host=devices_per_host,
                link_bandwidth=accelerator.link_bandwidth,
                network_bandwidth=network_gigabits * BYTES_PER_GIGABIT,
            )
        self.output = output_path(output)
        self.run: RunPlan | None = None
        if not self.given:
            self.run = RunPlan(
                model=model,
                checkpoint=checkpoint,
                guard=stability,
                strategy=chosen["strategy"],
                num_ranks=self.num_devices,
                on_cpu=self.hardware == CPU,
                **training,
            )
            layout = self.run.layout
            if float8 is not None:
                float8.check(
                    model,
                    device=torch.device(CPU) if layout.on_cpu else None,
                    precision=layout.precision,
                    tensor_parallel_size=layout.tensor_parallel_size,
                    micro_batch=layout.micro_batch,
                    sequence_length=layout.sequence_length,
                )

    def numbers(self) -> dict[str, Any]:
        if self.run is not None:
            return {"hardware": self.hardware, **self.run.numbers(self.pace, self.device_bytes, self.network)}
        flops = self.given.get("flops")
        if "hours" in self.given:
            assert self.pace is not None
            flops = self.pace.flops_in(self.given["hours"])
        budget = filled_in(flops=flops, params=self.given.get("params"), tokens=self.given.get("tokens"))
        return {"hardware": self.hardware, "given": self.given, **budget_numbers(budget, self.pace)}


def _count(key: str, value: Any) -> int:
    """How many a key of the trainer names; Lightning takes lists and strings of digits as well."""
    number = len(value) if isinstance(value, list) else value
    if isinstance(number, str) and number.isdigit():
        number = int(number)
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise ValueError(f"trainer.{key}={value} must be a number: a plan asks no machine how many it has")
    return number


def _with_one_length(content: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Without the length that conf/train.yaml sets where another is asked for."""
    asked = {key for key in LENGTHS if any(word.lstrip("+").startswith(f"{key}=") for word in overrides)}
    return {key: None if asked and key in LENGTHS - asked else node for key, node in content.items()}


def work(config: DictConfig) -> None:
    content = _with_one_length(plain(config), HydraConfig.get().overrides.task)
    check(content)
    own = set(Plan.__init__.__annotations__) - {"model", "checkpoint", "stability", "float8", "trainer", "training"}
    training = {key: node for key, node in content.items() if key not in own}
    check(training | {"_target_": "mulligan.training.run.TrainingRun"})
    asked: Plan = build({key: node for key, node in content.items() if key not in NOT_BUILT})
    numbers = asked.numbers()
    if asked.output is not None:
        write_json(asked.output, numbers)
    show(numbers, Console())

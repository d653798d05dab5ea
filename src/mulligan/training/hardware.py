"""What the machine can do: the precision it multiplies fast, whether compiling pays, and its peak for MFU."""

import os
import resource
import sys
from pathlib import Path
from typing import Literal

import torch

from mulligan.compilers import can_compile_for_cpu, can_compile_for_cuda
from mulligan.planning.accelerators import accelerator_of_device

Precision = Literal["auto", "32-true", "16-mixed", "bf16-mixed", "bf16-true"]

CPU_COMPILE_SECONDS = 25.0  # seen at 4 to 12 layers on 2 cores: 12 to 31 s
CPU_COMPILE_GAIN = 0.13  # share of the step time that compiling saved there
CPU_FLOPS = 1e11  # order of what a small machine trains at; only decides whether a run is long


def resolve_precision(precision: Precision, accelerator: str) -> str:
    """``auto`` is bf16-mixed where there are bf16 matrix instructions, else 16-mixed on a GPU and 32-true elsewhere."""
    if precision != "auto":
        return precision
    if accelerator == "cuda":
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    return "bf16-mixed" if accelerator == "cpu" and cpu_multiplies("bf16") else "32-true"


def peak_memory_bytes(device: torch.device) -> int:
    """The most that this process has held so far: on a GPU of its memory, else of the host's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def memory_bytes(device: torch.device) -> int | None:
    """All that a GPU has; None of a CPU, whose memory others use as well."""
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None


def wait_for(device: torch.device) -> None:
    """Return when the device has done all that it was given; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def resident_bytes() -> float | None:
    """Memory that this process holds now; None where /proc does not tell."""
    told = Path("/proc/self/statm")
    return float(told.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if told.is_file() else None


def cpu_multiplies(number: Literal["bf16", "fp16"]) -> bool:
    """Whether the processor has matrix instructions for that type. Without them PyTorch's products in it take 5 to 100
    times as long as those of float32."""
    features = torch.cpu.get_capabilities()
    return bool(features.get(f"amx_{number}") or features.get(f"avx512_{number}"))


def resolve_compile(choice: bool | Literal["auto"], accelerator: str, total_flops: float) -> bool:
    """``auto`` compiles on a GPU unless the run is a trial, on a CPU if that saves more time than it costs."""
    if choice is True and accelerator == "cpu" and not can_compile_for_cpu():
        raise ValueError(
            "compile=true needs a C++ compiler (g++ or clang++) and Python's headers; set compile=auto, or for a run "
            "that began with it compile=false accept_changes=true"
        )
    if choice != "auto":
        return choice
    if accelerator == "cuda":
        return total_flops > 1e15 and can_compile_for_cuda()
    return can_compile_for_cpu() and CPU_COMPILE_GAIN * total_flops / CPU_FLOPS > CPU_COMPILE_SECONDS


def peak_flops(device: torch.device) -> float | None:
    """Dense bf16 peak of one device in FLOP/s, or None where it is not published for this device."""
    if device.type != "cuda":
        return None
    accelerator = accelerator_of_device(torch.cuda.get_device_name(device))
    return None if accelerator is None else accelerator.peak_flops


def generator_of(device: torch.device) -> torch.Generator:
    """The one that operators on ``device`` draw from; ``torch.manual_seed`` sets all and takes 200 microseconds."""
    if device.type == "cuda":
        return torch.cuda.default_generators[device.index or 0]
    return torch.default_generator

"""What `mulligan train` says of a run before its first step and after its last."""

import sys
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from mulligan.cli.console import Console
from mulligan.files import read_json
from mulligan.planning.memory import rank_memory
from mulligan.stability.ledger import Ledger
from mulligan.training.hardware import cpu_multiplies, memory_bytes
from mulligan.training.run import TrainingRun

_UNFOLDED = 10_000  # columns: a log has no width


def print_opening(run: TrainingRun) -> None:
    model, checkpoint = run.model, run.checkpoint
    tokens, rank_groups = run.num_steps * run.tokens_per_step, ""
    if run.tensor_parallel_size > 1:
        rank_groups = f" in groups of {run.tensor_parallel_size}"
    own = ", ".join(f"{type(one).__name__} ({key})" for key, one in run.own_callbacks.items())
    shared = "" if model.key_value_heads == model.num_heads else f" on {model.key_value_heads} of keys and values"
    parts = rank_memory(model, run.layout)
    state = parts["weights"] + parts["gradients"] + parts["moments"]
    memory = (
        f"{_size(state)} of weights, gradients and moments, about {_size(sum(parts.values()) - state)} of a step's own"
    )
    if all_of_it := memory_bytes(run.trainer.strategy.root_device):
        memory += f", of the GPU's {_size(all_of_it)}"
    if run.snapshot_gigabytes:
        memory += f", {_size(1e9 * run.snapshot_gigabytes)} of snapshots on the host"
    _print_pairs(
        f"run {run.name} in {run.folder}",
        {
            "model": f"{model.num_parameters:,} parameters: {model.num_layers} layers of width {model.width}, "
            f"{model.num_heads} heads{shared}, a vocabulary of {model.vocab_size:,}",
            "training": f"{run.num_steps:,} steps, {tokens:,} tokens, {tokens / model.num_parameters:.1f} a parameter, "
            f"{run.num_steps * run.flops_per_step:.2e} FLOPs",
            "step": f"{run.tokens_per_step:,} tokens: {run.global_batch} samples of {run.sequence_length} = "
            f"{run.num_ranks} rank(s){rank_groups} x {run.accumulation} micro-batch(es) of {run.micro_batch}",
            "device": f"{run.trainer.strategy.root_device.type}, precision {run.precision}"
            f"{f' with {run.float8}' if run.float8 else ''}, compile {str(run.compile).lower()}"
            f"{'' if run.on_cpu else f', deterministic {str(run.deterministic).lower()}'}",
            "memory a rank": memory,
            "stability": "nobody watches the loss" if run.guard is None else f"way {run.guard.way}",
            "checkpoints": f"{checkpoint.folder}, every {checkpoint.every_n_steps:,} steps",
            "loggers": ", ".join(type(logger).__name__ for logger in run.trainer.loggers) or "none",
            **({"callbacks": own} if own else {}),
        },
    )  # fmt: skip
    if run.on_cpu and torch.cuda.is_available():
        print("there is a GPU, which this run leaves alone; trainer=single_gpu trains on it", flush=True)
    if run.precision != "32-true" and run.on_cpu and not cpu_multiplies("bf16" if "bf16" in run.precision else "fp16"):
        print(f"precision={run.precision} is slow on this processor, up to 100 times slower than 32-true", flush=True)


def print_closing(summary: dict[str, Any], folder: Path) -> None:
    """``summary`` is what ``folder``/summary.json holds."""
    speed, lost = summary["tokens_per_second"], summary["attempt"] - summary["step"]
    entries = Ledger(folder / "ledger.jsonl", writes=False).entries
    interventions = f"{len(entries)}, {lost:,} steps tried and not kept" if entries else "none"
    _print_pairs(
        f"{summary['name']}: step {summary['step']:,}, attempt {summary['attempt']:,}",
        {
            "held out": f"{summary['val_bits_per_byte']:.4f} bits per byte",
            "  gzip -9, each document": f"{summary['gzip_bits_per_byte']:.4f}",
            "  xz -9e, all together": f"{summary['xz_bits_per_byte']:.4f}",
            "perplexity": f"{summary['val_perplexity']:.3f}",
            "tokens per second": f"{speed:,.0f}" if speed else "-",
            "interventions": interventions,
            "data": f"{read_json(folder / 'data.json', 'folder')['folder']}",
            "weights sha256": summary["weights_sha256"][:16],
        },
    )
    print(f"{folder}/summary.json holds these numbers. A completion of {summary['sample_prompt']!r}:")
    print(summary["sample"], flush=True)  # as it is: a fold would be taken for the model's


def _print_pairs(title: str, rows: dict[str, str]) -> None:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, value)
    console = Console() if sys.stdout.isatty() else Console(width=_UNFOLDED)
    console.print(table, markup=False, highlight=False)


def _size(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:,.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"

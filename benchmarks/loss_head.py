"""The chunked loss head against the plain one, forward and backward: time and peak memory.

    python -m benchmarks.loss_head [--rounds 5] [--json PATH]

Plain: the logits of all tokens in float32, ``F.cross_entropy`` with label smoothing, and a logsumexp of its own for the
z-loss. Chunked: ``mulligan.objective.linear_cross_entropy``. Both make the gradients of the hidden states and of the
head's weight, which count into the memory; the inputs do not.

The memory of the CPU is the peak of the resident set above what was there before, in a process of its own for each form
(Linux only: it resets the peak through /proc/self/clear_refs); that of a GPU is what PyTorch's allocator counts.
Ratios are chunked / plain. The aims were set for the CPU, and are shown beside a GPU's numbers for comparison. On a CPU
without bf16 matrix instructions a plain forward and backward in bf16 takes 3 to 12 minutes, and says nothing: its cases
are left out.
"""

import ctypes
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.interleave import interleave
from benchmarks.report import Report, Row, make_parser
from mulligan.objective.linear_cross_entropy import linear_cross_entropy
from mulligan.training.hardware import cpu_multiplies_bf16

VOCABULARY, WIDTH = 32_000, 512
Z_LOSS, LABEL_SMOOTHING = 1e-4, 0.1
WARMUP_TOKENS = 64
MB = 1e6


class Case(NamedTuple):
    tokens: int
    dtype: str
    memory_aim: float
    time_aim: float


CASES = (
    Case(4_096, "float32", memory_aim=1 / 10, time_aim=0.6),
    Case(4_096, "bfloat16", memory_aim=1 / 7, time_aim=0.4),
    Case(16_384, "bfloat16", memory_aim=1 / 20, time_aim=0.25),
)


def plain(hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
    logits_NV = (hidden_ND @ weight_VD.T).float()
    loss = F.cross_entropy(logits_NV, targets_N, reduction="sum", label_smoothing=LABEL_SMOOTHING)
    return loss + Z_LOSS * torch.logsumexp(logits_NV, dim=1).square().sum()


def chunked(hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
    terms = linear_cross_entropy(hidden_ND, weight_VD, targets_N, z_loss=Z_LOSS, label_smoothing=LABEL_SMOOTHING)
    return terms.loss_sum


FORMS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {"plain": plain, "chunked": chunked}


def inputs(tokens: int, dtype: str, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states of unit variance and a weight that gives logits of unit variance."""
    torch.manual_seed(0)
    hidden_ND = torch.randn(tokens, WIDTH, device=device).to(getattr(torch, dtype)).requires_grad_()
    weight_VD = (
        torch.randn(VOCABULARY, WIDTH, device=device).mul_(WIDTH**-0.5).to(getattr(torch, dtype)).requires_grad_()
    )
    return hidden_ND, weight_VD, torch.randint(VOCABULARY, (tokens,), device=device)


def forward_backward(form: str, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> float:
    hidden_ND.grad = weight_VD.grad = None
    loss = FORMS[form](hidden_ND, weight_VD, targets_N)
    loss.backward()
    return loss.item()  # waits for a GPU


def peak_memory(form: str, tokens: int, dtype: str, device: str) -> float:
    """MB above the inputs at the peak of one forward and backward; on the CPU meant for a fresh process."""
    hidden_ND, weight_VD, targets_N = inputs(tokens, dtype, device)
    few_ND = hidden_ND[:WARMUP_TOKENS].detach().requires_grad_()
    forward_backward(form, few_ND, weight_VD, targets_N[:WARMUP_TOKENS])  # loads kernels and threads
    weight_VD.grad = None
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        forward_backward(form, hidden_ND, weight_VD, targets_N)
        return (torch.cuda.max_memory_allocated() - before) / MB
    ctypes.CDLL(None).malloc_trim(0)  # glibc's own keep would hide as much of the peak
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_resident_bytes()
    forward_backward(form, hidden_ND, weight_VD, targets_N)
    return (peak_resident_bytes() - before) / MB


def peak_resident_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


def peak_memory_apart(form: str, tokens: int, dtype: str) -> float:
    command = [sys.executable, "-m", "benchmarks.loss_head", "--memory-of", form, str(tokens), dtype]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def compare(case: Case, device: str, rounds: int) -> list[Row]:
    tensors = inputs(case.tokens, case.dtype, device)
    losses = {form: forward_backward(form, *tensors) for form in FORMS}  # the warm-up
    assert abs(losses["chunked"] / losses["plain"] - 1.0) < 1e-3, f"the forms differ: {losses}"
    variants = {form: partial(forward_backward, form, *tensors) for form in FORMS}
    timings = interleave(variants, rounds=rounds, warmup_rounds=0)
    del tensors, variants
    if device == "cpu":
        memory = {form: peak_memory_apart(form, case.tokens, case.dtype) for form in FORMS}
    else:
        memory = {form: peak_memory(form, case.tokens, case.dtype, device) for form in FORMS}
    rows: list[Row] = []
    for form, timing in timings.items():
        judged = form == "chunked"
        row: Row = {"form": form, "seconds": timing.median, "ratio": timing.ratio_to(timings["plain"])}
        row |= {"aim": case.time_aim if judged else None, "met": row["ratio"] <= case.time_aim if judged else None}
        row |= {"cpu s ratio": timing.cpu_ratio_to(timings["plain"]), "peak MB": memory[form]}
        row |= {"MB ratio": memory[form] / memory["plain"], "MB aim": case.memory_aim if judged else None}
        rows.append(row | {"MB met": row["MB ratio"] <= case.memory_aim if judged else None})
    return rows


def main() -> None:
    parser = make_parser(__doc__, rounds=5)
    parser.add_argument(
        "--memory-of", nargs=3, metavar=("FORM", "TOKENS", "TYPE"), help="print one form's CPU peak in MB"
    )
    options = parser.parse_args()
    if options.memory_of:
        form, tokens, dtype = options.memory_of
        print(peak_memory(form, int(tokens), dtype, "cpu"))
        return
    report = Report()
    for device in ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]:
        for case in CASES:
            if device == "cpu" and case.dtype == "bfloat16" and not cpu_multiplies_bf16():
                print(f"\ncpu, bfloat16, {case.tokens:,} tokens: left out, no bf16 matrix instructions", flush=True)
                continue
            title = f"{device}, {case.dtype}, {case.tokens:,} tokens, vocabulary {VOCABULARY:,}, width {WIDTH}"
            report.add(f"{title}, {options.rounds} rounds", compare(case, device, options.rounds))
    report.write(options.json)


if __name__ == "__main__":
    main()

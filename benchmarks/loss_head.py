"""Forms of the loss head, forward and backward: time and peak memory.

    python -m benchmarks.loss_head [--rounds 5] [--json PATH]
        [--devices cpu cuda] [--full [--tokens N ...] [--vocabularies V ...] [--types float32 bfloat16]]

The forms are those of benchmarks/loss_head_forms.py: ours, and how others make the same loss.

All make the gradients of the hidden states and of the head's weight, which count into the memory; the inputs do not.
One from elsewhere whose loss is another is left out (in bf16 torch's own is, beyond a vocabulary of 32,000), and so is
one that takes minutes over one pass.
Judged are ours, with z-loss and smoothing, against the least memory and the least time of the others, bare or not.

The memory of the CPU is the peak of the resident set above what was there before, in a process of its own for each form
(Linux only: it resets the peak through /proc/self/clear_refs); that of a GPU is what PyTorch's allocator counts.
Times are of forms in turns, and the smaller cases get more rounds. The aims against the plain form were set for the
CPU, and are shown beside a GPU's numbers for comparison. On a CPU without bf16 matrix instructions a plain forward and
backward in bf16 takes 3 to 12 minutes, and says nothing: its cases are left out.
"""

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache, partial
from importlib.util import find_spec
from itertools import product
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.interleave import interleave
from benchmarks.loss_head_forms import FORMS, OF_THIS_REPOSITORY, REGULARIZED
from benchmarks.report import Report, Row, make_parser
from benchmarks.resident import forget_peak, peak_resident_bytes
from mulligan.training.hardware import cpu_multiplies

WIDTH = 512
WARMUP_TOKENS = 64
FORM_SECONDS = 600  # for the CPU process of a form from elsewhere or one compiled, its compilation included
PLAIN_COPIES = 5  # of the logits in float32 that the plain form holds at its peak: seen
MEMORY_TARGET, TIME_TARGET = 1.0, 1.05  # of the least and of the fastest of the others
FEW_LOGITS = 4_096 * 32_000  # of a case that gets all rounds; one with more gets fewer
MB = 1e6


class Case(NamedTuple):
    tokens: int
    vocabulary: int
    dtype: str

    def __str__(self) -> str:
        return f"{self.dtype}, {self.tokens:,} tokens, vocabulary {self.vocabulary:,}"


class Aims(NamedTuple):
    """Of the plain form's memory and time."""

    memory: float
    time: float


AIMS = {
    Case(4_096, 32_000, "float32"): Aims(memory=1 / 10, time=0.6),
    Case(4_096, 32_000, "bfloat16"): Aims(memory=1 / 7, time=0.4),
    Case(16_384, 32_000, "bfloat16"): Aims(memory=1 / 20, time=0.25),
}
TOKENS, VOCABULARIES, TYPES = (4_096, 8_192, 16_384), (32_000, 128_000, 256_000), ("float32", "bfloat16")  # in full


def reason_to_leave_out(form: str, case: Case, device: str, full: bool) -> str | None:
    if form == "compiled plain" and not full:
        return "with --full"
    if form.endswith("plain") and PLAIN_COPIES * 4 * case.tokens * case.vocabulary > memory_of(device) / 2:
        return "more than half of the memory"
    if form.startswith("torch") and not hasattr(F, "linear_cross_entropy"):
        return "not in this torch"
    if form in ("liger", "cut-cross-entropy"):
        if device == "cpu":
            return "GPU only"
        if find_spec({"liger": "liger_kernel"}.get(form, "cut_cross_entropy")) is None:
            return "not installed"
    return None


def loss_tolerance(form: str, case: Case) -> float:
    """torch's operator adds up in the type of the hidden states: 8 bits of bfloat16, rounded again at each chunk."""
    return 0.05 if form.startswith("torch") and case.dtype == "bfloat16" else 1e-3


def memory_of(device: str) -> int:
    if device == "cuda":
        return torch.cuda.get_device_properties(0).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@cache
def inputs(case: Case, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states of unit variance and a weight that gives logits of unit variance."""
    torch.manual_seed(0)
    dtype = getattr(torch, case.dtype)
    hidden_ND = torch.randn(case.tokens, WIDTH, device=device).to(dtype).requires_grad_()
    weight_VD = torch.randn(case.vocabulary, WIDTH, device=device).mul_(WIDTH**-0.5).to(dtype).requires_grad_()
    return hidden_ND, weight_VD, torch.randint(case.vocabulary, (case.tokens,), device=device)


def forward_backward(form: str, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> float:
    hidden_ND.grad = weight_VD.grad = None
    loss = FORMS[form](hidden_ND, weight_VD, targets_N)
    loss.backward()
    return loss.item()  # waits for a GPU


def warm_up(form: str, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> None:
    """Load kernels and threads; what is compiled is compiled for a number of tokens."""
    few = len(hidden_ND) if form.startswith("compiled") else WARMUP_TOKENS
    forward_backward(form, hidden_ND[:few].detach().requires_grad_(), weight_VD, targets_N[:few])
    weight_VD.grad = None


def peak_memory(form: str, case: Case, device: str) -> tuple[float, float]:
    """MB above the inputs at the peak of a forward and backward, and its loss; on the CPU meant for a fresh process."""
    tensors = inputs(case, device)
    warm_up(form, *tensors)
    if device == "cuda":
        tensors[0].grad = None
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        loss = forward_backward(form, *tensors)
        return (torch.cuda.max_memory_allocated() - before) / MB, loss
    ctypes.CDLL(None).malloc_trim(0)  # glibc's own keep would hide as much of the peak
    forget_peak()
    before = peak_resident_bytes()
    loss = forward_backward(form, *tensors)
    return (peak_resident_bytes() - before) / MB, loss


def peak_memory_apart(form: str, case: Case) -> tuple[float, float]:
    sizes = (str(case.tokens), str(case.vocabulary), case.dtype)
    command = [sys.executable, "-m", "benchmarks.loss_head", "--memory-of", form, *sizes]
    timeout = None if form in ("ours", "ours, bare", "plain") else FORM_SECONDS
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=timeout)
    peak, loss = map(float, done.stdout.split())
    return peak, loss


def compare(report: Report, case: Case, device: str, rounds: int, full: bool) -> None:
    absent = {form: reason_to_leave_out(form, case, device, full) for form in FORMS}
    measure = peak_memory_apart if device == "cpu" else partial(peak_memory, device=device)
    memory: dict[str, float] = {}
    losses: dict[str, float] = {}
    for form in FORMS:
        if absent[form] is None:
            try:
                memory[form], losses[form] = measure(form, case)
            except subprocess.TimeoutExpired:
                absent[form] = f"over {FORM_SECONDS} s"
    for form, loss in losses.items():
        relative_error = abs(loss / losses["ours" if form in REGULARIZED else "ours, bare"] - 1.0)
        if not relative_error < loss_tolerance(form, case):  # no number is no loss either
            assert form not in OF_THIS_REPOSITORY, f"the forms differ: {losses}"
            absent[form] = f"its loss is {relative_error:.1%} off"
            del memory[form]
    variants: dict[str, Callable[[], float]] = {}
    for form in memory:
        warm_up(form, *inputs(case, device))
        variants[form] = partial(forward_backward, form, *inputs(case, device))
    timings = interleave(variants, rounds=rounds, warmup_rounds=int(rounds > 1))  # in the first the heap grows
    inputs.cache_clear()

    others = [form for form in memory if not form.startswith("ours")] or ["ours"]  # where no other can run
    least, fastest = min(others, key=memory.__getitem__), min(others, key=lambda form: timings[form].median)
    rows: list[Row] = []
    for form, reason in absent.items():
        row: Row = {"form": form, "z-loss, smoothing": form in REGULARIZED, "left out": reason}
        timing = timings.get(form)
        row |= {"seconds": timing and timing.median, "of the fastest": timing and timing.ratio_to(timings[fastest])}
        row |= {"by cpu s": timing and timing.cpu_ratio_to(timings[fastest])}
        row |= {"peak MB": memory.get(form), "of the least": timing and memory[form] / memory[least]}
        row["nats a token"] = timing and losses[form] / case.tokens
        rows.append(row)
    title = f"{device}, {case}"
    report.add(f"{title}, width {WIDTH}, {rounds} rounds", rows)
    targets = [(least, MEMORY_TARGET, None), (fastest, None, TIME_TARGET)]
    if case in AIMS:
        targets.append(("plain", *AIMS[case]))
    for peer, memory_target, time_target in targets:
        row: dict[str, Any] = {"peer": peer}
        if memory_target is not None:
            row |= {"ours": memory["ours"], "theirs": memory[peer], "ratio": memory["ours"] / memory[peer]}
            report.judge(f"loss head's peak memory, {title}", unit="MB", at_most=memory_target, **row)
        if time_target is not None:
            row |= {"ours": timings["ours"].median, "theirs": timings[peer].median}
            row |= {"ratio": timings["ours"].ratio_to(timings[peer])}
            report.judge(f"loss head's time, {title}", unit="s", at_most=time_target, **row)


def main() -> None:
    parser = make_parser(__doc__, rounds=5)
    parser.add_argument("--full", action="store_true", help="all vocabularies and tokens, and a compiled plain form")
    parser.add_argument("--tokens", nargs="+", type=int, choices=TOKENS, default=TOKENS, help="of these alone, in full")
    parser.add_argument(
        "--vocabularies", nargs="+", type=int, choices=VOCABULARIES, default=VOCABULARIES, help="likewise"
    )
    parser.add_argument("--types", nargs="+", choices=TYPES, default=TYPES, help="likewise")
    devices = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    parser.add_argument("--devices", nargs="+", choices=devices, default=devices, help="on these alone")
    parser.add_argument(
        "--memory-of", nargs=4, metavar=("FORM", "TOKENS", "VOCABULARY", "TYPE"), help="one form's CPU peak in MB, loss"
    )
    options = parser.parse_args()
    if options.memory_of:
        form, tokens, vocabulary, dtype = options.memory_of
        print(*peak_memory(form, Case(int(tokens), int(vocabulary), dtype), "cpu"))
        return
    if not options.full and (options.tokens, options.vocabularies, options.types) != (TOKENS, VOCABULARIES, TYPES):
        parser.error("--tokens, --vocabularies and --types choose among the cases of --full: add it")
    full_cases = [Case(*sizes) for sizes in product(options.tokens, options.vocabularies, options.types)]
    report = Report()
    for device in options.devices:
        for case in full_cases if options.full else AIMS:
            if device == "cpu" and case.dtype == "bfloat16" and not cpu_multiplies("bf16"):
                print(f"\ncpu, {case}: left out, no bf16 matrix instructions", flush=True)
                continue
            rounds = max(1, options.rounds * FEW_LOGITS // (case.tokens * case.vocabulary))
            compare(report, case, device, rounds, options.full)
    report.write(options.json)


if __name__ == "__main__":
    main()

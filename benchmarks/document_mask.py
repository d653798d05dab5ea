"""What attention that stays inside documents costs, against plain causal attention.

    python -m benchmarks.document_mask [--rounds 7] [--json PATH]

attention   forward and backward of one layer, 6 heads of 64: PyTorch's causal attention, ours, and PyTorch's attention
            under the dense mask that ours stands for.
model step  forward, loss and backward of a model of 10 million parameters, under the same three; ours and the dense
            mask find the documents anew in each step.

Windows are cut from a stream of documents whose lengths follow a log-normal law (sigma 1.25): of 2,000 tokens in the
mean, as source files have, and of 100. Each round draws other windows. What causal attention and a dense mask cost does
not depend on the documents, so the dense mask runs on the long ones alone. Shorter windows have four times the rounds.
A CPU takes float32 and, where it has matrix instructions for it, bf16; a GPU bf16, more windows and compiled blocks. In
bf16 the products of a step are autocast. Ratios are to causal attention of the same round.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle, islice, product, repeat
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from benchmarks.interleave import interleave
from benchmarks.report import Report, Row, make_parser
from mulligan.model.config import ModelConfig
from mulligan.model.document_attention import attend_inside, begins_of, block_mask, dense_mask
from mulligan.model.transformer import Transformer
from mulligan.objective.next_token import NextToken
from mulligan.training.hardware import cpu_multiplies

NUM_HEADS, HEAD_WIDTH, VOCABULARY = 6, 64, 4_096
CONFIG = ModelConfig(
    vocab_size=VOCABULARY,
    max_length=2_048,
    width=NUM_HEADS * HEAD_WIDTH,
    num_layers=5,
    num_heads=NUM_HEADS,
    feedforward_width=1_024,
)
SIGMA = 1.25
LAWS = {"long": 2_000, "short": 100}  # mean length of a document
STREAM_TOKENS = 2**21
MOST = 1.1  # of plain causal attention
CAUSAL, DENSE = "causal", "dense mask"
Variants = dict[str, Callable[[], object]]


class Case(NamedTuple):
    """A window's length, and how many of them the attention and the model's step take on a CPU; a GPU takes more."""

    length: int
    attention_windows: int
    step_windows: int


CASES = (Case(512, attention_windows=4, step_windows=1), Case(2_048, attention_windows=2, step_windows=1))
GPU_WINDOWS = 16


class DenselyMasked(Transformer):
    def _documents(self, begins_BT: Tensor) -> tuple[Tensor, None]:
        return dense_mask(begins_BT), None


def draws(mean: int, windows: int, length: int, device: str) -> Iterator[Tensor]:
    """Document numbers of one batch after another, (B, T)."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.empty(STREAM_TOKENS // mean).log_normal_(math.log(mean) - SIGMA**2 / 2, SIGMA, generator=generator)
    lengths = lengths.ceil().long()
    stream = torch.arange(len(lengths)).repeat_interleave(lengths)
    while True:
        start = int(torch.randint(len(stream) - windows * length, (), generator=generator))
        yield stream[start:][: windows * length].view(windows, length).to(device)


def attention_variants(length: int, windows: int, device: str, dtype: torch.dtype) -> Variants:
    shape = (windows, length, NUM_HEADS, HEAD_WIDTH)
    *inputs, grad = (torch.randn(shape, device=device, dtype=dtype).transpose(1, 2) for _ in range(4))
    inputs = [x.requires_grad_() for x in inputs]

    def run(attend: Callable[..., Tensor]) -> None:
        torch.autograd.grad(attend(*inputs), inputs, grad)
        wait(device)

    def run_ours(documents: Iterator[Tensor | BlockMask]) -> None:
        run(partial(attend_inside, documents=next(documents)))

    def run_dense(masks: Iterator[Tensor]) -> None:
        run(partial(F.scaled_dot_product_attention, attn_mask=next(masks)))

    form = block_mask if device == "cuda" else Tensor.clone  # made once a step, for all layers: not timed here
    begins = {
        law: [begins_of(x) for x in islice(draws(mean, windows, length, device), 4)] for law, mean in LAWS.items()
    }
    ours = {law: cycle([form(x) for x in several]) for law, several in begins.items()}
    return {
        CAUSAL: partial(run, partial(F.scaled_dot_product_attention, is_causal=True)),
        **{f"ours, {law}": partial(run_ours, documents) for law, documents in ours.items()},
        DENSE: partial(run_dense, cycle([dense_mask(x) for x in begins["long"]])),
    }


def step_variants(length: int, windows: int, device: str, dtype: torch.dtype) -> Variants:
    objective = NextToken()
    tokens_BT = torch.randint(VOCABULARY, (windows, length + 1), device=device)
    head = partial(objective, targets_BT=tokens_BT[:, 1:], softcap=None, regularized=True)

    def run(model: Transformer, optimizer: torch.optim.Optimizer, documents: Iterator[Tensor | None]) -> None:
        with torch.autocast(device, torch.bfloat16, enabled=dtype == torch.bfloat16):
            terms = model(tokens_BT[:, :-1], document_BT=next(documents), head=head)
        (terms.loss_sum / tokens_BT[:, 1:].numel()).backward()
        optimizer.step()
        optimizer.zero_grad()
        wait(device)

    def variant(form: type[Transformer], documents: Iterator[Tensor | None]) -> Callable[[], None]:
        with torch.device("meta"):
            model = form(CONFIG)
        model.materialize(device, 0)
        if device == "cuda":
            for block in model.blocks:
                block.compile()
        return partial(run, model, torch.optim.AdamW(model.parameters(), fused=True), documents)

    return {
        CAUSAL: variant(Transformer, repeat(None)),
        **{f"ours, {law}": variant(Transformer, draws(mean, windows, length, device)) for law, mean in LAWS.items()},
        DENSE: variant(DenselyMasked, draws(LAWS["long"], windows, length, device)),
    }


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def compare(report: Report, part: str, case: Case, windows: int, variants: Variants, rounds: int) -> None:
    timings = interleave(variants, rounds=rounds)
    causal, rows = timings[CAUSAL], []
    for name, timing in timings.items():
        row: Row = {"variant": name, "ms": timing.median * 1e3, "times causal": timing.ratio_to(causal)}
        rows.append(row | {"by cpu s": timing.cpu_ratio_to(causal)})
        if name.startswith("ours"):
            report.judge(
                f"document mask, {part}, {case.length:,} tokens, {name.split()[-1]} documents",
                ours=timing.median * 1e3,
                unit="ms",
                peer="causal attention",
                theirs=causal.median * 1e3,
                ratio=timing.ratio_to(causal),
                at_most=MOST,
            )
    report.add(f"{part}, {windows} windows of {case.length:,} tokens, {rounds} rounds", rows)


def main() -> None:
    options = make_parser(__doc__, rounds=7).parse_args()
    report = Report()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    types = [] if device == "cuda" else [torch.float32]
    if device == "cuda" or cpu_multiplies("bf16"):
        types.append(torch.bfloat16)
    for dtype, case in product(types, CASES):
        torch._dynamo.reset()  # else the second length is compiled for any
        rounds = options.rounds * CASES[-1].length // case.length
        attention_windows, step_windows = (
            (GPU_WINDOWS, GPU_WINDOWS) if device == "cuda" else (case.attention_windows, case.step_windows)
        )
        kind = f"{device}, {str(dtype).removeprefix('torch.')}"
        attention = attention_variants(case.length, attention_windows, device, dtype)
        compare(report, f"{kind}, attention", case, attention_windows, attention, rounds)
        step = step_variants(case.length, step_windows, device, dtype)
        compare(report, f"{kind}, model step", case, step_windows, step, rounds)
    report.write(options.json)


if __name__ == "__main__":
    main()

"""The chunked operator against PyTorch's own operators in float64."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mulligan.objective.linear_cross_entropy import (
    CHUNK_BYTES,
    CPU_CHUNK_BYTES,
    CPU_CHUNK_ROWS,
    GPU_CHUNK_ROWS,
    Terms,
    linear_cross_entropy,
    rows_of_a_chunk,
)
from mulligan.objective.next_token import plain_cross_entropy

Options = dict[str, float | None]
TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 1e-2, torch.float16: 1e-2, torch.float64: 1e-12}
DIGITS = {torch.bfloat16: 2.0**-9, torch.float16: 2.0**-12}  # what rounding takes from a number


def oracle(logits: Tensor, targets: Tensor, options: Options) -> tuple[Tensor, ...]:
    """loss, cross-entropy, z and smoothing sums, each written as its definition."""
    if options["softcap"]:
        logits = options["softcap"] * torch.tanh(logits / options["softcap"])
    counted = targets != -100
    bare = F.cross_entropy(logits, targets, reduction="sum")
    smooth = F.cross_entropy(logits, targets, reduction="sum", label_smoothing=options["label_smoothing"] or 0.0)
    z = options["z_loss"] * (torch.logsumexp(logits, 1)[counted] ** 2).sum()
    return smooth + z, bare, z, smooth - bare


def inputs(seed: int, tokens: int, vocab: int, width: int, scale: float, ignored: float) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(tokens, width, generator=generator) * scale
    weight = torch.randn(vocab, width, generator=generator) * width**-0.5
    targets = torch.randint(vocab, (tokens,), generator=generator)
    targets[torch.rand(tokens, generator=generator) < ignored] = -100
    return hidden, weight, targets


def assert_close_to_product(
    found: Tensor, left: Tensor, right: Tensor, tolerance: float, subtracted: Tensor | float = 0.0
) -> None:
    """``found`` is ``left @ right`` to ``tolerance``, against what the product sums up: terms of both signs cancel.

    ``subtracted`` is what has been taken from the entries of ``left``, which may have cancelled them already.
    """
    error = (found.double().cpu() - left @ right).abs().max()
    assert error <= tolerance * ((left.abs() + subtracted) @ right.abs()).max()


cases = {
    "seed": st.integers(0, 2**31),
    "tokens": st.integers(1, 40),
    "vocab": st.integers(2, 70),
    "width": st.integers(1, 24),
    "scale": st.sampled_from([0.1, 1.0, 2.0]),
    "ignored": st.sampled_from([0.0, 0.3, 1.0]),
    "z_loss": st.sampled_from([0.0, 1e-4, 0.1]),
    "label_smoothing": st.sampled_from([0.0, 0.1, 0.5]),
    "softcap": st.sampled_from([None, 5.0]),
    "chunk_rows": st.sampled_from([None, 1, 7]),
    "dtype": st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64]),
}


@given(**cases)
@settings(max_examples=250)
@pytest.mark.parametrize("form", [linear_cross_entropy, plain_cross_entropy])
def test_terms_and_gradients_match_float64(
    form, seed, tokens, vocab, width, scale, ignored, z_loss, label_smoothing, softcap, chunk_rows, dtype
) -> None:
    options = {"z_loss": z_loss, "label_smoothing": label_smoothing, "softcap": softcap}
    hidden, weight, targets = inputs(seed, tokens, vocab, width, scale, ignored)
    hidden, weight = hidden.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_()
    exact_hidden, exact_weight = hidden.detach().double(), weight.detach().double()
    logits = (exact_hidden @ exact_weight.T).requires_grad_()
    rows = {"chunk_rows": chunk_rows} if form is linear_cross_entropy else {}

    terms: Terms = form(hidden, weight, targets, **options, **rows)
    (terms.loss_sum * 0.25).backward()
    wanted = oracle(logits, targets, options)
    (wanted[0] * 0.25).backward()

    assert int(terms.num_counted) == int((targets != -100).sum())
    # A term sums differences of logits, or their squares: its error is measured against what was subtracted.
    peak = min(float(logits.detach().abs().max()), softcap or math.inf) + math.log(vocab)
    count = int(terms.num_counted)
    sizes = {"cross-entropy": peak * count, "z": z_loss * peak**2 * count, "smoothing": label_smoothing * peak * count}
    for found, exact, size in zip(terms[:4], wanted, (sum(sizes.values()), *sizes.values()), strict=True):
        assert (found - exact).abs() <= TOLERANCE[dtype] * size
    # Of two classes and smoothed by a half, a target is 0.75: a softmax of 0.75 leaves no digit of their difference.
    moved = label_smoothing * (F.one_hot(targets.clamp(min=0), vocab) - 1.0 / vocab).abs().double()
    # And a z-loss takes a target's p - 1 to p (1 + 2 z lse) - 1, which may be 0, by a share of p that is rounded.
    capped = logits.detach() if softcap is None else softcap * torch.tanh(logits.detach() / softcap)
    moved += 2.0 * z_loss * capped.logsumexp(1, keepdim=True).abs() * capped.softmax(1)
    moved[targets == -100] = 0.0
    moved *= 0.25
    # A logit of 7 rounded to bf16 is off by 1.4e-2 before any operator has touched it, and so is its probability.
    rounding = DIGITS.get(dtype, 0.0) * float(logits.detach().abs().max())
    tolerance = max(TOLERANCE[dtype], rounding)
    assert_close_to_product(hidden.grad, logits.grad, exact_weight, tolerance, moved)
    assert_close_to_product(weight.grad, logits.grad.T, exact_hidden, tolerance, moved.T)


def test_terms_add_up_and_alone_the_loss_has_a_gradient() -> None:
    hidden, weight, targets = inputs(0, 12, 30, 8, 1.0, 0.2)
    terms = linear_cross_entropy(hidden.requires_grad_(), weight, targets, z_loss=0.1, label_smoothing=0.1)
    torch.testing.assert_close(terms.loss_sum.detach(), terms.cross_entropy_sum + terms.z_sum + terms.smoothing_sum)
    assert [term.requires_grad for term in terms] == [True, False, False, False, False]


def test_autocast_gives_the_gradient_in_the_type_of_the_weight() -> None:
    hidden, weight, targets = inputs(1, 20, 50, 16, 1.0, 0.0)
    hidden, weight = hidden.requires_grad_(), weight.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        terms = linear_cross_entropy(hidden, weight, targets, z_loss=1e-4)
    terms.loss_sum.backward()
    assert (terms.loss_sum.dtype, hidden.grad.dtype, weight.grad.dtype) == (torch.float32,) * 3
    logits = hidden.double() @ weight.double().T
    exact = oracle(logits, targets, {"z_loss": 1e-4, "label_smoothing": 0.0, "softcap": None})
    torch.testing.assert_close(terms.loss_sum.double(), exact[0], rtol=1e-2, atol=0.0)


def test_float16_gradients_of_large_vocabularies_neither_vanish_nor_overflow() -> None:
    """Near the start a target's entry is a vocabulary times as large as the others: 1e5 is above float16's range."""
    hidden, weight, targets = inputs(5, 6, 100_000, 8, 0.1, 0.0)
    hidden, weight = hidden.half().requires_grad_(), weight.half().requires_grad_()
    linear_cross_entropy(hidden, weight, targets, z_loss=1e-4).loss_sum.backward()
    exact_hidden, exact_weight = (part.detach().double().requires_grad_() for part in (hidden, weight))
    linear_cross_entropy(exact_hidden, exact_weight, targets, z_loss=1e-4).loss_sum.backward()
    for found, exact in ((hidden.grad, exact_hidden.grad), (weight.grad, exact_weight.grad)):
        assert (found.double() - exact).norm() <= 1e-3 * exact.norm()


def test_columns_that_fill_several_tiles_and_blocks_of_rows_match_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mulligan.objective.linear_cross_entropy.TILE_ELEMENTS", 8 * 16)
    for module in ("linear_cross_entropy", "row_loss"):
        monkeypatch.setattr(f"mulligan.objective.{module}.SCRATCH_ELEMENTS", 4 * 61)
    hidden, weight, targets = inputs(6, 30, 61, 16, 1.0, 0.2)
    options = {"z_loss": 0.1, "label_smoothing": 0.1, "softcap": None}
    logits = (hidden.double() @ weight.double().T).requires_grad_()
    oracle(logits, targets, options)[0].backward()
    exact = hidden.double(), weight.double()
    linear_cross_entropy(hidden.requires_grad_(), weight.requires_grad_(), targets, **options).loss_sum.backward()
    assert_close_to_product(hidden.grad, logits.grad, exact[1], TOLERANCE[torch.float32])
    assert_close_to_product(weight.grad, logits.grad.T, exact[0], TOLERANCE[torch.float32])


@pytest.mark.parametrize(
    ("tokens", "vocabulary", "bytes_of_a_logit", "on_cpu", "most"),
    [
        (4096, 32_000, 4, True, CPU_CHUNK_BYTES // 128_000),
        (5000, 128_000, 4, True, CPU_CHUNK_ROWS),
        (100, 4096, 4, True, 100),
        (0, 9, 4, True, 1),
        (16_384, 32_000, 2, True, CHUNK_BYTES // 64_000),
        (16_384, 16_000, 4, False, CHUNK_BYTES // 64_000),
        (16_384, 128_000, 2, False, GPU_CHUNK_ROWS),
    ],
)
def test_chunks_are_within_their_bytes_and_of_one_size(
    tokens: int, vocabulary: int, bytes_of_a_logit: int, on_cpu: bool, most: int
) -> None:
    rows = rows_of_a_chunk(tokens, vocabulary, bytes_of_a_logit=bytes_of_a_logit, on_cpu=on_cpu)
    assert 1 <= rows <= most
    num_chunks = math.ceil(tokens / rows)
    assert num_chunks == math.ceil(tokens / most)  # no more of them than the bytes ask for
    assert num_chunks * rows - tokens < max(1, num_chunks)  # the last is short by less than a row a chunk


def test_no_tensor_is_larger_than_the_weight_or_a_chunk_and_the_weight_is_not_copied() -> None:
    hidden, weight, targets = inputs(7, 64, 100, 8, 1.0, 0.0)
    with RecordSizes() as made:
        linear_cross_entropy(hidden.requires_grad_(), weight.requires_grad_(), targets, z_loss=0.1, chunk_rows=16)
    assert max(made.sizes) == 16 * 100
    assert made.sizes.count(weight.numel()) == 1  # its gradient


def test_without_gradients_none_is_made() -> None:
    hidden, weight, targets = inputs(0, 12, 30, 8, 1.0, 0.2)
    weight.requires_grad_()
    with torch.no_grad(), CountProducts() as products:
        linear_cross_entropy(hidden, weight, targets)
    assert products.count == 1


class RecordSizes(TorchDispatchMode):
    """Elements of every storage that is made."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None) -> object:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and not any(arg.alias_info for arg in func._schema.returns):
            self.sizes.append(result.numel())
        return result


class CountProducts(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None) -> object:
        self.count += func.name().startswith(("aten::mm", "aten::addmm"))
        return func(*args, **(kwargs or {}))


def test_large_logits_stay_finite() -> None:
    hidden = torch.full((3, 4), 1e4, requires_grad=True)
    weight = torch.eye(5, 4)
    terms = linear_cross_entropy(hidden, weight, torch.tensor([0, 4, -100]))
    terms.loss_sum.backward()
    assert all(term.isfinite() for term in terms)
    assert hidden.grad.isfinite().all()


def test_a_second_backward_is_refused() -> None:
    hidden, weight, targets = inputs(2, 5, 9, 4, 1.0, 0.0)
    terms = linear_cross_entropy(hidden.requires_grad_(), weight, targets)
    terms.loss_sum.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="one backward"):
        terms.loss_sum.backward()


def test_a_second_derivative_is_refused() -> None:
    hidden, weight, targets = inputs(2, 5, 9, 4, 1.0, 0.0)
    terms = linear_cross_entropy(hidden.requires_grad_(), weight, targets)
    with pytest.raises(RuntimeError, match="no second derivative: leave create_graph at False"):
        torch.autograd.grad(terms.loss_sum, hidden, create_graph=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"z_loss": -1.0}, "z_loss"),
        ({"z_loss": math.nan}, "z_loss=nan must be a number that is not negative"),
        ({"softcap": 0.0}, "softcap=0.0 must be a number above 0"),
        ({"softcap": math.inf}, "softcap=inf"),
        ({"chunk_rows": 0}, "chunk_rows=0 must be at least 1"),
        ({"targets_N": torch.zeros(2, dtype=torch.int64)}, "targets"),
        ({"weight_VD": torch.zeros(5, 3)}, "weight"),
    ],
)
def test_wrong_input_is_named(change: dict[str, object], message: str) -> None:
    hidden, weight, targets = inputs(3, 4, 5, 6, 1.0, 0.0)
    with pytest.raises(ValueError, match=message):
        linear_cross_entropy(**({"hidden_ND": hidden, "weight_VD": weight, "targets_N": targets} | change))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_gpu_gives_the_same(dtype: torch.dtype) -> None:
    hidden, weight, targets = inputs(4, 300, 1000, 64, 1.0, 0.1)
    options = {"z_loss": 1e-4, "label_smoothing": 0.1, "softcap": None}
    hidden, weight = hidden.to("cuda", dtype).requires_grad_(), weight.to("cuda", dtype).requires_grad_()
    terms = linear_cross_entropy(hidden, weight, targets.cuda(), chunk_rows=64, **options)
    terms.loss_sum.backward()
    exact_hidden, exact_weight = (part.detach().double().cpu() for part in (hidden, weight))
    logits = (exact_hidden @ exact_weight.T).requires_grad_()
    wanted = oracle(logits, targets, options)
    wanted[0].backward()
    torch.testing.assert_close(terms.loss_sum.double().cpu(), wanted[0], rtol=TOLERANCE[dtype], atol=0.0)
    assert_close_to_product(hidden.grad, logits.grad, exact_weight, TOLERANCE[dtype])
    assert_close_to_product(weight.grad, logits.grad.T, exact_hidden, TOLERANCE[dtype])

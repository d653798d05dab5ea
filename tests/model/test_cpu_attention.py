"""The CPU's attention operator and its backward pass by products, against float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mulligan.compilers import can_compile_for_cpu
from mulligan.model import attention, cpu_attention
from mulligan.model.attention import Attention, Positions
from mulligan.model.config import ModelConfig
from mulligan.model.cpu_attention import (
    _pieces,
    attend_apart,
    attend_apart_backward,
    by_products,
    flash,
    flash_backward,
)
from mulligan.model.document_attention import dense_mask
from tests.model.test_document_attention import begins

CUT_AND_WHOLE_ROWS = [[3, 4], [7], [7], [1, 6]]


def random_inputs(batch: int, length: int, heads: tuple[int, ...], *, std: float = 1.0) -> list[Tensor]:
    """Queries, keys, values and the result's gradient in bfloat16, of so many heads; queries and keys of that size."""
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(batch, length, count, 32, generator=generator).transpose(1, 2) for count in heads]
    return [(x * size).bfloat16() for x, size in zip(drawn, (std, std, 1.0, 1.0), strict=True)]


def test_rows_of_one_document_are_one_piece() -> None:
    rows_and_places = [(at[0], at[2]) for at in _pieces(begins([[7], [7], [3, 4], [7]]))]
    whole = slice(None)
    apart = [(slice(2, 3), slice(0, 3)), (slice(2, 3), slice(3, 7))]
    assert rows_and_places == [(slice(0, 2), whole), *apart, (slice(3, 4), whole)]


def test_neighbours_in_a_row_are_one_piece_while_they_are_short() -> None:
    pieces = _pieces(begins([[1, 2, 4], [1, 6], [2, 2, 2, 1], [7], [3, 4]]), 4)
    spans = [(at[0].start, at[2].start, at[2].stop) for at in pieces]
    assert spans == [
        (0, 0, 3),
        (0, 3, 7),
        (1, 0, 1),
        (1, 1, 7),
        (2, 0, 4),
        (2, 4, 7),
        (3, None, None),
        (4, 0, 3),
        (4, 3, 7),
    ]


@pytest.mark.parametrize("begins_BT", [begins(CUT_AND_WHOLE_ROWS), None], ids=["documents", "whole rows"])
def test_the_operator_keeps_what_it_tells_the_compiler(begins_BT: Tensor | None) -> None:
    q, k, v, _ = (x.requires_grad_() for x in random_inputs(4, 7, (4, 2, 2, 4)))
    torch.library.opcheck(attend_apart, (q, k, v, begins_BT))


@pytest.mark.parametrize(
    ("std", "length"), [(1.0, 100), (3.0, 100), (8.0, 100), (60.0, 512)]  # at 60 a score is up to 13,000
)  # fmt: skip
@pytest.mark.parametrize("num_groups", [4, 2, 1])
def test_products_give_the_gradients_of_float64(num_groups: int, std: float, length: int) -> None:
    q, k, v, grad = random_inputs(2, length, (4, num_groups, num_groups, 4), std=std)
    exact = [x.double().requires_grad_() for x in (q, k, v)]
    result = F.scaled_dot_product_attention(*exact, is_causal=True, enable_gqa=True)
    wanted = torch.autograd.grad(result, exact, grad.double())
    out, log_sum = flash(q, k, v, is_causal=True)
    ours = by_products(grad, q, k, v, out, log_sum)
    told = by_products(grad, q, k, v, out, log_sum, sees_TT=torch.ones(length, length).tril())
    assert all(one.equal(other) for one, other in zip(ours, told, strict=True))
    flashs = flash_backward(grad, q, k, v, out, log_sum, 0.0, True)
    for one, flashs_one, wanted_one in zip(ours, flashs, wanted, strict=True):
        error, flashs_error = ((x - wanted_one).norm() / wanted_one.norm() for x in (one, flashs_one))
        assert error < max(0.01, 2.0 * flashs_error)


@pytest.mark.parametrize("num_groups", [4, 1])
@pytest.mark.parametrize("std", [1.0, 60.0])
def test_documents_taken_back_together_give_the_gradients_of_float64(
    monkeypatch: pytest.MonkeyPatch, num_groups: int, std: float
) -> None:
    monkeypatch.setattr(cpu_attention, "HAS_MATRIX_UNITS", True)
    rows = [[1, 2, 37, 560], [200, 200, 112, 87, 1], [3, 597], [511, 1, 88], [600]]
    begins_BT = begins(rows)
    q, k, v, grad = random_inputs(5, 600, (4, num_groups, num_groups, 4), std=std)
    exact = [x.double().requires_grad_() for x in (q, k, v)]
    result = F.scaled_dot_product_attention(*exact, attn_mask=dense_mask(begins_BT), enable_gqa=True)
    wanted = torch.autograd.grad(result, exact, grad.double())
    forward = attend_apart(q, k, v, begins_BT)
    ours = attend_apart_backward(grad, q, k, v, *forward, begins_BT)
    monkeypatch.setattr(cpu_attention, "HAS_MATRIX_UNITS", False)
    flashs = attend_apart_backward(grad, q, k, v, *forward, begins_BT)
    for one, flashs_one, wanted_one in zip(ours, flashs, wanted, strict=True):
        for row in range(len(rows)):
            error, flashs_error = ((x - wanted_one)[row].norm() / wanted_one[row].norm() for x in (one, flashs_one))
            assert error < max(0.01, 2.0 * flashs_error)


@pytest.mark.parametrize("begins_BT", [begins([[100]] * 5), begins([[100], [30, 70], [100], [99, 1], [100]]), None])
def test_rows_and_heads_are_taken_back_a_few_at_a_time(
    monkeypatch: pytest.MonkeyPatch, begins_BT: Tensor | None
) -> None:
    q, k, v, grad = random_inputs(5, 100, (6, 3, 3, 6))
    forward = attend_apart(q, k, v, begins_BT)

    def gradients(*, pairs: int, has_matrix_units: bool = True) -> tuple[Tensor, ...]:
        monkeypatch.setattr(cpu_attention, "HAS_MATRIX_UNITS", has_matrix_units)
        monkeypatch.setattr(cpu_attention, "PAIRS", pairs)
        return attend_apart_backward(grad, q, k, v, *forward, begins_BT)

    at_once, flashs = gradients(pairs=2**21), gradients(pairs=2**21, has_matrix_units=False)
    for one, flashs_one in zip(at_once, flashs, strict=True):
        assert not one.equal(flashs_one)  # made in the other way
        assert (one - flashs_one).norm() < 0.02 * flashs_one.norm()
    for pairs in (1, 45_000, 130_000):  # a row of a key-value head has 20,000: one, two of them, two rows
        for one, wanted in zip(gradients(pairs=pairs), at_once, strict=True):
            assert one.equal(wanted)


@pytest.mark.parametrize(
    ("chosen", "length", "dtype", "training", "dropout"),
    [
        (True, 64, torch.bfloat16, True, 0.0),
        (False, 63, torch.bfloat16, True, 0.0),
        (False, 513, torch.bfloat16, True, 0.0),
        (False, 64, torch.float32, True, 0.0),
        (False, 64, torch.bfloat16, False, 0.0),
        (False, 64, torch.bfloat16, True, 0.1),
    ],
)
def test_training_in_bfloat16_takes_the_operator_where_it_pays(
    monkeypatch: pytest.MonkeyPatch, chosen: bool, length: int, dtype: torch.dtype, training: bool, dropout: float
) -> None:
    calls = []
    monkeypatch.setattr(cpu_attention, "HAS_MATRIX_UNITS", True)
    monkeypatch.setattr(attention, "attend_apart", lambda *inputs: calls.append(inputs) or attend_apart(*inputs))
    config = ModelConfig(
        vocab_size=50, max_length=600, width=32, num_layers=1, num_heads=4, feedforward_width=24, dropout=dropout
    )
    layer = Attention(config).to(dtype).train(training)
    hidden_BTD = torch.randn(1, length, 32, dtype=dtype)
    result = layer(hidden_BTD, Positions(None, None, None, None))
    assert bool(calls) == chosen
    if chosen:
        monkeypatch.setattr(cpu_attention, "HAS_MATRIX_UNITS", False)
        torch.testing.assert_close(result, layer(hidden_BTD, Positions(None, None, None, None)))


@pytest.mark.slow  # compiles for half a minute
@pytest.mark.skipif(not can_compile_for_cpu(), reason="needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")  # PyTorch's own while it compiles
def test_a_compiled_layer_takes_the_operator_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_attention, "HAS_MATRIX_UNITS", True)
    config = ModelConfig(vocab_size=50, max_length=64, width=64, num_layers=1, num_heads=4, feedforward_width=24)
    layer = Attention(config).bfloat16()
    hidden_BTD = torch.randn(2, 64, 64, dtype=torch.bfloat16)

    def result_and_gradients() -> list[Tensor]:
        layer.zero_grad()
        result = layer(hidden_BTD, Positions(None, None, None, None))
        result.float().square().sum().backward()
        return [result, *(parameter.grad for parameter in layer.parameters() if parameter.grad is not None)]

    eager = result_and_gradients()
    layer.compile(fullgraph=True)
    for one, wanted in zip(result_and_gradients(), eager, strict=True):
        assert (one - wanted).norm() < 0.01 * wanted.norm()

"""Clipping as PyTorch does it, on whole gradients and on shards, and the updates that are left out."""

import math
from collections.abc import Callable
from copy import deepcopy
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.optim import SGD, Adafactor, AdamW, Optimizer

from mulligan.training.clipping import OVERFLOWED, WITHHELD, Clipping, _measure
from mulligan.training.loss_scale import LossScale

SUMS = torch.tensor([5.0, 2.0])
NOT_FUSED = pytest.mark.parametrize(
    "make",
    [
        partial(SGD, lr=0.1),
        partial(SGD, lr=0.1, momentum=0.9, foreach=True),
        partial(AdamW, lr=0.1, foreach=False),
        partial(AdamW, lr=0.1, foreach=True),
        partial(Adafactor, lr=0.1),
    ],
)


def parameters() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    made = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((3, 4), (5,), (0, 4))]
    for one in made:
        one.grad = torch.randn(one.shape, generator=generator)
    return made


@pytest.mark.parametrize("max_norm", [0.5, 100.0])
def test_shards_are_clipped_as_pytorch_clips(max_norm: float) -> None:
    plain, sharded = parameters(), [one.grad for one in parameters()]
    norm = torch.nn.utils.clip_grad_norm_(plain, max_norm)
    found, divisor, sums_2 = _measure(sharded, max_norm, SUMS, copies=[1] * 3)
    torch.testing.assert_close(found, norm)
    torch.testing.assert_close([one / divisor for one in sharded], [one.grad for one in plain])
    assert sums_2.tolist() == [5.0, 2.0]


def test_what_several_ranks_have_counts_once() -> None:
    gradients = [torch.tensor([3.0, 4.0]), torch.tensor([6.0, 8.0, 0.0]), torch.tensor([24.0, 0.0])]
    norm, divisor, sums_2 = _measure(gradients, 13.0, SUMS, copies=[1, 4, 4])
    assert norm.item() == pytest.approx((25 + 100 / 4 + 576 / 4) ** 0.5)
    assert divisor.item() == pytest.approx(norm.item() / 13.0)
    assert sums_2.equal(SUMS)


def test_the_norm_of_gradients_in_bf16_is_not_rounded_to_it() -> None:
    gradients = [torch.full((3,), 1.0, dtype=torch.bfloat16), torch.full((70,), 0.1, dtype=torch.bfloat16)]
    norm, _, _ = _measure(gradients, 1.0, SUMS)
    exact = torch.cat(gradients).double().norm()
    assert norm.dtype == torch.float32
    torch.testing.assert_close(norm.double(), exact, rtol=1e-6, atol=0.0)


def test_shards_in_bf16_leave_the_sums_alone() -> None:
    exact = torch.tensor([4620289.0, 2097153.0])
    *_, sums_2 = _measure([torch.ones(3, dtype=torch.bfloat16)], 1.0, exact, copies=[1])
    assert sums_2.equal(exact)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("way", ["withhold", "limit", "make"])
def test_weights_of_any_type_are_withheld_and_moved(dtype: torch.dtype, way: str) -> None:
    held = [torch.ones(3, dtype=dtype, requires_grad=True)]
    held[0].grad = torch.ones(3, dtype=dtype)
    optimizer, clipping = AdamW(held, lr=0.1, fused=True), Clipping(0.5)
    clipping.limit = -1.0 if way == "limit" else None
    clipping(optimizer, SUMS, withhold=way == "withhold")
    optimizer.step()
    assert held[0].equal(torch.ones(3, dtype=dtype)) == (way != "make")
    if way == "make":
        torch.testing.assert_close(held[0].grad, torch.full((3,), 0.5 / 3**0.5, dtype=dtype), rtol=1e-2, atol=0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("max_norm", [0.5, None])
def test_the_optimizer_makes_the_update_of_a_clipped_gradient(max_norm: float | None, dtype: torch.dtype) -> None:
    plain, ours = ([one.detach().to(dtype).requires_grad_() for one in parameters()] for _ in range(2))
    for one, other, drawn in zip(plain, ours, parameters(), strict=True):
        assert drawn.grad is not None
        one.grad, other.grad = drawn.grad.to(dtype), drawn.grad.to(dtype)
    torch.nn.utils.clip_grad_norm_(plain, max_norm or math.inf)
    first, second = (torch.optim.SGD(held, lr=1.0, fused=True) for held in (plain, ours))  # moves by the gradient
    Clipping(max_norm)(second, SUMS)
    first.step()
    second.step()
    torch.testing.assert_close(ours, plain)


@pytest.mark.parametrize(
    ("limit", "spoilt", "is_withheld"),
    [
        (None, 0.0, None),
        (1e3, 0.0, 0.0),
        (1e3, math.nan, 1.0),
        (math.inf, math.inf, 1.0),
        (0.1, 0.0, 1.0),
        (-1.0, 0.0, 1.0),
    ],
)
def test_an_update_above_the_limit_moves_neither_weights_nor_moments(
    limit: float | None, spoilt: float, is_withheld: float | None
) -> None:
    held = parameters()
    before = [one.detach().clone() for one in held]
    optimizer, clipping = AdamW(held, fused=True), Clipping(1.0)
    clipping.limit = limit
    held[0].grad += spoilt
    assert clipping(optimizer, SUMS) is SUMS
    optimizer.step()
    assert (None if clipping.left_out is None else clipping.left_out.item()) == is_withheld
    moved = [not one.equal(old) for one, old in zip(held, before, strict=True)]
    assert moved == ([False] * 3 if is_withheld else [True, True, False])
    assert float(optimizer.state[held[1]]["step"]) == (0.0 if is_withheld else 1.0)


def test_an_update_to_withhold_is_left_out_below_the_limit_too() -> None:
    clipping = Clipping(0.5)
    clipping.limit = 1e3
    clipping(AdamW(parameters(), fused=True), SUMS, withhold=True)
    assert clipping.left_out is not None
    assert clipping.left_out.item() == WITHHELD


def test_a_limit_that_is_lifted_withholds_nothing_more() -> None:
    held = parameters()
    optimizer, clipping = AdamW(held, fused=True), Clipping(None)
    clipping.limit = -1.0
    clipping(optimizer, SUMS)
    clipping.limit = None
    clipping(optimizer, SUMS)
    optimizer.step()
    assert float(optimizer.state[held[0]]["step"]) == 1.0


@pytest.mark.parametrize("copies", [(), (1, 1, 1)])
@pytest.mark.parametrize("max_norm", [0.5, 100.0])
def test_gradients_too_large_by_the_scale_are_clipped_as_without_it(max_norm: float, copies: tuple[int, ...]) -> None:
    plain, scaled = parameters(), [one.grad * 2.0**16 for one in parameters()]
    norm = torch.nn.utils.clip_grad_norm_(plain, max_norm)
    found, divisor, _ = _measure(scaled, max_norm, SUMS, copies=copies, scale=torch.tensor(2.0**16))
    torch.testing.assert_close(found, norm)
    torch.testing.assert_close([one / divisor for one in scaled], [one.grad for one in plain])


@pytest.mark.parametrize(
    ("limit", "scale", "spoilt", "loss", "left_out", "found_inf", "scale_after"),
    [
        (None, 4.0, 0.0, 5.0, 0.0, 0.0, 4.0),
        (None, 4.0, math.inf, 5.0, OVERFLOWED, 1.0, 2.0),  # also where nothing guards
        (1e3, 4.0, math.nan, 5.0, OVERFLOWED, 1.0, 2.0),
        (1e3, 1.0, math.inf, 5.0, WITHHELD, 1.0, 1.0),  # no smaller scale would help
        (1e3, 4.0, math.nan, math.nan, WITHHELD, 1.0, 4.0),
        (None, 4.0, math.nan, math.nan, 0.0, 0.0, 4.0),
        (0.1, 4.0, 0.0, 5.0, WITHHELD, 1.0, 4.0),
        (-1.0, 4.0, 0.0, 5.0, WITHHELD, 1.0, 4.0),
    ],
)
def test_an_overflow_is_told_from_a_bad_gradient(
    limit: float | None, scale: float, spoilt: float, loss: float, left_out: float, found_inf: float, scale_after: float
) -> None:
    held, loss_scale = parameters(), LossScale(start=scale)
    before = [one.detach().clone() for one in held]
    optimizer, clipping = AdamW(held, fused=True), Clipping(1.0, loss_scale)
    clipping.limit = limit
    held[0].grad += spoilt
    clipping(optimizer, torch.tensor([loss, 2.0]))
    optimizer.step()
    assert (clipping.left_out.item(), optimizer.found_inf.item(), loss_scale.scale.item()) == (
        left_out, found_inf, scale_after
    )  # fmt: skip
    assert all(one.equal(old) for one, old in zip(held, before, strict=True)) == bool(found_inf)


@NOT_FUSED
@pytest.mark.parametrize("scale", [None, 2.0**16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_optimizer_that_is_not_fused_makes_the_update_of_a_clipped_gradient(
    make: Callable[..., Optimizer], scale: float | None, dtype: torch.dtype
) -> None:
    plain, ours = ([one.detach().to(dtype).requires_grad_() for one in parameters()[:2]] for _ in range(2))
    first, second = make(plain), make(ours)
    clipping = Clipping(0.5, None if scale is None else LossScale(start=scale))
    clipping.limit = 1e3
    for _ in range(2):
        for one, other, drawn in zip(plain, ours, parameters(), strict=False):
            assert drawn.grad is not None
            one.grad = drawn.grad.to(dtype)
            other.grad = one.grad * (scale or 1.0)
        torch.nn.utils.clip_grad_norm_(plain, 0.5)
        clipping(second, SUMS)
        first.step()
        second.step()
    torch.testing.assert_close(ours, plain)


@NOT_FUSED
@pytest.mark.parametrize(
    ("limit", "scale", "spoilt"), [(1e3, None, math.nan), (0.1, None, 0.0), (-1.0, None, 0.0), (None, 4.0, math.inf)]
)
def test_an_optimizer_that_is_not_fused_is_kept_from_a_bad_update(
    make: Callable[..., Optimizer], limit: float | None, scale: float | None, spoilt: float
) -> None:
    held = parameters()[:2]
    optimizer, clipping = make(held), Clipping(1.0, None if scale is None else LossScale(start=scale))
    clipping(optimizer, SUMS)
    optimizer.step()
    before = deepcopy(([one.detach() for one in held], optimizer.state_dict()["state"]))
    for one, drawn in zip(held, parameters(), strict=False):
        assert drawn.grad is not None
        one.grad = drawn.grad + spoilt
    clipping.limit = limit
    clipping(optimizer, SUMS)
    optimizer.step()
    assert clipping.left_out is not None
    assert clipping.left_out.item()
    after = ([one.detach() for one in held], optimizer.state_dict()["state"])
    torch.testing.assert_close(after, before, rtol=0.0, atol=0.0)

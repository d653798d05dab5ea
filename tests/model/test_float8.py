"""Float8 products: their rounding is that of the format, in the layers of the blocks and nowhere else."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from mulligan.model.config import ModelConfig
from mulligan.model.float8 import Float8Linears
from mulligan.model.transformer import Transformer

SHAPE = ModelConfig(
    vocab_size=40, max_length=32, width=64, num_layers=2, num_heads=4, num_key_value_heads=2, feedforward_width=96,
    bias=True,
)  # fmt: skip
CPU = torch.device("cpu")
PLACE = {"device": CPU, "precision": "32-true", "tensor_parallel_size": 1, "micro_batch": 1, "sequence_length": 32}


def built(float8: Float8Linears | None) -> Transformer:
    with torch.device("meta"):
        model = Transformer(SHAPE)
    if float8 is not None:
        float8.convert(model)
    return model.materialize(CPU, seed=0)


def product_error(*mantissa_bits: int) -> float:
    """Of a product of random factors, relative, by the bits that rounding leaves each: an entry is off by up to half
    a spacing, evenly, and its mantissa lies in [1, 2), evenly in its logarithm.
    """
    return math.sqrt(sum((2.0 ** -(bits + 1)) ** 2 / 3 / (3 / (2 * math.log(2))) for bits in mantissa_bits))


def relative_error(rounded: Tensor | None, exact: Tensor | None) -> float:
    assert rounded is not None
    assert exact is not None
    return float((rounded.double() - exact).norm() / exact.norm())


def test_layers_of_blocks_are_converted_and_all_weights_stay() -> None:
    model, plain = built(Float8Linears(recipe="rowwise", emulate=True)), built(None)
    converted = {name for name, module in model.named_modules() if type(module).__name__ == "Float8Linear"}
    linears = {name for name, module in plain.named_modules() if isinstance(module, nn.Linear)}
    assert converted == linears - {"head"}
    state = plain.state_dict()
    assert list(model.state_dict()) == list(state)
    assert all(torch.equal(weight, state[name]) for name, weight in model.state_dict().items())


E4M3, E5M2 = 3, 2  # bits of a mantissa


@pytest.mark.parametrize(
    ("recipe", "output", "input_gradient", "weight_gradient"),
    [
        ("rowwise", (E4M3, E4M3), (E4M3, E4M3), (E4M3, E4M3)),
        ("rowwise_with_gw_hp", (E4M3, E4M3), (E4M3, E4M3), ()),
        ("tensorwise", (E4M3, E4M3), (E5M2, E4M3), (E5M2, E4M3)),
    ],
)
def test_products_are_as_exact_as_their_bits(
    recipe, output: tuple[int, ...], input_gradient: tuple[int, ...], weight_gradient: tuple[int, ...]
) -> None:
    layer = built(Float8Linears(recipe=recipe, emulate=True)).blocks[0].feedforward.up
    generator = torch.Generator().manual_seed(1)
    x_ND, gradient_NF = (torch.randn(512, size, generator=generator) for size in (SHAPE.width, SHAPE.feedforward_width))
    x_ND.requires_grad_()
    y_NF = layer(x_ND)
    y_NF.backward(gradient_NF)
    weight_FD = layer.weight.detach().double()
    exact = (x_ND.double() @ weight_FD.T, gradient_NF.double() @ weight_FD, gradient_NF.double().T @ x_ND.double())
    got = (y_NF.detach(), x_ND.grad, layer.weight.grad)
    for rounded, wanted, bits in zip(got, exact, (output, input_gradient, weight_gradient), strict=True):
        assert relative_error(rounded, wanted.detach()) == pytest.approx(product_error(*bits), rel=0.15, abs=1e-6)


def test_a_block_forward_and_backward_errs_by_some_percent() -> None:
    tokens_BT = torch.randint(SHAPE.vocab_size, (4, 32), generator=torch.Generator().manual_seed(2))
    model, exact = built(Float8Linears(recipe="rowwise", emulate=True)), built(None).double()
    for one in (model, exact):
        one(tokens_BT).square().sum().backward()
    wanted = dict(exact.named_parameters())
    for name, weight in model.named_parameters():
        if name.startswith("blocks") and weight.ndim == 2:
            assert 0.01 < relative_error(weight.grad, wanted[name].grad) < 0.15, name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tensor_parallel_size": 2}, "trainer.strategy.tensor_parallel_size=2 splits the layers"),
        ({"precision": "16-mixed"}, "precision=bf16-mixed or bf16-true or 32-true, not 16-mixed"),
        ({"sequence_length": 24}, "needs multiples of 16: micro_batch=1 x sequence_length is 24"),
    ],
)
def test_what_cannot_be_trained_so_is_refused(change: dict[str, object], message: str) -> None:
    float8 = Float8Linears(recipe="rowwise", emulate=True)
    float8.check(SHAPE, **PLACE)
    with pytest.raises(ValueError, match=message):
        float8.check(SHAPE, **PLACE | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 72}, "model.width is 72"),
        ({"num_heads": 8, "num_key_value_heads": 1}, "x key-value heads is 8"),
        ({"feedforward_width": 100}, "model.feedforward_width is 100"),
    ],
)
def test_every_size_of_a_layer_is_a_multiple(change: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Float8Linears(recipe="rowwise", emulate=True).check(replace(SHAPE, **change), **PLACE)


def test_autocast_of_the_cpu_is_not_for_products_of_two_types() -> None:
    with pytest.raises(ValueError, match="goes with precision=bf16-true or 32-true, not bf16-mixed"):
        Float8Linears(recipe="rowwise_with_gw_hp", emulate=True).check(SHAPE, **PLACE | {"precision": "bf16-mixed"})


def test_a_gpu_must_have_the_products_and_be_asked_for_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    float8, place = Float8Linears(recipe="rowwise"), PLACE | {"device": torch.device("cuda")}
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    with pytest.raises(ValueError, match=r"compute capability 8\.9 or more, and cuda has no such products"):
        float8.check(SHAPE, **place | {"precision": "bf16-mixed"})
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    float8.check(SHAPE, **place | {"precision": "bf16-mixed"})
    with pytest.raises(ValueError, match="precision=bf16-mixed or bf16-true, not 32-true"):
        float8.check(SHAPE, **place)

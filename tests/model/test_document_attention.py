"""Attention inside documents: every form against the dense mask, in float64."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import flex_attention

from mulligan.model import transformer
from mulligan.model.config import ModelConfig
from mulligan.model.document_attention import attend_inside, begins_of, block_mask, dense_mask
from mulligan.model.transformer import Transformer

ROWS = {  # lengths of the documents of each row
    "one document": [[37]],
    "single tokens": [[1] * 9],
    "cut and whole rows": [[5, 1, 31], [37], [37], [1, 36]],
    "whole rows at the ends": [[20], [20], [7, 13], [20]],
    "one position": [[1], [1]],
    "longer than a block of the kernel": [[300, 501], [799, 2]],
}

# What the compiler itself does.
JIT = pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
LEAF = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")


def begins(rows: list[list[int]]) -> Tensor:
    return begins_of(torch.stack([torch.arange(len(row)).repeat_interleave(torch.tensor(row)) for row in rows]))


def random_inputs(begins_BT: Tensor, num_heads: int, num_groups: int, *, width: int = 16) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    batch, length = begins_BT.shape
    heads = (num_heads, num_groups, num_groups, num_heads)  # of q, k, v and the result's gradient
    return [torch.randn(batch, length, count, width, generator=generator).transpose(1, 2) for count in heads]


def model(*, width: int = 64, dropout: float = 0.0, device: str = "cpu") -> Transformer:
    config = ModelConfig(
        vocab_size=50, max_length=512, width=width, num_layers=2, num_heads=4, num_key_value_heads=2,
        feedforward_width=24, dropout=dropout,
    )  # fmt: skip
    with torch.device("meta"):
        empty = Transformer(config)
    return empty.materialize(device, 0)


def reference(q: Tensor, k: Tensor, v: Tensor, begins_BT: Tensor) -> Tensor:
    """Softmax written out, over pairs of which the key is no later than the query and no begin lies between."""
    seen_BTT = torch.zeros(*begins_BT.shape, begins_BT.shape[1], dtype=torch.bool)
    for row, begins_T in enumerate(begins_BT):
        for start, end in pairwise([*begins_T.nonzero().flatten().tolist(), len(begins_T)]):
            seen_BTT[row, start:end, start:end] = torch.ones(end - start, end - start, dtype=torch.bool).tril()
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~seen_BTT.unsqueeze(1), -torch.inf)
    return scores.softmax(-1) @ v


def check_against_reference(begins_BT: Tensor, num_heads: int, num_groups: int) -> None:
    *inputs, grad = random_inputs(begins_BT, num_heads, num_groups)
    results = []
    for attend, dtype in ((reference, torch.float64), (attend_inside, torch.float64), (attend_inside, torch.float32)):
        qkv = [x.to(dtype, copy=True).requires_grad_() for x in inputs]
        result = attend(*qkv, begins_BT)
        results.append((result, *torch.autograd.grad(result, qkv, grad.to(dtype))))
    for wanted, double, single in zip(*results, strict=True):
        torch.testing.assert_close(double, wanted, rtol=1e-12, atol=1e-12)
        assert (single - wanted).norm() <= 1e-6 * max(wanted.norm(), grad.norm())


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("num_groups", [4, 2, 1])
def test_forward_and_gradients_equal_those_of_a_dense_mask(rows: list[list[int]], num_groups: int) -> None:
    check_against_reference(begins(rows), num_heads=4, num_groups=num_groups)


@given(st.data())
@settings(max_examples=30)
def test_any_documents_give_the_numbers_of_a_dense_mask(data: st.DataObject) -> None:
    batch, length = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 70))
    flags = st.lists(st.booleans(), min_size=length, max_size=length)
    document_BT = torch.tensor(data.draw(st.lists(flags, min_size=batch, max_size=batch))).cumsum(1)
    check_against_reference(begins_of(document_BT), num_heads=2, num_groups=data.draw(st.sampled_from([1, 2])))


def test_a_document_begins_where_the_number_changes_and_with_each_row() -> None:
    document_BT = torch.tensor([[3, 3, 4, 4, 3], [3, 3, 3, 3, 3]])
    assert begins_of(document_BT).int().tolist() == [[1, 0, 1, 0, 1], [1, 0, 0, 0, 0]]
    apart = torch.block_diag(torch.ones(2, 2), torch.ones(2, 2), torch.ones(1, 1)).tril().bool()
    assert dense_mask(begins_of(document_BT))[0, 0].equal(apart)


@pytest.mark.parametrize("rows", [*ROWS.values(), [[128, 384], [512]], [[100, 412], [1] * 512]])
def test_the_block_mask_is_that_of_the_dense_mask(rows: list[list[int]]) -> None:
    begins_BT = begins(rows)
    (batch, length), dense_B1TT = begins_BT.shape, dense_mask(begins_BT)
    ours = block_mask(begins_BT)
    wanted = flex_attention.create_block_mask(
        lambda b, h, q, k: dense_B1TT[b, 0, q, k], batch, None, length, length, device="cpu"
    )
    assert ours.shape == wanted.shape
    for name in ("kv", "full_kv", "q", "full_q"):
        for part in ("num_blocks", "indices"):
            assert getattr(ours, f"{name}_{part}").equal(getattr(wanted, f"{name}_{part}")), f"{name}_{part}"


@JIT
@pytest.mark.parametrize("rows", [ROWS["cut and whole rows"], ROWS["longer than a block of the kernel"]])
def test_flex_attention_gives_the_numbers_of_a_dense_mask(
    rows: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flex_attention, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)  # compiling takes 20 s
    begins_BT = begins(rows)
    q, k, v, _ = random_inputs(begins_BT, 4, 2)
    with torch.compiler.set_stance("force_eager"):
        result = attend_inside(q, k, v, block_mask(begins_BT))
    torch.testing.assert_close(result, F.scaled_dot_product_attention(q, k, v, dense_mask(begins_BT), enable_gqa=True))


def test_the_block_mask_asks_the_device_for_no_value() -> None:
    with FakeTensorMode():  # which has none to give, and raises
        assert block_mask(torch.empty(2, 300, dtype=torch.bool)).shape == (2, 1, 300, 300)


@pytest.mark.parametrize(
    ("network", "compiles", "flexes"),
    [
        (model(), True, True),
        (model(), False, False),
        (model().eval(), True, False),
        (model(dropout=0.1), True, False),
        (model(width=32), True, False),  # heads of 8
        (model().double(), True, False),
    ],
)
def test_a_gpu_trains_with_the_block_mask_where_it_can(
    network: Transformer, compiles: bool, flexes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transformer, "can_compile_for_cuda", lambda: compiles)
    monkeypatch.setattr(transformer, "block_mask", lambda begins_BT: begins_BT)
    with FakeTensorMode():  # its tensors can say they are on a GPU where there is none
        mask_B1TT, documents = network._documents(torch.empty(2, 300, dtype=torch.bool, device="cuda"))
    assert (documents is not None) == flexes
    assert (mask_B1TT is None) == flexes


def test_with_dropout_attention_still_stays_inside() -> None:
    network = model(dropout=0.5)
    first_BT = torch.arange(24).view(2, 12)
    changed_BT, document_BT = first_BT.clone(), torch.tensor([[0] * 5 + [1] * 7] * 2)
    changed_BT[:, :5] += 1
    outputs = []
    for tokens_BT in (first_BT, changed_BT):
        torch.manual_seed(0)
        outputs.append(network(tokens_BT, document_BT=document_BT))
    assert outputs[0][:, 5:].equal(outputs[1][:, 5:])
    assert not outputs[0][:, :5].equal(outputs[1][:, :5])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2e-2), (torch.float16, 3e-3)])
def test_under_autocast_it_is_a_rounded_float32(dtype: torch.dtype, tolerance: float) -> None:
    network = model()
    tokens_BT = torch.arange(74).view(2, 37) % 50
    document_BT = begins([[5, 1, 31], [37]]).cumsum(1)
    exact = network(tokens_BT, document_BT=document_BT)
    with torch.autocast("cpu", dtype):
        rounded = network(tokens_BT, document_BT=document_BT)
        rounded.float().square().sum().backward()
    assert (rounded - exact).norm() < tolerance * exact.norm()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters() if parameter.grad is not None)


@pytest.mark.slow
@JIT
@LEAF
@torch._dynamo.config.patch(error_on_recompile=True)
def test_compiled_blocks_give_the_same_and_compile_once() -> None:
    eager, compiled = model(), model()
    for block in compiled.blocks:
        block.compile(fullgraph=True)
    tokens_BT = torch.arange(74).view(2, 37) % 50
    for rows in ([[37], [37]], [[5, 1, 31], [37]], [[1] * 37, [30, 7]]):
        document_BT = begins(rows).cumsum(1)
        results = []
        for network in (eager, compiled):
            network.zero_grad()
            logits_BTV = network(tokens_BT, document_BT=document_BT)
            logits_BTV.square().sum().backward()
            results.append((logits_BTV, *(parameter.grad for parameter in network.parameters())))
        for one, other in zip(*results, strict=True):
            assert (one - other).norm() <= 1e-5 * one.norm()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores")
@JIT
@LEAF
@pytest.mark.parametrize("compiles", [False, True])
def test_a_gpu_gives_the_numbers_of_the_cpu(compiles: bool) -> None:
    on_cpu, on_gpu = model(), model(device="cuda")
    on_gpu.load_state_dict(on_cpu.state_dict())
    for block in on_gpu.blocks if compiles else ():
        block.compile(fullgraph=True)
    tokens_BT = torch.arange(600).view(2, 300) % 50
    for rows in ([[300], [300]], [[5, 1, 294], [150, 150]], [[1] * 300, [30, 270]]):
        document_BT = begins(rows).cumsum(1)
        gradients = []
        for network, device in ((on_cpu, "cpu"), (on_gpu, "cuda")):
            network.zero_grad()
            network(tokens_BT.to(device), document_BT=document_BT.to(device)).square().sum().backward()
            gradients.append([parameter.grad.cpu() for parameter in network.parameters()])
        for one, other in zip(*gradients, strict=True):
            assert (one - other).norm() <= 1e-3 * one.norm() + 1e-6

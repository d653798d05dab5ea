"""Training parity with code that no one here wrote: transformers' Llama, Qwen3 and GPT-2 in a bare loop."""

from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)  # fmt: skip

from mulligan.compilers import can_compile_for_cpu
from mulligan.export.places import unpacked
from mulligan.model.config import ModelConfig
from mulligan.model.transformer import Transformer
from mulligan.model.weights import model_with_weights
from mulligan.objective.next_token import PLAIN_VOCABULARY, NextToken
from mulligan.safetensors_file import LazyTensors

STEPS = 50
SHAPE = {"vocab_size": 1500, "max_length": 32, "width": 32, "num_layers": 3, "num_heads": 4, "feedforward_width": 48}


def llama() -> tuple[nn.Module, ModelConfig]:
    theirs = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=1500, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=32, rms_norm_eps=1e-5, tie_word_embeddings=False,
        )
    )  # fmt: skip
    return theirs, ModelConfig(**SHAPE, num_key_value_heads=2, tied_embeddings=False)


def qwen3() -> tuple[nn.Module, ModelConfig]:
    theirs = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=1500, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=4, head_dim=8, max_position_embeddings=32, rms_norm_eps=1e-5, tie_word_embeddings=True,
        )
    )  # fmt: skip
    return theirs, ModelConfig(**SHAPE, qk_norm=True)


def gpt2() -> tuple[nn.Module, ModelConfig]:
    theirs = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=1500, n_positions=32, n_embd=32, n_layer=3, n_head=4, n_inner=48,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        )
    )  # fmt: skip
    form = {"norm": "layer", "positions": "learned", "feedforward": "gelu", "bias": True}
    return theirs, ModelConfig(**SHAPE, **form)


def batches() -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        yield torch.randint(1500, (4, 33), generator=generator)


def their_loss(model: nn.Module, tokens: Tensor) -> Tensor:
    logits = model(input_ids=tokens[:, :-1]).logits
    return nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


def our_loss(model: Transformer, tokens: Tensor, document_BT: Tensor | None = None) -> Tensor:
    head = partial(NextToken(z_loss=0.0), targets_BT=tokens[:, 1:], softcap=None, regularized=True)
    return model(tokens[:, :-1], document_BT=document_BT, head=head).loss_sum / tokens[:, 1:].numel()


def losses(model: nn.Module, loss_of: Callable[..., Tensor], *, fused: bool | None = None) -> list[float]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, fused=fused)
    found = []
    for tokens in batches():
        loss = loss_of(model, tokens)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


def pair(form: Callable[[], tuple[nn.Module, ModelConfig]]) -> tuple[nn.Module, Transformer]:
    """Theirs, and ours with its weights."""
    torch.manual_seed(0)
    theirs, config = form()
    state = theirs.state_dict()
    weights = unpacked(LazyTensors(state, lambda name: state[name].clone()), config, type(theirs).__name__)
    return theirs.train(), model_with_weights(config, dict(weights), "cpu").train()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("form", [llama, qwen3, gpt2])
def test_fifty_steps_give_the_same_losses(form: Callable[[], tuple[nn.Module, ModelConfig]]) -> None:
    theirs, ours = pair(form)
    wanted, found = losses(theirs, their_loss), losses(ours, our_loss)
    torch.testing.assert_close(torch.tensor(found), torch.tensor(wanted), rtol=0.0, atol=1e-4)
    assert abs(found[-1] - found[0]) > 0.01  # it did train


@pytest.mark.slow  # compiles for a minute
@pytest.mark.skipif(not can_compile_for_cpu(), reason="needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")  # PyTorch's own while it compiles
@pytest.mark.parametrize("form", [llama, gpt2])
def test_every_fast_path_gives_the_same_losses(form: Callable[[], tuple[nn.Module, ModelConfig]]) -> None:
    """Compiled blocks, fused AdamW, the head in chunks, attention by documents, each row being one."""
    theirs, ours = pair(form)
    assert ours.config.vocab_size > PLAIN_VOCABULARY
    for block in ours.blocks:
        block.compile()
    one_document_BT = torch.zeros(4, 32, dtype=torch.int64)
    found = losses(ours, partial(our_loss, document_BT=one_document_BT), fused=True)
    torch.testing.assert_close(torch.tensor(found), torch.tensor(losses(theirs, their_loss)), rtol=0.0, atol=1e-4)

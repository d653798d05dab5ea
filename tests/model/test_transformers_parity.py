"""Training parity with code that no one here wrote: transformers' Llama and GPT-2 in a bare loop."""

from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from mulligan.model.config import ModelConfig
from mulligan.model.transformer import Transformer
from mulligan.model.weights import model_with_weights
from mulligan.objective.next_token import NextToken

STEPS = 50
SHAPE = {"vocab_size": 1500, "max_length": 32, "width": 32, "num_layers": 3, "num_heads": 4, "feedforward_width": 48}


def llama() -> tuple[nn.Module, ModelConfig, dict[str, Tensor]]:
    theirs = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=1500, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=32, rms_norm_eps=1e-5, tie_word_embeddings=False,
        )
    )  # fmt: skip
    state = theirs.state_dict()
    ours = {
        "embedding.weight": state["model.embed_tokens.weight"],
        "norm.weight": state["model.norm.weight"],
        "head.weight": state["lm_head.weight"],
    }
    for layer in range(3):
        old, new = f"model.layers.{layer}.", f"blocks.{layer}."
        ours |= {
            f"{new}attention_norm.weight": state[f"{old}input_layernorm.weight"],
            f"{new}feedforward_norm.weight": state[f"{old}post_attention_layernorm.weight"],
            f"{new}attention.out.weight": state[f"{old}self_attn.o_proj.weight"],
        }
        ours |= {f"{new}attention.{part}.weight": state[f"{old}self_attn.{part}_proj.weight"] for part in "qkv"}
        ours |= {
            f"{new}feedforward.{part}.weight": state[f"{old}mlp.{part}_proj.weight"] for part in ("gate", "up", "down")
        }
    return theirs, ModelConfig(**SHAPE, num_key_value_heads=2, tied_embeddings=False), ours


def gpt2() -> tuple[nn.Module, ModelConfig, dict[str, Tensor]]:
    theirs = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=1500, n_positions=32, n_embd=32, n_layer=3, n_head=4, n_inner=48,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        )
    )  # fmt: skip
    state = theirs.transformer.state_dict()
    ours = {
        "embedding.weight": state["wte.weight"],
        "head.weight": state["wte.weight"],
        "position_embedding.weight": state["wpe.weight"],
        "norm.weight": state["ln_f.weight"],
        "norm.bias": state["ln_f.bias"],
    }
    names = {
        "attention_norm": "ln_1", "attention.out": "attn.c_proj",
        "feedforward_norm": "ln_2", "feedforward.up": "mlp.c_fc", "feedforward.down": "mlp.c_proj",
    }  # fmt: skip
    for layer in range(3):
        for new, old in names.items():
            weight = state[f"h.{layer}.{old}.weight"]  # Conv1D keeps its matrices the other way round
            ours[f"blocks.{layer}.{new}.weight"] = weight.T.contiguous() if weight.ndim == 2 else weight
            ours[f"blocks.{layer}.{new}.bias"] = state[f"h.{layer}.{old}.bias"]
        for kind in ("weight", "bias"):  # three in one, by columns
            for part, weight in zip("qkv", state[f"h.{layer}.attn.c_attn.{kind}"].chunk(3, dim=-1), strict=True):
                ours[f"blocks.{layer}.attention.{part}.{kind}"] = weight.T.contiguous() if weight.ndim == 2 else weight
    form = {"norm": "layer", "positions": "learned", "feedforward": "gelu", "bias": True}
    return theirs, ModelConfig(**SHAPE, **form), ours


def batches() -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        yield torch.randint(1500, (4, 33), generator=generator)


def their_loss(model: nn.Module, tokens: Tensor) -> Tensor:
    logits = model(input_ids=tokens[:, :-1]).logits
    return nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


def our_loss(model: Transformer, tokens: Tensor) -> Tensor:
    head = partial(NextToken(z_loss=0.0), targets_BT=tokens[:, 1:], softcap=None, regularized=True)
    return model(tokens[:, :-1], head=head).loss_sum / tokens[:, 1:].numel()


def losses(model: nn.Module, loss_of: Callable[..., Tensor]) -> list[float]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    found = []
    for tokens in batches():
        loss = loss_of(model, tokens)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("form", [llama, gpt2])
def test_fifty_steps_give_the_same_losses(form: Callable[[], tuple[nn.Module, ModelConfig, dict[str, Tensor]]]) -> None:
    torch.manual_seed(0)
    theirs, config, weights = form()
    ours = model_with_weights(config, {name: tensor.clone() for name, tensor in weights.items()}, "cpu")
    wanted, found = losses(theirs.train(), their_loss), losses(ours.train(), our_loss)
    torch.testing.assert_close(torch.tensor(found), torch.tensor(wanted), rtol=0.0, atol=1e-4)
    assert abs(found[-1] - found[0]) > 0.01  # it did train

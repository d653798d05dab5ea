"""Where each weight of ours lies in the published forms, as transformers names them, in both directions.

Touvron et al. 2023 (Llama), Radford et al. 2019 (GPT-2), Yang et al. 2025 (Qwen3: Llama with query-key norm).
"""

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from mulligan.model.config import ModelConfig
from mulligan.model.weights import empty_weights
from mulligan.safetensors_file import LazyTensors

Architecture = Literal["LlamaForCausalLM", "Qwen3ForCausalLM", "GPT2LMHeadModel"]

# Modules of ours, and those that hold the same numbers there.
_LLAMA = {
    "embedding": "model.embed_tokens",
    "blocks.*.attention_norm": "model.layers.*.input_layernorm",
    "blocks.*.attention.q": "model.layers.*.self_attn.q_proj",
    "blocks.*.attention.k": "model.layers.*.self_attn.k_proj",
    "blocks.*.attention.v": "model.layers.*.self_attn.v_proj",
    "blocks.*.attention.out": "model.layers.*.self_attn.o_proj",
    "blocks.*.feedforward_norm": "model.layers.*.post_attention_layernorm",
    "blocks.*.feedforward.gate": "model.layers.*.mlp.gate_proj",
    "blocks.*.feedforward.up": "model.layers.*.mlp.up_proj",
    "blocks.*.feedforward.down": "model.layers.*.mlp.down_proj",
    "norm": "model.norm",
    "head": "lm_head",
}
_QWEN3 = _LLAMA | {
    "blocks.*.attention.q_norm": "model.layers.*.self_attn.q_norm",
    "blocks.*.attention.k_norm": "model.layers.*.self_attn.k_norm",
}
_GPT2 = {
    "embedding": "transformer.wte",
    "position_embedding": "transformer.wpe",
    "blocks.*.attention_norm": "transformer.h.*.ln_1",
    "blocks.*.attention.q": "transformer.h.*.attn.c_attn",  # all three side by side
    "blocks.*.attention.k": "transformer.h.*.attn.c_attn",
    "blocks.*.attention.v": "transformer.h.*.attn.c_attn",
    "blocks.*.attention.out": "transformer.h.*.attn.c_proj",
    "blocks.*.feedforward_norm": "transformer.h.*.ln_2",
    "blocks.*.feedforward.up": "transformer.h.*.mlp.c_fc",
    "blocks.*.feedforward.down": "transformer.h.*.mlp.c_proj",
    "norm": "transformer.ln_f",
    "head": "lm_head",
}
_MODULES: dict[Architecture, dict[str, str]] = {
    "LlamaForCausalLM": _LLAMA, "Qwen3ForCausalLM": _QWEN3, "GPT2LMHeadModel": _GPT2,
}  # fmt: skip
_HEAD = "lm_head.weight"  # everywhere
# GPT-2's Conv1D keeps (inputs, outputs), a linear layer (outputs, inputs).
_TURNED = re.compile(r"\.(c_attn|c_proj|c_fc)\.weight$")
# In older files: causal masks and rotary frequencies, which follow from the config.
_NO_WEIGHT = re.compile(r"\.attn\.(masked_)?bias$|\.rotary_emb\.inv_freq$")


class Place(NamedTuple):
    theirs: str
    ours: list[str]  # side by side along the last axis of theirs

    def pack(self, parts: Sequence[Tensor]) -> Tensor:
        """Theirs out of ours."""
        parts = [part.T for part in parts] if _TURNED.search(self.theirs) else parts
        return torch.cat(list(parts), dim=-1) if len(parts) > 1 else parts[0]

    def unpack(self, tensor: Tensor) -> list[Tensor]:
        """Ours out of theirs."""
        parts = tensor.chunk(len(self.ours), dim=-1)
        return [part.T if _TURNED.search(self.theirs) else part for part in parts]


def places(config: ModelConfig, architecture: Architecture) -> list[Place]:
    """One for each of their tensors, in the order of the model."""
    ours: dict[str, list[str]] = {}
    for name in empty_weights(config):
        module, _, kind = name.rpartition(".")
        layer = re.search(r"\d+", module)
        theirs = _MODULES[architecture][re.sub(r"\d+", "*", module)]
        ours.setdefault(f"{theirs.replace('*', layer[0]) if layer else theirs}.{kind}", []).append(name)
    return [Place(theirs, names) for theirs, names in ours.items()]


def packed(weights: LazyTensors, config: ModelConfig, architecture: Architecture) -> LazyTensors:
    """Our weights by their names."""
    place_of = {place.theirs: place for place in places(config, architecture)}
    layout = {name: place.pack([weights.layout[our] for our in place.ours]) for name, place in place_of.items()}
    return LazyTensors(layout, lambda name: place_of[name].pack([weights[our] for our in place_of[name].ours]))


def unpacked(stored: LazyTensors, config: ModelConfig, architecture: Architecture) -> LazyTensors:
    """Their tensors by our names. ValueError where one is missing, of another shape or type, or has no place here."""
    stored_as, wanted = _named_in_full(stored, architecture), empty_weights(config)
    spare = set(stored_as) - {_HEAD if config.tied_embeddings else ""}  # some write tied ones twice
    layout: dict[str, Tensor] = {}
    source: dict[str, tuple[Place, int]] = {}
    for place in places(config, architecture):
        if place.theirs not in stored_as:
            raise ValueError(f"its weights lack {place.theirs}, which a {architecture} of this config has")
        tensor = stored.layout[stored_as[place.theirs]]
        shape = place.pack([wanted[our] for our in place.ours]).shape
        if tensor.shape != shape:
            raise ValueError(
                f"its {place.theirs} has the shape {list(tensor.shape)}, by its config it is {list(shape)}"
            )
        if not tensor.is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            raise ValueError(f"its {place.theirs} is of type {kind}, and must be of floating-point numbers")
        layout |= dict(zip(place.ours, place.unpack(tensor), strict=True))
        source |= {our: (place, number) for number, our in enumerate(place.ours)}
        spare.discard(place.theirs)
    if spare:
        more = f" and {len(spare) - 1} more" if len(spare) > 1 else ""
        raise ValueError(f"its weights hold {min(spare)}{more}, which no {architecture} of this config has")
    if config.tied_embeddings and _HEAD in stored_as:
        embedding = f"{_MODULES[architecture]['embedding']}.weight"
        if not stored[stored_as[_HEAD]].equal(stored[stored_as[embedding]]):
            raise ValueError(f"its {_HEAD} is not its {embedding}: tie_word_embeddings must be false in its config")

    def read(our: str) -> Tensor:
        place, number = source[our]
        return place.unpack(stored[stored_as[place.theirs]])[number]

    return LazyTensors(layout, read)


def _named_in_full(stored: LazyTensors, architecture: Architecture) -> dict[str, str]:
    """Names as stored, by those of the whole model: GPT-2's own files hold its inner part by itself."""
    names = [name for name in stored if not _NO_WEIGHT.search(name)]
    if architecture != "GPT2LMHeadModel":
        return {name: name for name in names}
    return {name if name.startswith(("transformer.", "lm_head.")) else f"transformer.{name}": name for name in names}

"""The decoder: embeddings, pre-norm blocks, final norm and head.

Shapes: B batch, T positions, D width, V vocabulary, K head width.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.attention.flex_attention import BlockMask
from torch.utils.checkpoint import checkpoint

from mulligan.compilers import can_compile_for_cuda
from mulligan.model.attention import Attention, Positions
from mulligan.model.config import ModelConfig
from mulligan.model.document_attention import FLEX_HEAD_WIDTH, begins_of, block_mask, dense_mask
from mulligan.model.feedforward import FeedForward
from mulligan.model.norm import make_norm
from mulligan.model.parts import fill
from mulligan.model.rope import rope_table
from mulligan.model.tied_gradient import TiedGradient

Head = Callable[[Tensor, Tensor], Any]


class Block(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = make_norm(config.norm, config.width, eps=config.norm_eps, bias=config.bias)
        self.attention = Attention(config)
        self.feedforward_norm = make_norm(config.norm, config.width, eps=config.norm_eps, bias=config.bias)
        self.feedforward = FeedForward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BTD: Tensor, positions: Positions, cache: list[Tensor] | None = None) -> Tensor:
        x_BTD = x_BTD + self.dropout(self.attention(self.attention_norm(x_BTD), positions, cache))
        return x_BTD + self.dropout(self.feedforward(self.feedforward_norm(x_BTD)))


class Transformer(nn.Module):
    """A decoder without weights: build it under ``torch.device("meta")`` and give it memory with ``materialize``.

    With ``checkpoints_activations`` a block keeps only its input for the backward pass, which computes the rest again
    (Chen et al. 2016): a third more computing, the same numbers.
    """

    cos_TK: Tensor | None
    sin_TK: Tensor | None

    def __init__(self, config: ModelConfig, *, checkpoints_activations: bool = False) -> None:
        super().__init__()
        self.config, self.checkpoints_activations = config, checkpoints_activations
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        learned = config.positions == "learned"
        self.position_embedding = nn.Embedding(config.max_length, config.width) if learned else None
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = make_norm(config.norm, config.width, eps=config.norm_eps, bias=config.bias)
        self.head = nn.Linear(config.width, config.vocab_size, bias=False)
        self._tie_embeddings()
        self.register_buffer("cos_TK", None, persistent=False)
        self.register_buffer("sin_TK", None, persistent=False)

    def forward(
        self,
        tokens_BT: Tensor,
        *,
        document_BT: Tensor | None = None,
        head: Head | None = None,
        caches: list[list[Tensor]] | None = None,
    ) -> Any:
        """Logits (B, T, V), or whatever ``head(hidden_BTD, weight_VD)`` makes of the last hidden states.

        ``document_BT`` numbers the document of each token, which is a run of equal numbers; with it, attention stays
        inside documents. With dropout, and in evaluation on a GPU, that takes a mask of all pairs and the time to heed
        it, else no more time than plain attention. ``caches`` holds a list for each block, empty at first, that keeps
        keys and values between calls; then ``tokens`` continue them.
        """
        length = tokens_BT.shape[1]
        start = caches[0][0].shape[2] if caches and caches[0] else 0
        if start + length > self.config.max_length:
            raise ValueError(f"{start + length} tokens are more than model.max_length={self.config.max_length}")
        tied = None
        if head is not None and self.config.tied_embeddings and TiedGradient.serves(self.embedding.weight):
            tied = TiedGradient()
        x_BTD = tied.look_up(self.embedding.weight, tokens_BT) if tied else self.embedding(tokens_BT)
        if self.position_embedding is not None:
            x_BTD = x_BTD + self.position_embedding.weight[start : start + length]
        x_BTD = self.dropout(x_BTD)
        positions = self._positions(start, length, document_BT, tokens_BT.device)
        for index, block in enumerate(self.blocks):
            if self.checkpoints_activations and torch.is_grad_enabled():
                dropout = self.config.dropout > 0.0  # what is dropped must be dropped again
                x_BTD = checkpoint(block, x_BTD, positions, use_reentrant=False, preserve_rng_state=dropout)
            else:
                x_BTD = block(x_BTD, positions, caches[index] if caches is not None else None)
        x_BTD = self.norm(x_BTD)
        if head is not None:
            return head(*(tied.for_head(x_BTD, self.head.weight) if tied else (x_BTD, self.head.weight)))
        logits_BTV = self.head(x_BTD)
        return logits_BTV if self.config.logit_softcap is None else softcap(logits_BTV, self.config.logit_softcap)

    def materialize(self, device: torch.device | str, seed: int) -> "Transformer":
        """Allocate every weight on ``device`` and draw it from ``seed``; the same on every rank, sharded or not."""
        self.to_empty(device=device)
        self._tie_embeddings()
        generator = torch.Generator(device).manual_seed(seed)
        residual_std = self.config.init_std
        if self.config.init_by_depth:
            residual_std /= (2 * self.config.num_layers) ** 0.5
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                std = residual_std if name.endswith((".out", ".down")) else self.config.init_std
                _draw(module.weight, std, generator)
            elif isinstance(module, nn.RMSNorm | nn.LayerNorm):
                nn.init.ones_(module.weight)
            bias = getattr(module, "bias", None)
            if bias is not None:
                nn.init.zeros_(bias)
        self._make_rope_table(device)
        return self

    def load_weights(self, state: dict[str, Tensor], device: torch.device | str) -> "Transformer":
        """Take the given weights instead of drawing new ones; tied embeddings may stand there once."""
        self.to_empty(device=device)
        self._tie_embeddings()
        if self.config.tied_embeddings and "head.weight" not in state:
            state = state | {"head.weight": state["embedding.weight"]}
        self.load_state_dict(state)
        self._make_rope_table(device)
        return self

    def _tie_embeddings(self) -> None:
        if self.config.tied_embeddings:  # also after to_empty, which gives every module weights of its own
            self.head.weight = self.embedding.weight

    def _make_rope_table(self, device: torch.device | str) -> None:
        if self.config.positions == "rotary":
            self.cos_TK, self.sin_TK = rope_table(
                self.config.max_length, self.config.head_width, self.config.rope_theta, device
            )

    def _positions(self, start: int, length: int, document_BT: Tensor | None, device: torch.device) -> Positions:
        cos_TK = None if self.cos_TK is None else self.cos_TK[start : start + length]
        sin_TK = None if self.sin_TK is None else self.sin_TK[start : start + length]
        mask_B1TT, documents = None, None
        if document_BT is not None:
            mask_B1TT, documents = self._documents(begins_of(document_BT))
        elif start and length > 1:  # a continued prefix: row i sees the cached positions and itself
            mask_B1TT = torch.ones(length, start + length, dtype=torch.bool, device=device).tril(start)[None, None]
        return Positions(cos_TK, sin_TK, mask_B1TT, documents)

    def _documents(self, begins_BT: Tensor) -> tuple[Tensor | None, Tensor | BlockMask | None]:
        """A mask, or the documents in the form of ``document_attention`` that is for this device."""
        device = begins_BT.device.type
        drops = self.training and self.config.dropout > 0.0
        if device == "cpu" and not drops:
            return None, begins_BT
        # FlexAttention must be compiled, which pays over the steps of a training. It knows no float64.
        can_flex = self.config.head_width >= FLEX_HEAD_WIDTH and self.embedding.weight.dtype != torch.float64
        if device == "cuda" and self.training and not drops and can_flex and can_compile_for_cuda():
            return None, block_mask(begins_BT)
        return dense_mask(begins_BT), None


@torch.no_grad()
def _draw(weight: Tensor, std: float, generator: torch.Generator) -> None:
    """Fill from a normal distribution. Of a sharded weight every rank draws the whole, and keeps its part."""
    if not isinstance(weight, DTensor):
        weight.normal_(std=std, generator=generator)
        return
    whole = torch.empty(weight.shape, dtype=weight.dtype, device=weight.device).normal_(std=std, generator=generator)
    fill(weight, whole)


def softcap(logits: Tensor, cap: float) -> Tensor:
    """Bound logits smoothly to (-cap, cap) (Gemma 2, Riviere et al. 2024)."""
    return F.tanh(logits / cap) * cap

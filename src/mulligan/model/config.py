"""The shape of a decoder, its checks, and its exact parameter and FLOP counts."""

from dataclasses import dataclass, fields
from typing import Literal, get_args, get_origin


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shape of a decoder. The defaults are the Llama form; see conf/model/gpt2_124m.yaml for the GPT-2 form.

    ``max_length`` is the longest window in tokens. ``init_by_depth`` divides the initial standard deviation of the two
    projections back into the residual stream by sqrt(2 num_layers) (Radford et al. 2019, section 2.3).
    """

    vocab_size: int
    max_length: int
    width: int
    num_layers: int
    num_heads: int
    num_key_value_heads: int | None = None
    feedforward_width: int
    norm: Literal["rms", "layer"] = "rms"
    norm_eps: float = 1e-5
    positions: Literal["rotary", "learned"] = "rotary"
    rope_theta: float = 10_000.0
    feedforward: Literal["swiglu", "gelu"] = "swiglu"
    bias: bool = False
    tied_embeddings: bool = True
    qk_norm: bool = False
    logit_softcap: float | None = None
    dropout: float = 0.0
    init_std: float = 0.02
    init_by_depth: bool = True

    def __post_init__(self) -> None:
        for field in fields(self):
            choices, chosen = get_args(field.type), getattr(self, field.name)
            if get_origin(field.type) is Literal and chosen not in choices:
                raise ValueError(f"model.{field.name}={chosen} must be one of {', '.join(choices)}")
        for name in ("vocab_size", "max_length", "width", "num_layers", "num_heads", "feedforward_width"):
            if getattr(self, name) < 1:
                raise ValueError(f"model.{name}={getattr(self, name)} must be at least 1")
        if self.width % self.num_heads:
            raise ValueError(f"model.num_heads={self.num_heads} must divide model.width={self.width}")
        if self.key_value_heads < 1 or self.num_heads % self.key_value_heads:
            raise ValueError(
                f"model.num_key_value_heads={self.num_key_value_heads} must divide model.num_heads={self.num_heads}"
            )
        if self.positions == "rotary" and self.head_width % 2:
            raise ValueError(
                f"model.width / model.num_heads = {self.head_width} must be even for model.positions=rotary"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"model.dropout={self.dropout} must be in [0, 1)")
        for name in ("norm_eps", "rope_theta", "init_std"):
            if not 0.0 < getattr(self, name) < float("inf"):
                raise ValueError(f"model.{name}={getattr(self, name)} must be a number above 0")
        if self.logit_softcap is not None and not 0.0 < self.logit_softcap < float("inf"):
            raise ValueError(f"model.logit_softcap={self.logit_softcap} must be a number above 0, or null for none")

    @property
    def head_width(self) -> int:
        return self.width // self.num_heads

    @property
    def key_value_heads(self) -> int:
        return self.num_heads if self.num_key_value_heads is None else self.num_key_value_heads

    @property
    def num_block_matrix_parameters(self) -> int:
        """Entries of the matrices of one block: those that every token is multiplied with."""
        attention = self.width * self.width * 2 + self.width * self.key_value_heads * self.head_width * 2
        feedforward = self.width * self.feedforward_width * (3 if self.feedforward == "swiglu" else 2)
        return attention + feedforward

    @property
    def num_parameters(self) -> int:
        """Every trained number of the built model, shared ones counted once."""
        return sum(self.parameters_by_part.values())

    @property
    def parameters_by_part(self) -> dict[str, int]:
        """``num_parameters``, split; a head that shares the embeddings' has none of its own."""
        norm = self.width * (2 if self.norm == "layer" and self.bias else 1)
        query_key_norm = 2 * self.head_width if self.qk_norm else 0
        bias = 0
        if self.bias:
            attention = 2 * self.width + 2 * self.key_value_heads * self.head_width
            bias = attention + self.feedforward_width * (2 if self.feedforward == "swiglu" else 1) + self.width
        block = self.num_block_matrix_parameters + bias + 2 * norm + query_key_norm
        positions = self.max_length * self.width if self.positions == "learned" else 0
        return {
            "embeddings": self.vocab_size * self.width + positions,
            "blocks": self.num_layers * block,
            "last norm": norm,
            "head": 0 if self.tied_embeddings else self.vocab_size * self.width,
        }

    def flops_per_token(self, sequence_length: int) -> int:
        """Floating-point operations to train on one token, forward and backward, at windows of ``sequence_length``.

        The convention of PaLM (Chowdhery et al. 2022, appendix B): six a matrix entry, the head included and the
        embedding look-up not, and attention without the saving of the causal mask.
        """
        matrices = self.num_layers * self.num_block_matrix_parameters + self.vocab_size * self.width
        attention = self.num_layers * 2 * self.width * sequence_length
        return 6 * (matrices + attention)

"""The work that every program is given. Peers import this under interpreters of their own: no mulligan here."""

import json
from typing import Any, Literal, NamedTuple


class Shape(NamedTuple):
    """A decoder with tied embeddings and no biases (llama) or biases (gpt2), and the batch it is trained on.

    ``llama``: RMSNorm, rotary positions, SwiGLU. ``gpt2``: LayerNorm, learned positions, GELU.
    """

    form: Literal["llama", "gpt2"]
    vocab_size: int
    length: int
    width: int
    num_layers: int
    num_heads: int
    feedforward_width: int
    micro_batch: int
    num_key_value_heads: int | None = None
    rope_theta: float = 10_000.0

    @property
    def key_value_heads(self) -> int:
        return self.num_key_value_heads or self.num_heads

    @property
    def tokens_per_step(self) -> int:
        return self.micro_batch * self.length


def _llama(vocab_size: int, length: int, micro_batch: int, sizes: tuple[int, int, int, int]) -> Shape:
    width, num_layers, num_heads, feedforward_width = sizes
    return Shape("llama", vocab_size, length, width, num_layers, num_heads, feedforward_width, micro_batch)


_10M, _30M = (384, 6, 6, 1024), (512, 9, 8, 1408)  # parameters of all blocks: 10.6 and 28.9 million

# By parameters of the blocks, length and vocabulary. 512 tokens a step: 1 to 4 s on two cores without bf16.
CPU_SHAPES = {
    "10M-256-8k": _llama(8_192, 256, 2, _10M),
    "10M-256-32k": _llama(32_768, 256, 2, _10M),
    "10M-512-8k": _llama(8_192, 512, 1, _10M),
    "10M-512-32k": _llama(32_768, 512, 1, _10M),
    "30M-256-8k": _llama(8_192, 256, 2, _30M),
    "30M-256-32k": _llama(32_768, 256, 2, _30M),
    "30M-512-8k": _llama(8_192, 512, 1, _30M),
    "30M-512-32k": _llama(32_768, 512, 1, _30M),
}
GPU_SHAPES = {
    "gpt2_124m": Shape("gpt2", 50_257, 2_048, 768, 12, 12, 3_072, 16),
    "llama_1b": Shape("llama", 128_256, 2_048, 2_048, 16, 32, 8_192, 4, num_key_value_heads=8, rope_theta=5e5),
}
SHAPES = CPU_SHAPES | GPU_SHAPES | {"gpt2-10M-256-8k": Shape("gpt2", 8_192, 256, *_10M[:3], 1_536, 2)}


class Work(NamedTuple):
    """What one program is asked to do; travels as JSON on its command line."""

    shape: str
    tokens_path: str  # a .npy file of token ids
    folder: str  # for whatever it writes
    device: Literal["cpu", "cuda"]
    bf16: bool  # autocast, float32 weights
    block_steps: int  # of one turn
    compile: bool

    def to_json(self) -> str:
        return json.dumps(self._asdict())

    @classmethod
    def from_json(cls, text: str) -> "Work":
        return cls(**json.loads(text))

    @property
    def of_shape(self) -> Shape:
        return SHAPES[self.shape]


LR, BETAS, EPS, WEIGHT_DECAY, CLIP_NORM = 1e-3, (0.9, 0.95), 1e-8, 0.1, 1.0
LOG_EVERY_N_STEPS = 10
INIT_STD = 0.02
NEVER = 10**9  # steps: the measuring side ends the process
ADAMW: dict[str, Any] = {"lr": LR, "betas": BETAS, "eps": EPS, "weight_decay": WEIGHT_DECAY}

"""litgpt's model in a bare loop."""

import sys

import torch
import torch.nn.functional as F
from litgpt import GPT, Config
from torch import Tensor

from benchmarks.peers.bare_loop import train
from benchmarks.peers.plain_model import draw_weights
from benchmarks.peers.shapes import Shape, Work
from benchmarks.peers.turns import Turns


def config_of(shape: Shape) -> Config:
    if shape.form != "llama":
        sys.exit("litgpt has no learned positions")
    return Config(
        block_size=shape.length,
        n_layer=shape.num_layers,
        n_embd=shape.width,
        n_head=shape.num_heads,
        n_query_groups=shape.key_value_heads,
        intermediate_size=shape.feedforward_width,
        vocab_size=shape.vocab_size,
        padded_vocab_size=shape.vocab_size,
        rotary_percentage=1.0,
        rope_base=int(shape.rope_theta),
        parallel_residual=False,
        bias=False,
        norm_class_name="RMSNorm",
        mlp_class_name="LLaMAMLP",
    )


def main(work: Work) -> None:
    turns = Turns(work.block_steps)
    torch.manual_seed(0)
    model = GPT(config_of(work.of_shape))
    model.lm_head.weight = model.transformer.wte.weight
    model.apply(draw_weights).to(work.device)
    forward = torch.compile(model) if work.compile else model

    def loss_of(tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        return F.cross_entropy(forward(tokens_BT).flatten(0, 1), targets_BT.flatten())

    train(work, turns, model, loss_of)


if __name__ == "__main__":
    main(Work.from_json(sys.argv[1]))

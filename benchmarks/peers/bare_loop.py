"""A bare PyTorch loop around the plain decoder: nanoGPT's way, eager or compiled."""

import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.peers.plain_model import Decoder, count_parameters, make_adamw
from benchmarks.peers.shapes import CLIP_NORM, LOG_EVERY_N_STEPS, Work
from benchmarks.peers.turns import Turns
from benchmarks.peers.windows import endless_batches


def train(work: Work, turns: Turns, model: nn.Module, loss_of: Callable[[Tensor, Tensor], Tensor]) -> None:
    optimizer = make_adamw(model)
    turns.begin(count_parameters(model))
    for step, (tokens_BT, targets_BT) in enumerate(endless_batches(work), start=1):
        with torch.autocast(work.device, torch.bfloat16, enabled=work.bf16):
            loss = loss_of(tokens_BT, targets_BT)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % LOG_EVERY_N_STEPS == 0:
            print(f"step {step}: loss {loss.item():.4f}", flush=True)
        turns.step_done(loss)


def main(work: Work) -> None:
    turns = Turns(work.block_steps)
    torch.manual_seed(0)
    model = Decoder(work.of_shape).to(work.device)
    train(work, turns, model, torch.compile(model) if work.compile else model)


if __name__ == "__main__":
    main(Work.from_json(sys.argv[1]))

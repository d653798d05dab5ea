"""litgpt's own pre-training: ``litgpt.pretrain.setup`` on our windows. It always compiles.

The loop asks for a batch when all of the last step is done, so the loader is where it takes turns.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from litgpt import GPT, pretrain
from litgpt.args import EvalArgs, TrainArgs
from litgpt.data import DataModule
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from benchmarks.peers.litgpt_loop import config_of
from benchmarks.peers.plain_model import count_parameters
from benchmarks.peers.shapes import ADAMW, CLIP_NORM, LOG_EVERY_N_STEPS, LR, NEVER, Work
from benchmarks.peers.turns import Turns
from benchmarks.peers.windows import Windows


class Samples(IterableDataset[Tensor]):
    """Shuffled windows; before each micro-batch but the first the step behind it is reported."""

    def __init__(self, work: Work, turns: Turns) -> None:
        self.windows, self.work, self.turns = Windows(work, work.of_shape.length + 1), work, turns
        self.loss: Tensor | None = None

    def loss_of(self, logits: Tensor, targets: Tensor, **kwargs: Any) -> Tensor:
        """litgpt's own loss, kept for the report."""
        loss = chunked_cross_entropy(logits, targets, **kwargs)
        self.loss = loss.detach()
        return loss

    def __iter__(self) -> Iterator[Tensor]:
        with torch.device("meta"):
            self.turns.begin(count_parameters(tied(GPT(config_of(self.work.of_shape)))))
        for place, number in enumerate(torch.randperm(len(self.windows)).tolist()):
            if place and place % self.work.of_shape.micro_batch == 0:
                assert self.loss is not None
                self.turns.step_done(self.loss)
            yield self.windows[number]


def tied(model: GPT) -> GPT:
    model.transformer.wte.weight = model.lm_head.weight
    return model


class Data(DataModule):
    def __init__(self, work: Work, samples: Samples) -> None:
        super().__init__()
        self.work, self.samples = work, samples

    def connect(self, *args: Any, **kwargs: Any) -> None:
        pass

    def train_dataloader(self) -> DataLoader[Tensor]:
        return DataLoader(self.samples, self.work.of_shape.micro_batch, pin_memory=self.work.device == "cuda")

    def val_dataloader(self) -> DataLoader[Tensor]:
        return DataLoader(self.samples.windows, self.work.of_shape.micro_batch)


chunked_cross_entropy = pretrain.chunked_cross_entropy


def main(work: Work) -> None:
    shape = work.of_shape
    samples = Samples(work, Turns(work.block_steps))
    pretrain.chunked_cross_entropy = samples.loss_of
    pretrain.setup(
        "peer",
        config_of(shape),
        out_dir=Path(work.folder),
        precision="bf16-mixed" if work.bf16 else "32-true",
        data=Data(work, samples),
        train=TrainArgs(
            save_interval=None,
            log_interval=LOG_EVERY_N_STEPS,
            global_batch_size=shape.micro_batch,
            micro_batch_size=shape.micro_batch,
            max_tokens=NEVER * shape.tokens_per_step,
            max_norm=CLIP_NORM,
            min_lr=LR,
            lr_warmup_steps=1,
            tie_embeddings=True,
        ),
        eval=EvalArgs(interval=NEVER, max_iters=1),
        optimizer={"class_path": "torch.optim.AdamW", "init_args": ADAMW},
        devices=1,
        logger_name="csv",
    )


if __name__ == "__main__":
    main(Work.from_json(sys.argv[1]))

"""Lightning's Trainer around the plain decoder, as its first page shows it but for the clipping."""

import sys
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.peers.plain_model import Decoder, count_parameters, make_adamw
from benchmarks.peers.shapes import CLIP_NORM, LOG_EVERY_N_STEPS, NEVER, Work
from benchmarks.peers.turns import Turns
from benchmarks.peers.windows import Windows


class Module(LightningModule):
    def __init__(self, work: Work) -> None:
        super().__init__()
        self.model = Decoder(work.of_shape)
        if work.compile:
            self.model.compile()

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        loss = self.model(batch[:, :-1].contiguous(), batch[:, 1:].contiguous())
        if batch_idx % LOG_EVERY_N_STEPS == 0:
            self.log("loss", loss)
        return loss

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        # The Trainer's own refuses a fused optimizer in mixed precision, in bf16 too, which has no scale to undo.
        torch.nn.utils.clip_grad_norm_(self.parameters(), CLIP_NORM)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return make_adamw(self.model)


class TakeTurns(Callback):
    def __init__(self, turns: Turns) -> None:
        self.turns = turns

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.turns.begin(count_parameters(pl_module))

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, *args: Any) -> None:
        self.turns.step_done(outputs["loss"])


def main(work: Work) -> None:
    turns = Turns(work.block_steps)
    torch.manual_seed(0)
    trainer = Trainer(
        accelerator=work.device,
        devices=1,
        precision="bf16-mixed" if work.bf16 else "32-true",
        max_steps=NEVER,
        max_epochs=-1,
        log_every_n_steps=LOG_EVERY_N_STEPS,
        logger=CSVLogger(work.folder),
        callbacks=[TakeTurns(turns)],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    windows = Windows(work, work.of_shape.length + 1)
    pinned = work.device == "cuda"
    loader = DataLoader(windows, work.of_shape.micro_batch, shuffle=True, drop_last=True, pin_memory=pinned)
    trainer.fit(Module(work), loader)


if __name__ == "__main__":
    main(Work.from_json(sys.argv[1]))

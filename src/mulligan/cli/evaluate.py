"""``mulligan evaluate run=runs/NAME``: held-out perplexity and bits per token and byte."""

import sys
from pathlib import Path

from omegaconf import DictConfig

from mulligan.cli.compose import build, plain, run_verb
from mulligan.cli.saved_run import SavedRun
from mulligan.data.join import verify
from mulligan.data.shards import Shards
from mulligan.evaluation.held_out import HeldOut, held_out


class Evaluation:
    """The schema of conf/evaluate.yaml."""

    def __init__(self, *, run: str, stride: int | None, batch_size: int) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1")
        self.run, self.stride, self.batch_size = SavedRun(Path(run)), stride, batch_size

    def scores(self) -> HeldOut:
        verify(self.run.data_folder, ["validation"])
        return held_out(
            self.run.model(),
            Shards(self.run.data_folder, "validation", self.run.sequence_length),
            batch_size=self.batch_size,
            begin_id=self.run.tokenizer().begin_id,
            document_mask=self.run.document_mask,
            stride=self.stride,
            autocast_dtype=self.run.autocast_dtype,
        )


def main() -> int:
    return run_verb("evaluate", evaluate)


def evaluate(config: DictConfig) -> None:
    evaluation: Evaluation = build(plain(config))
    scores = evaluation.scores()
    print(
        f"{evaluation.run.folder} at step {evaluation.run.newest.step}, {scores.num_tokens:,} held-out tokens: "
        f"perplexity {scores.perplexity:.4f}, {scores.bits_per_token:.4f} bits per token, "
        f"{scores.bits_per_byte:.4f} bits per byte"
    )


if __name__ == "__main__":
    sys.exit(main())

"""A program for test_rewind: train with the given overrides, while one rank's loss is no number at some attempts.

Several runs, one after the other, are told apart by a "+".
"""

import sys
from functools import partial
from typing import Any

from hydra import compose, initialize_config_dir
from lightning.pytorch import Callback

from mulligan.cli.compose import CONF, build, plain
from mulligan.cli.record import write_record
from mulligan.objective.linear_cross_entropy import Terms


class Spoil(Callback):
    def __init__(self, rank: int, attempts: list[int]) -> None:
        self.rank, self.attempts = rank, attempts

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_rank == self.rank and module.attempt_of(trainer.global_step + 1) in self.attempts:
            objective = module.objective

            def spoilt(*args: Any, **kwargs: Any) -> Terms:
                module.objective = objective
                return Terms(*(term * float("nan") for term in objective(*args, **kwargs)))

            module.objective = spoilt


def main() -> None:
    rank, attempts, *words = sys.argv[1:]
    for overrides in " ".join(words).split(" + "):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            content = plain(compose("train", overrides=overrides.split()))
        run = build(content)
        run.callbacks.append(Spoil(int(rank), [int(attempt) for attempt in attempts.split(",")]))
        begun = partial(write_record, run.folder, content)
        run.train(lambda *_: None, lambda text: print(text, flush=True), begun)


if __name__ == "__main__":
    main()

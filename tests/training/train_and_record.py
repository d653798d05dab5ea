"""A program for test_ranks: train with the given overrides; each rank writes its tokens and gradients, step by step.

It also counts the operators of the third and fourth step, and collectives by the type and the bytes they send; in the
second DDP settles its buckets.
"""

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from lightning.pytorch import Callback
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from mulligan.cli.compose import CONF, build, plain
from mulligan.distributed import rank


class CountOperators(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.sent: Counter[tuple[str, int]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name()
        if "c10d" in name:
            tensors = [one for one in tree_leaves(args) if isinstance(one, torch.Tensor)]
            self.sent[name, max(one.nbytes for one in tensors)] += 1  # the whole, where a part comes or goes as well
            name += f" {tensors[0].dtype}"
        self.counts[name] += 1
        return func(*args, **(kwargs or {}))


class Record(Callback):
    def __init__(self) -> None:
        self.operators = CountOperators()
        self.tokens: list[list[torch.Tensor]] = []
        self.gradients: list[dict[str, torch.Tensor]] = []

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx % module.accumulation == 0:
            self.tokens.append([])
        self.tokens[-1].append(batch.tokens_ST.clone())

    def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
        gradients = {name: parameter.grad.clone() for name, parameter in module.model.named_parameters()}
        self.gradients.append(tree_map_only(DTensor, lambda sharded: sharded.full_tensor(), gradients))

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if (batch_idx + 1) % module.accumulation:
            return
        if len(self.gradients) == 2:
            self.operators.__enter__()
        elif len(self.gradients) == 4:
            self.operators.__exit__(None, None, None)

    def on_train_end(self, trainer: Any, module: Any) -> None:
        tokens = [torch.cat(step) for step in self.tokens]
        operators, sent = dict(self.operators.counts), dict(self.operators.sent)
        seen = {"tokens": tokens, "gradients": self.gradients, "operators": operators, "sent": sent}
        torch.save(seen, Path(sys.argv[1]) / f"rank{rank()}.pt")


def main() -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        run = build(plain(compose("train", overrides=sys.argv[2:])))
    run.callbacks.append(Record())
    run.train(lambda *_: None, lambda *_: None)


if __name__ == "__main__":
    main()

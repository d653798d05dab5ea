"""A program for test_ranks: train with the given overrides; each rank writes its tokens and gradients, step by step.

Of the third and fourth step it counts operators instead, collectives with the type and the bytes they send, and what
the host reads of tensors.
"""

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from lightning.pytorch import Callback
from torch.distributed import distributed_c10d
from torch.distributed.tensor import DTensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from mulligan.cli.compose import CONF, build, plain
from mulligan.distributed import rank

# Python's ways from a tensor to a number. On the CPU some reach no operator; on a GPU each waits for it.
READS = {"item", "tolist", "numpy", "cpu", "__array__", "__bool__", "__int__", "__float__", "__index__", "__format__"}
COUNTED_STEPS = (3, 4)  # of this process


class CountOperators(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.sent: Counter[tuple[str, int]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name()
        tensors = [one for one in tree_leaves(args) if isinstance(one, torch.Tensor)]
        if "c10d" in name:
            whole = max((one.nbytes for one in tensors), default=0)  # where a part comes or goes as well
            self.sent[name, whole] += 1
            name += f" {next((one.dtype for one in tensors), None)}"  # a barrier sends nothing
        elif name.startswith("aten::index") and any(one.dtype == torch.bool for one in tensors[1:]):
            name = "aten::nonzero"  # which a kernel calls for the mask
        self.counts[name] += 1
        return func(*args, **(kwargs or {}))


class CountReads(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in READS:
            self.counts[func.__name__] += 1
        return func(*args, **(kwargs or {}))


def num_collectives() -> int:
    """All that this process has taken part in, whichever thread began them, by the groups' own counts."""
    return sum(group._get_sequence_number_for_group() for group in distributed_c10d._world.pg_map)


class Record(Callback):
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.operators, self.reads = CountOperators(), CountReads()
        self.collectives = 0
        self.judged: list[tuple[int, int]] = []  # the last step made when a step was judged, and that
        self.tokens: list[list[torch.Tensor]] = []
        self.gradients: list[dict[str, torch.Tensor]] = []

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx % module.accumulation == 0:
            self.tokens.append([])
        self.tokens[-1].append(batch.tokens_ST.clone())

    def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
        if len(self.tokens) in COUNTED_STEPS:
            return
        gradients = {name: parameter.grad.clone() for name, parameter in module.model.named_parameters()}
        self.gradients.append(tree_map_only(DTensor, lambda sharded: sharded.full_tensor(), gradients))

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if (batch_idx + 1) % module.accumulation:
            return
        if len(self.tokens) + 1 == COUNTED_STEPS[0]:
            self.collectives -= num_collectives()
            self.operators.__enter__()
            self.reads.__enter__()
        elif len(self.tokens) == COUNTED_STEPS[-1]:
            self.reads.__exit__(None, None, None)
            self.operators.__exit__(None, None, None)
            self.collectives += num_collectives()

    def on_train_end(self, trainer: Any, module: Any) -> None:
        seen = {
            "tokens": [torch.cat(step) for step in self.tokens],
            "gradients": self.gradients,
            "operators": dict(self.operators.counts),
            "sent": dict(self.operators.sent),
            "reads": dict(self.reads.counts),
            "collectives": self.collectives,
            "judged": self.judged,
        }
        torch.save(seen, self.folder / f"rank{rank()}.pt")


def main(folder: str, *overrides: str) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        run = build(plain(compose("train", overrides=list(overrides))))
    record = Record(Path(folder))
    run.callbacks.append(record)
    if run.guard is not None:
        run.guard.look_on = lambda verdict: record.judged.append((run.trainer.global_step, verdict.judgement.step))
    run.train(lambda *_: None, lambda *_: None)


if __name__ == "__main__":
    main(*sys.argv[1:])

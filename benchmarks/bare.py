"""A run as a benchmark composes it, and its update in a bare loop over batches in memory."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from hydra import compose, initialize_config_dir
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from mulligan.cli.compose import CONF, build, plain
from mulligan.cli.train import quiet_lightning
from mulligan.model.transformer import Transformer
from mulligan.training.clipping import Clipping
from mulligan.training.run import TrainingRun

NEVER = 10**9  # steps
DONE = b"done\n"  # what a process that takes turns writes when its steps are done

Step = Callable[[], object]


def compose_run(folder: str, *overrides: str) -> TrainingRun:
    quiet_lightning()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", overrides=[f"folder={folder}/run", f"data.folder={folder}/prepared", *overrides])
    return build(plain(config))


def make_step(
    run: TrainingRun,
    *,
    default_precision: bool = False,
    compiled: bool = False,
    replicated: bool = False,
    device: str = "cpu",
) -> Step:
    """One update as the run does it, in float32 or its own precision. On a GPU nothing waits for its end.

    ``replicated`` averages gradients over the ranks of the process group with PyTorch's DDP as it comes.
    """
    model = make_model(run, compiled=compiled, device=device)
    optimizer = run.optimizer.make(model)
    forward = DistributedDataParallel(model) if replicated else model
    batches = random_batches(run, device)
    bf16 = default_precision and run.precision == "bf16-mixed"
    softcap, clipping, no_sums_2 = run.model.logit_softcap, Clipping(run.optimizer.clip_norm), torch.zeros(2)

    def step() -> None:
        tokens_BT = next(batches)
        head = partial(run.objective, targets_BT=tokens_BT[:, 1:], softcap=softcap, regularized=True)
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            terms = forward(tokens_BT[:, :-1], head=head)
        (terms.loss_sum / tokens_BT[:, 1:].numel()).backward()
        clipping(optimizer, no_sums_2)
        optimizer.step()
        optimizer.zero_grad()

    return step


def make_model(run: TrainingRun, *, compiled: bool = False, device: str = "cpu") -> Transformer:
    """As the module makes it."""
    with torch.device("meta"):
        model = Transformer(run.model)
    if run.float8 is not None:
        run.float8.convert(model)
    if compiled:
        for block in model.blocks:
            block.compile()
    return model.materialize(device, run.seed)


def random_batches(run: TrainingRun, device: str = "cpu") -> Iterator[Tensor]:
    shape = (run.global_batch, run.sequence_length + 1)
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randint(run.model.vocab_size, shape, generator=generator).to(device) for _ in range(8)]
    while True:
        yield from batches

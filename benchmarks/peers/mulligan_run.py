"""Ours: a whole run from conf/train.yaml with its guard, logger and loader, on the same tokens."""

import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, Trainer

from benchmarks.bare import compose_run
from benchmarks.peers.shapes import BETAS, CLIP_NORM, EPS, INIT_STD, LOG_EVERY_N_STEPS, LR, NEVER, WEIGHT_DECAY, Work
from benchmarks.peers.turns import Turns
from mulligan.data.sentencepiece_tokenizer import train_sentencepiece
from mulligan.data.shards import offsets_name
from mulligan.files import write_json
from mulligan.training.run import TrainingRun

FORMS = {
    "llama": ("norm=rms", "positions=rotary", "feedforward=swiglu", "bias=false"),
    "gpt2": ("norm=layer", "positions=learned", "feedforward=gelu", "bias=true"),
}
TOKENIZER_SIZE = 512  # pieces; nothing is encoded, but prepared data has a tokenizer
TOKENS_PER_PARAMETER = 20  # a run as long as that of Hoffmann et al. 2022: what ``compile=auto`` decides for


def make_run(work: Work, compile: str) -> TrainingRun:
    shape = work.of_shape
    return compose_run(
        work.folder,
        "model=base",
        *(f"model.{key}" for key in FORMS[shape.form]),
        f"model.vocab_size={shape.vocab_size}",
        f"model.width={shape.width}",
        f"model.num_layers={shape.num_layers}",
        f"model.num_heads={shape.num_heads}",
        f"model.num_key_value_heads={shape.key_value_heads}",
        f"model.feedforward_width={shape.feedforward_width}",
        f"model.rope_theta={shape.rope_theta}",
        f"model.init_std={INIT_STD}",
        f"sequence_length={shape.length}",
        f"global_batch_samples={shape.micro_batch}",
        f"max_tokens_per_parameter={TOKENS_PER_PARAMETER}",
        "max_steps=null",
        f"optimizer.lr={LR}",
        f"optimizer.betas={list(BETAS)}".replace(" ", ""),
        f"optimizer.eps={EPS}",
        f"optimizer.weight_decay={WEIGHT_DECAY}",
        f"optimizer.clip_norm={CLIP_NORM}",
        "schedule=constant",
        "schedule.warmup=0.0",
        f"tokenizer.vocab_size={TOKENIZER_SIZE}",
        f"precision={'bf16-mixed' if work.bf16 else '32-true'}",
        f"trainer={'single_gpu' if work.device == 'cuda' else 'cpu'}",
        f"compile={compile}",
        "deterministic=false",  # as all others
        f"log_every_n_steps={LOG_EVERY_N_STEPS}",
        f"validate_every_n_steps={NEVER}",
        "evaluate_every_n_steps=null",
        "data.verify=false",
    )


def lay_out(tokens_path: Path, folder: Path, vocab_size: int) -> None:
    """Make the token file a folder of prepared data, of one document; the same file is the held-out split too."""
    folder.mkdir(parents=True)
    model = train_sentencepiece([Path(__file__).read_text()], vocab_size=TOKENIZER_SIZE, model_type="bpe")
    (folder / "tokenizer.model").write_bytes(model)
    entries: list[dict[str, Any]] = []
    for split in ("train", "validation"):
        name = f"{split}_000000.npy"
        (folder / name).symlink_to(tokens_path)
        np.save(folder / offsets_name(name), np.zeros(1, dtype=np.int64))
        count = len(np.load(tokens_path, mmap_mode="r"))
        entries.append({"file": name, "split": split, "source": "zipf", "tokens": count, "utf8_bytes": 0})
    fingerprint = hashlib.sha256(tokens_path.read_bytes()).hexdigest()
    write_json(folder / "manifest.json", {"shards": entries, "fingerprint": fingerprint, "vocab_size": vocab_size})


class TakeTurns(Callback):
    """Last of the callbacks: all of a step is done."""

    def __init__(self, turns: Turns, num_parameters: int) -> None:
        self.turns, self.num_parameters = turns, num_parameters

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.turns.begin(self.num_parameters)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *args: Any) -> None:
        cross_entropy, count = pl_module.sums.step_2
        self.turns.step_done(cross_entropy / count)


def main(work: Work) -> None:
    turns = Turns(work.block_steps)
    run = make_run(work, str(work.compile).lower())
    lay_out(Path(work.tokens_path), run.data.folder, work.of_shape.vocab_size)
    run.callbacks.append(TakeTurns(turns, run.model.num_parameters))
    run.fit(lambda *_: None, lambda _: None)


if __name__ == "__main__":
    main(Work.from_json(sys.argv[1]))

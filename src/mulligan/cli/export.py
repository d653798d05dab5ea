"""``mulligan export run=runs/NAME to=...``: a checkpoint, of either form, as others read it.

format=weights writes one file, model.safetensors, and beside it model.json and the tokenizer's: other verbs take that
folder, and ``model_with_weights(ModelConfig(**json), load_file(...), device)`` is the model again. format=hf writes a
folder that transformers loads. Weights are read and written one after another, so that a large model needs little
memory.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig

from mulligan.cli.compose import build, plain
from mulligan.cli.provenance import begun_with
from mulligan.cli.saved_run import SavedRun
from mulligan.data.tokenizer import FILES
from mulligan.export.forms import published_config
from mulligan.export.hugging_face import write_folder
from mulligan.export.model_card import Trained, model_card
from mulligan.files import atomic_folder, atomic_write, read_json, write_hashed, write_json
from mulligan.model.config import ModelConfig
from mulligan.model.folder import WEIGHTS
from mulligan.model.weights import weights_sha256
from mulligan.report.run_files import json_lines
from mulligan.safetensors_file import LazyTensors, write_safetensors
from mulligan.training.checkpoints import load_unsharded


class Export:
    """The schema of conf/export.yaml."""

    def __init__(self, *, run: str, to: str, format: Literal["weights", "hf"], step: int | None) -> None:
        self.to, self.format = Path(to), format
        if format == "weights" and self.to.suffix != ".safetensors":
            raise ValueError(f"to={to} must name a .safetensors file, or a folder with format=hf")
        if not self.to.parent.is_dir():
            raise ValueError(f"to={to}: there is no folder {self.to.parent}; make it first")
        for path in (self.to, *(self.beside if format == "weights" else [])):
            if path.exists():
                raise ValueError(f"to={to}: {path} is there already; choose another name")
        self.run = SavedRun(Path(run))
        self.checkpoint = self.run.newest if step is None else self.run.at_step(step)

    @property
    def shape_file(self) -> Path:
        """Of format=weights."""
        return self.to.with_suffix(".json")

    @property
    def is_taken_by_verbs(self) -> bool:
        """Whether the file has the name by which they find a model in a folder."""
        return self.to.name == WEIGHTS

    @property
    def beside(self) -> list[Path]:
        """What format=weights may write next to the weights; no tokenizer of another model must be found there."""
        return [self.shape_file, *(self.to.with_name(name) for name in FILES if self.is_taken_by_verbs)]


def work(config: DictConfig) -> None:
    export: Export = build(plain(config))
    shape: ModelConfig = export.run.model_config
    state = load_unsharded(export.checkpoint.path, mmap=True)
    {"weights": _as_weights, "hf": _for_hugging_face}[export.format](export, shape, state)


def _as_weights(export: Export, shape: ModelConfig, state: dict[str, Any]) -> None:
    weights = export.run.lazy_weights(export.checkpoint, state)
    try:
        write_json(export.shape_file, asdict(shape))
        beside = f"; {_copy_tokenizer(export, state)}" if export.is_taken_by_verbs else ""
        write_hashed(export.to, lambda file: write_safetensors(file, weights, {"step": str(export.checkpoint.step)}))
    except BaseException:  # a full disk, or Ctrl-C: the same command goes on
        for path in export.beside:  # none was there before
            path.unlink(missing_ok=True)
        raise
    digest = _digest(weights, shape)
    print(
        f"{export.to} holds the {shape.num_parameters:,} parameters of {export.run.folder} at step "
        f"{export.checkpoint.step}, sha256 of the weights {digest[:16]}; {export.shape_file} their shape{beside}"
    )


def _copy_tokenizer(export: Export, state: dict[str, Any]) -> str:
    """Say where it is now, or why it is not: the weights alone are worth having where the data is not at hand."""
    try:
        export.run.check_data(state, export.checkpoint.path)
        tokenizer = export.run.tokenizer()
    except (ValueError, OSError) as error:
        return f"without its tokenizer: {error}"
    path = export.to.with_name(tokenizer.file_name)
    with atomic_write(path) as file:
        file.write(tokenizer.model)
    return f"{path} its tokenizer"


def _for_hugging_face(export: Export, shape: ModelConfig, state: dict[str, Any]) -> None:
    run, checkpoint = export.run, export.checkpoint
    run.check_data(state, checkpoint.path)
    architecture, _ = published_config(shape)
    weights = run.lazy_weights(checkpoint, state)
    card = model_card(_trained(export, shape, weights), architecture)
    with atomic_folder(export.to) as folder:
        write_folder(folder, config=shape, weights=weights, tokenizer=run.tokenizer(), card=card)
    print(
        f"{export.to} holds {run.folder} at step {checkpoint.step} as a {architecture} of {shape.num_parameters:,} "
        f"parameters, with its tokenizer and a model card, README.md"
    )


def _digest(weights: LazyTensors, shape: ModelConfig) -> str:
    named = {"head.weight": "embedding.weight"} if shape.tied_embeddings else {}  # which a model has under both names
    return weights_sha256(weights.under_more_names(named))


def _trained(export: Export, shape: ModelConfig, weights: LazyTensors) -> Trained:
    run, step = export.run, export.checkpoint.step
    summary, provenance = run.folder / "summary.json", run.folder / "provenance.jsonl"
    ended = read_json(summary, "step", "weights_sha256") if summary.is_file() else {"step": None}
    # A run that had ended, went on and was rewound may come to the same step with other weights.
    was_judged = ended["step"] == step and ended["weights_sha256"] == _digest(weights, shape)
    starts = json_lines(provenance)
    return Trained(
        name=run.folder.name,
        step=step,
        tokens_per_step=run.global_batch * run.sequence_length,
        model=shape,
        config=run.recorded,
        data_fingerprint=read_json(run.data_folder / "manifest.json", "fingerprint")["fingerprint"],
        initial_weights_sha256=begun_with(run.folder).get("initial_weights_sha256"),
        summary=ended if was_judged else None,
        starts=[line for line in starts if line["step"] < step],
        interventions=run.ledger.entries[: export.checkpoint.ledger_lines],
    )

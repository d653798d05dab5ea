"""A run read back from its folder: config, newest whole weights, tokenizer, data."""

import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from mulligan.cli.record import check_is_of_a_run, checkpoints_of, read_record, recorded_model
from mulligan.cli.recorded_data import prepared_folder
from mulligan.data.join import verify
from mulligan.data.order import order_of
from mulligan.data.sequencer import Sequencer
from mulligan.data.shards import Shards
from mulligan.data.tokenizer import tokenizer_in
from mulligan.data.tokens import Tokenizer
from mulligan.files import read_json
from mulligan.model.config import ModelConfig
from mulligan.model.transformer import Transformer
from mulligan.model.weights import empty_weights, model_with_weights
from mulligan.report.run_files import Planned, RunFiles, read_run
from mulligan.safetensors_file import LazyTensors
from mulligan.stability.ledger import Ledger
from mulligan.training.arithmetic import samples_of_global_batch, sizes_of
from mulligan.training.checkpoints import (
    Checkpoint,
    is_whole,
    lazy_weights,
    listed,
    load_checkpoint,
    model_part,
    newest_whole,
    on_lineage,
)  # fmt: skip
from mulligan.training.closing import AUTOCAST_DTYPES

SIZES = (
    "sequence_length", "global_batch_samples", "global_batch_tokens", "max_steps", "max_tokens",
    "max_tokens_per_parameter",
)  # fmt: skip


class SavedRun:
    def __init__(self, folder: Path) -> None:
        recorded = read_record(folder)
        if recorded is None:
            raise ValueError(f"run={folder}: no run is there (no config.yaml); give a folder such as runs/default")
        check_is_of_a_run(recorded, folder)
        self.folder, self.recorded = folder, recorded
        self.ledger = Ledger(folder / "ledger.jsonl", writes=False)
        self.sequence_length: int = recorded["sequence_length"]
        self.autocast_dtype = AUTOCAST_DTYPES.get(recorded["precision"])
        self.checkpoints = checkpoints_of(folder, recorded)

    @cached_property
    def model_config(self) -> ModelConfig:
        return recorded_model(self.recorded, self.folder)

    def check_ledger(self) -> None:
        """Raise ValueError where a checkpoint was written under more lines than are left."""
        for found in listed(self.checkpoints):
            if found.ledger_lines > len(self.ledger.lines):
                raise ValueError(
                    f"{self.ledger.path} has lost lines: {found.path} was written under {found.ledger_lines}, and "
                    f"{len(self.ledger.lines)} are left; bring the ledger back"
                )

    @cached_property
    def newest(self) -> Checkpoint:
        """The newest whole checkpoint."""
        found = newest_whole(self.checkpoints, self.ledger, warn=lambda text: print(text, file=sys.stderr, flush=True))
        if found is None:
            raise ValueError(f"run={self.folder}: it has no whole checkpoint yet")
        return found

    def at_step(self, step: int) -> Checkpoint:
        """The whole checkpoint of ``step``."""
        kept = listed(self.checkpoints)
        found = [checkpoint for checkpoint in kept if checkpoint.step == step]
        if not found:
            steps = ", ".join(str(checkpoint.step) for checkpoint in kept) or "none"
            raise ValueError(f"step={step}: {self.checkpoints} has no checkpoint of it; it has those of: {steps}")
        if not is_whole(found[0]):
            raise ValueError(f"step={step}: {found[0].path} is not whole, its bytes differ from their sha256")
        return found[0]

    def newest_before(self, step: int, *, num_lines: int, written_then: bool = False) -> Checkpoint | None:
        """The newest whole checkpoint from before ``step`` on the lineage that the run was on when its ledger had
        ``num_lines``, also among those of ``checkpoint.keep_abandoned``; None where there is no such. A run goes on
        with a shorter ledger only from one ``written_then``, or earlier.
        """

        def is_on_lineage(found: Checkpoint) -> bool:
            # Whichever is older: nothing between the two went back to before it.
            earlier, later = sorted((num_lines, found.ledger_lines))
            return not self.ledger.before(later).abandons(found.step, earlier)

        kept = [*listed(self.checkpoints), *listed(self.checkpoints / "abandoned")]
        candidates = [
            found
            for found in kept
            if found.step < step and is_on_lineage(found) and not (written_then and found.ledger_lines > num_lines)
        ]
        return next(filter(is_whole, sorted(candidates, key=lambda found: -found.step)), None)

    def model(self, checkpoint: Checkpoint | None = None) -> Transformer:
        """The weights of a checkpoint, the newest by default, on a GPU where there is one."""
        path = (checkpoint or self.newest).path
        state = load_checkpoint(path, with_optimizer=False)
        self.check_data(state, path)
        return model_with_weights(
            self.model_config, model_part(state["state_dict"]), "cuda" if torch.cuda.is_available() else "cpu"
        )

    def lazy_weights(self, checkpoint: Checkpoint, state: dict[str, Any]) -> LazyTensors:
        """Each weight of the model, tied ones once, read from ``checkpoint`` when asked for; ``state`` without parts is
        what was read of it.
        """
        weights = lazy_weights(checkpoint.path, state)
        wanted = empty_weights(self.model_config)
        for name, weight in wanted.items():
            if name not in weights or weights.layout[name].shape != weight.shape:
                raise ValueError(
                    f"{checkpoint.path} has no {name} of the shape that {self.folder}/config.yaml gives it: "
                    "use the version of mulligan that wrote it"
                )
        return weights.part(list(wanted))

    def check_data(self, state: dict[str, Any], path: Path) -> None:
        """Raise ValueError where the prepared data, and so the tokenizer, is not what ``path`` was trained on."""
        trained_on = state["mulligan"]["data_fingerprint"]
        if trained_on != read_json(self.data_folder / "manifest.json", "fingerprint")["fingerprint"]:
            raise ValueError(f"{self.data_folder} is not the data {trained_on[:16]} that {path} was trained on")

    @property
    def data_folder(self) -> Path:
        """The prepared data the run was trained on."""
        path = self.folder / "data.json"
        if not path.is_file():
            raise ValueError(
                f"{path} is missing, which says where the run's data is: go on with the run to write it anew"
            )
        found = prepared_folder(self.folder, self.recorded)
        if found is None:
            raise ValueError(
                f"{read_json(path)['folder']}, which {self.folder} was trained on, is missing: bring it back, or go on "
                "with the run to have it made again"
            )
        return found

    def files(self) -> RunFiles:
        """What the files in its folder say of how it went."""
        num_parameters = self.model_config.num_parameters
        sizes = sizes_of(num_parameters=num_parameters, **{key: self.recorded[key] for key in SIZES})
        planned = Planned(sizes.num_steps, sizes.global_batch, self.sequence_length, num_parameters, self.is_watched)
        kept = on_lineage(self.checkpoints, self.ledger)
        return read_run(self.folder, planned, self.ledger, newest_checkpoint=kept[-1].step if kept else 0)

    @property
    def is_watched(self) -> bool:
        return self.recorded["stability"] is not None

    @property
    def document_mask(self) -> bool:
        return bool(self.recorded["data"]["document_mask"])

    @property
    def global_batch(self) -> int:
        """Samples of a step."""
        return samples_of_global_batch(
            samples=self.recorded["global_batch_samples"],
            tokens=self.recorded["global_batch_tokens"],
            sequence_length=self.sequence_length,
        )

    @property
    def step(self) -> int:
        """Of the newest whole checkpoint."""
        return self.newest.step

    def held_out(self, max_bytes: int | None) -> Shards:
        """The first shards that it was not trained on that hold so many bytes of text; all with None."""
        verify(self.data_folder, ["validation"])
        return Shards(self.data_folder, "validation", self.sequence_length, max_bytes=max_bytes)

    def training_shards(self) -> Shards:
        verify(self.data_folder, ["train"])
        return Shards(self.data_folder, "train", self.sequence_length)

    def sequencer(self, shards: Shards, skips: Sequence[tuple[int, int]]) -> Sequencer:
        """The order that the run reads ``shards`` in while it leaves out ``skips``."""
        return order_of(shards, weights=self.recorded["data"]["weights"], seed=self.recorded["seed"], skips=skips)

    def tokenizer(self) -> Tokenizer:
        verify(self.data_folder, [])
        return tokenizer_in(self.data_folder)

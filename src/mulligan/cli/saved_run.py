"""A run read back from its folder: config, newest whole weights, tokenizer, data."""

import sys
from pathlib import Path

import torch

from mulligan.cli.compose import build
from mulligan.cli.record import read_record
from mulligan.data.join import verify
from mulligan.data.tokenizer import Tokenizer
from mulligan.files import read_json
from mulligan.model.config import ModelConfig
from mulligan.model.transformer import Transformer
from mulligan.model.weights import model_with_weights
from mulligan.stability.ledger import Ledger
from mulligan.training.checkpoints import load_checkpoint, model_part, newest_whole
from mulligan.training.closing import AUTOCAST_DTYPES


class SavedRun:
    def __init__(self, folder: Path) -> None:
        recorded = read_record(folder)
        if recorded is None:
            raise ValueError(f"run={folder}: no run is there (no config.yaml); give a folder such as runs/default")
        checkpoints = folder / "checkpoints"
        if not checkpoints.is_dir():
            checkpoints = Path(recorded["checkpoint"]["folder"])
        ledger = Ledger(folder / "ledger.jsonl", writes=False)
        checkpoint = newest_whole(checkpoints, ledger, warn=lambda text: print(text, file=sys.stderr, flush=True))
        if checkpoint is None:
            raise ValueError(f"run={folder}: it has no whole checkpoint yet")
        self.folder, self.step, self._checkpoint = folder, checkpoint.step, checkpoint.path
        self.sequence_length: int = recorded["sequence_length"]
        self.autocast_dtype = AUTOCAST_DTYPES.get(recorded["precision"])
        self._recorded = recorded

    def model(self) -> Transformer:
        """The weights, on a GPU where there is one."""
        config: ModelConfig = build(self._recorded["model"])
        checkpoint = load_checkpoint(self._checkpoint)
        trained_on = checkpoint["mulligan"]["data_fingerprint"]
        if trained_on != read_json(self.data_folder / "manifest.json", "fingerprint")["fingerprint"]:
            raise ValueError(
                f"{self.data_folder} is not the data {trained_on[:16]} that {self._checkpoint} was trained on"
            )
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return model_with_weights(config, model_part(checkpoint["state_dict"]), device)

    @property
    def data_folder(self) -> Path:
        """The prepared data the run was trained on."""
        path = self.folder / "data.json"
        if not path.is_file():
            raise ValueError(
                f"{path} is missing, which says where the run's data is: go on with the run to write it anew"
            )
        noted = Path(read_json(path, "folder")["folder"])
        if noted.is_dir():
            return noted
        return Path(self._recorded["data"]["folder"]) / noted.name  # the run was moved, prepared/ with it

    @property
    def document_mask(self) -> bool:
        return bool(self._recorded["data"]["document_mask"])

    def tokenizer(self) -> Tokenizer:
        verify(self.data_folder, [])
        return Tokenizer.load(self.data_folder / "tokenizer.model")

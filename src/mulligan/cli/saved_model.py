"""A model read from a folder that belongs to no run: what ``export`` or ``import`` wrote."""

from pathlib import Path

import torch

from mulligan.cli.record import read_record
from mulligan.cli.saved_run import SavedRun
from mulligan.data.shards import Shards
from mulligan.data.tokenizer import tokenizer_in
from mulligan.data.tokens import Tokenizer
from mulligan.model.folder import ModelFolder
from mulligan.model.shape import SHAPE, is_of_others
from mulligan.model.transformer import Transformer

LONGEST_WINDOW = 2048  # attention over all that long-context models read takes minutes on a CPU


class SavedModel:
    """As much of a ``SavedRun`` as a model alone has. It is judged by windows of 2,048 tokens at most."""

    autocast_dtype = None
    step = None
    document_mask = False

    def __init__(self, folder: Path) -> None:
        self.folder, self._content = folder, ModelFolder(folder)
        self.sequence_length = min(LONGEST_WINDOW, self._content.config.max_length)

    def model(self) -> Transformer:
        """The model, on a GPU where there is one."""
        return self._content.model("cuda" if torch.cuda.is_available() else "cpu")

    def tokenizer(self) -> Tokenizer:
        return tokenizer_in(self.folder)

    def held_out(self, max_bytes: int | None) -> Shards:
        raise ValueError(
            f"{self.folder} is a model without a run, which has no held-out text: choose another suite, such as "
            "suite=[text] with suite.text.paths"
        )


def open_model(path: Path) -> SavedRun | SavedModel:
    """What lies in the folder ``path``: a run, or a model without one."""
    is_model = read_record(path) is None and ((path / SHAPE).is_file() or is_of_others(path))
    return SavedModel(path) if is_model else SavedRun(path)

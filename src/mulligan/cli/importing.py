"""``mulligan import from=PATH to=FOLDER``: somebody else's model in our form, as ``mulligan export`` writes it.

The new folder holds model.json, model.safetensors, the tokenizer's file, and imported.json: what it was made of.
"""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from omegaconf import DictConfig

import mulligan
from mulligan.cli.compose import build, plain
from mulligan.data.tokenizer import tokenizer_of
from mulligan.export.gguf_file import read_gguf
from mulligan.export.hugging_face import read_folder, source_files
from mulligan.export.imported import Imported
from mulligan.files import atomic_folder, atomic_write, sha256_file, write_hashed, write_json
from mulligan.safetensors_file import write_safetensors


class Import:
    """The schema of conf/import.yaml."""

    def __init__(self, *, to: str, **named: str) -> None:
        self.source, self.to = Path(str(named["from"])), Path(to)  # from is a word of Python's: no parameter's name
        if not self.source.exists():
            raise ValueError(f"from={self.source} is not there: give a model's folder, or a .gguf file")
        if not self.to.parent.is_dir():
            raise ValueError(f"to={to}: there is no folder {self.to.parent}; make it first")
        if self.to.exists():
            raise ValueError(f"to={to} is there already; choose another name")

    def read(self) -> Imported:
        if self.source.is_dir() and not (self.source / "config.json").is_file():
            raise ValueError(f"from={self.source} has no config.json: give the folder of a model of transformers'")
        if self.source.is_dir():
            return read_folder(self.source)
        if self.source.suffix == ".gguf":
            return read_gguf(self.source)
        raise ValueError(
            f"from={self.source} is of no kind that is read: give a folder that transformers has saved, or a .gguf file"
        )

    def files(self) -> list[Path]:
        """Those that ``read`` read."""
        return source_files(self.source) if self.source.is_dir() else [self.source]


def work(config: DictConfig) -> None:
    request: Import = build(plain(config))
    model = request.read()
    with atomic_folder(request.to) as folder:
        write_json(folder / "model.json", asdict(model.config))
        write_hashed(folder / "model.safetensors", lambda file: write_safetensors(file, model.weights, {}))
        if model.tokenizer is not None:
            name, content = model.tokenizer
            with atomic_write(folder / name) as file:
                file.write(content)
        origin = {
            "source": str(request.source),
            "sha256": {path.name: sha256_file(path) for path in request.files()},
            "architecture": model.architecture,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "mulligan": mulligan.__version__,
        }
        write_json(folder / "imported.json", origin)
    tokenizer = f"its tokenizer, {model.tokenizer[0]}" if model.tokenizer else "no tokenizer, for it has none"
    print(
        f"{request.to} holds {request.source}, a {model.architecture} of {model.config.num_parameters:,} parameters, "
        f"with {tokenizer}"
    )
    if model.tokenizer is not None:
        try:
            num_tokens = tokenizer_of(model.tokenizer[1]).vocab_size
        except ValueError as error:
            print(f"that tokenizer cannot be used here, only the weights: {model.tokenizer[0]} {error}")
            return
        if num_tokens > model.config.vocab_size:
            print(
                f"that tokenizer has {num_tokens:,} tokens, and the model rows for {model.config.vocab_size:,}: a text "
                "that needs one of the others is refused"
            )

"""Where a tokenizer comes from: a file of either kind, or a sample of text to train one on."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from mulligan.data.json_tokenizer import JsonTokenizer
from mulligan.data.sentencepiece_tokenizer import CHARACTER_COVERAGE, SentencePieceTokenizer, train_sentencepiece
from mulligan.data.tokens import Tokenizer
from mulligan.files import sha256_file

FILES = (SentencePieceTokenizer.file_name, JsonTokenizer.file_name)


def tokenizer_of(model: bytes) -> Tokenizer:
    """The tokenizer that the content of a file is: JSON, or SentencePiece's protocol buffer, which begins otherwise."""
    return JsonTokenizer(model) if model.lstrip().startswith(b"{") else SentencePieceTokenizer(model)


def load_tokenizer(path: Path) -> Tokenizer:
    try:
        return tokenizer_of(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} {error}") from None


def tokenizer_path(folder: Path) -> Path | None:
    """The file of the tokenizer that belongs to prepared data or to a model; None where there is none."""
    return next((folder / name for name in FILES if (folder / name).is_file()), None)


def tokenizer_in(folder: Path) -> Tokenizer:
    path = tokenizer_path(folder)
    if path is None:
        raise ValueError(f"{folder} has no tokenizer: neither {' nor '.join(FILES)} is there")
    return load_tokenizer(path)


class TokenizerRecipe:
    """How to come by a tokenizer: a seeded sample to train on, or an existing file of one."""

    def __init__(
        self,
        *,
        vocab_size: int,
        model_type: Literal["bpe", "unigram"] = "bpe",
        sample_bytes: int = 2**24,
        seed: int = 0,
        model_file: str | None = None,
        character_coverage: float | None = None,
    ) -> None:
        """``character_coverage`` is the share of the sample's characters that get pieces of their own, None the usual
        one of 0.9999; the others are spelled in bytes.
        """
        if model_file is None and not 260 <= vocab_size < 2**31:
            raise ValueError(
                f"tokenizer.vocab_size={vocab_size} must be at least 260, for 256 bytes and 4 special pieces, and "
                "below 2**31"
            )
        if model_file is not None and not Path(model_file).is_file():
            raise ValueError(f"tokenizer.model_file={model_file!r} is not a file")
        self.vocab_size, self.model_type = vocab_size, model_type
        if seed < 0:
            raise ValueError(f"tokenizer.seed={seed} must not be negative")
        if sample_bytes < 1:
            raise ValueError(f"tokenizer.sample_bytes={sample_bytes} must be at least 1")
        if character_coverage is not None and not 0.98 <= character_coverage <= 1.0:
            raise ValueError(f"tokenizer.character_coverage={character_coverage} must be in [0.98, 1], or null")
        self.sample_bytes, self.seed, self.model_file = sample_bytes, seed, model_file
        self.character_coverage = None if character_coverage == CHARACTER_COVERAGE else character_coverage
        self.model_sha256 = None if model_file is None else sha256_file(Path(model_file))

    @property
    def request(self) -> dict[str, Any]:
        """What decides its bytes, by name. A key is left out that prepared data may be older than."""
        described = dict(vars(self))
        if self.character_coverage is None:
            del described["character_coverage"]
        return described

    def make(self, texts: Iterable[str]) -> Tokenizer:
        """Train on ``texts`` (ignored with a model file); the same texts give the same model."""
        if self.model_file is not None:
            tokenizer = load_tokenizer(Path(self.model_file))
            if tokenizer.vocab_size != self.vocab_size:
                raise ValueError(
                    f"tokenizer.model_file={self.model_file!r} has {tokenizer.vocab_size} pieces: "
                    f"set tokenizer.vocab_size={tokenizer.vocab_size}, not {self.vocab_size}"
                )
            return tokenizer
        model = train_sentencepiece(
            texts,
            vocab_size=self.vocab_size,
            model_type=self.model_type,
            character_coverage=self.character_coverage,
        )
        return SentencePieceTokenizer(model)

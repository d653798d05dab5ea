"""What every tokenizer is: the ids of a text, and the bytes that each id stands for."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.uint32]
BLANK = "\u2581"  # in pieces that are text and not bytes, of a blank


class Tokenizer(ABC):
    """Text to token ids and back, byte for byte.

    Documents are framed as ``begin_id, ..., end_id``. A tokenizer with one mark for both has it once, before the text:
    that of the next document ends this one.
    """

    file_name: ClassVar[str]
    library: ClassVar[str]  # whose version may decide about ids

    def __init__(self, model: bytes, *, begin_id: int, end_id: int, bytes_of: list[bytes]) -> None:
        """``model`` is the whole content of its file, ``bytes_of`` what each id stands for."""
        self.model, self.begin_id, self.end_id = model, begin_id, end_id
        self.vocab_size, self._bytes_of = len(bytes_of), bytes_of
        self._blank_ids: Ids | None = None  # of U+2581, where a blank is written as that

    @abstractmethod
    def _encode(self, text: str) -> Ids: ...

    def spelled(self, text: str) -> str:
        """``text`` as it comes back: with U+FFFD for characters that the vocabulary cannot spell, if there are any."""
        return text

    def encode(self, text: str) -> Ids:
        """Token ids of ``text``, without begin and end."""
        if self._blank_ids is None or BLANK not in text:
            return self._encode(text)
        stretches = [self._encode(stretch) for stretch in text.split(BLANK)]
        return np.concatenate([stretches[0], *(ids for one in stretches[1:] for ids in (self._blank_ids, one))])

    def framed(self, ids: Ids) -> Ids:
        """A document: ``ids`` between its marks."""
        begin, end = np.array([[self.begin_id], [self.end_id]], dtype=np.uint32)
        return np.concatenate((begin, ids) if self.begin_id == self.end_id else (begin, ids, end))

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ``ids``; begin and end are empty, and bytes that do not form UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        return b"".join(self._bytes_of[number] for number in ids)

    def beginning_with(self, begun: bytes) -> list[int]:
        """The tokens whose bytes begin with ``begun``."""
        return [number for number, piece in enumerate(self._bytes_of) if piece.startswith(begun)]

    def token_bytes(self) -> NDArray[np.int64]:
        """UTF-8 bytes that each token stands for, (vocab_size,); 0 for begin and end."""
        return np.array([len(piece) for piece in self._bytes_of], dtype=np.int64)

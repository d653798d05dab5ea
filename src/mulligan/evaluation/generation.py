"""Text from a model: what follows prompts at the beginning of a document."""

import codecs
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

import torch

from mulligan.data.tokens import Tokenizer
from mulligan.evaluation.rollout import Row, rollout
from mulligan.evaluation.sampler import Sampler
from mulligan.evaluation.vocabulary import check_tokens
from mulligan.model.transformer import Transformer


class Completion:
    """The text that follows ``prompt``, as it grows. It ends before the first of the strings ``stop`` to be complete,
    wherever its tokens part it; of two that are complete at once, before the longer.

    With ``redraws_last`` the last token of the prompt is drawn again among those that begin with it: "def " ends in a
    blank that in running text is the beginning of the next word's token, and never stands before a letter by itself.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt: str,
        sampler: Sampler,
        *,
        max_new_tokens: int,
        vocab_size: int,
        stop: Sequence[str] = (),
        redraws_last: bool = True,
    ) -> None:
        """``vocab_size`` is the model's: what it or the tokenizer has more than the other is never drawn."""
        if "" in stop:
            raise ValueError("stop must not hold an empty string: every text begins with one")
        self.tokenizer, self.prompt, self.stop = tokenizer, prompt, stop
        self.text = ""  # whole characters that no stop string will take back
        self.stopped_by: str | None = None
        ids, first_V = [tokenizer.begin_id, *tokenizer.encode(prompt).tolist()], None
        check_tokens(ids, vocab_size)
        self._begun = b""  # what of the prompt the first new token repeats
        if prompt and redraws_last:
            self._begun = tokenizer.decode_bytes([ids.pop()])
            first_V = _mask(tokenizer.beginning_with(self._begun), vocab_size)
        self.row = Row(
            ids,
            sampler,
            max_new_tokens=max_new_tokens,
            end_id=tokenizer.end_id,
            allowed_V=_mask(range(tokenizer.vocab_size), vocab_size),
            first_V=first_V,
        )
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._num_read = 0
        self._pending = ""

    @property
    def ended_by(self) -> Literal["end", "stop", "length"]:
        return "stop" if self.stopped_by is not None else "end" if self.row.has_ended else "length"

    def advance(self) -> str:
        """Read the tokens that the row has got, and return what is new of ``text``."""
        new = self.row.new[self._num_read :]
        self._num_read += len(new)
        spelled = self.tokenizer.decode_bytes(new)[len(self._begun) if new else 0 :]
        self._begun = b"" if new else self._begun
        self._pending += self._decoder.decode(spelled, final=self.row.is_done)
        found = [(at + len(one), at, one) for one in self.stop if (at := self._pending.find(one)) >= 0]
        certain = len(self._pending)
        if found:
            _, certain, self.stopped_by = min(found)
            self.row.is_done = True
        elif not self.row.is_done:
            certain -= max((_overlap(self._pending, one) for one in self.stop), default=0)
        fresh, self._pending = self._pending[:certain], self._pending[certain:]
        self.text += fresh
        return fresh


def complete(
    model: Transformer,
    completions: Sequence[Completion],
    *,
    batch_size: int,
    autocast_dtype: torch.dtype | None = None,
    watch: Callable[[Completion, str], None] = lambda completion, fresh: None,
) -> None:
    """Bring every completion to its end, those with prompts of like length together.

    ``watch`` is called after each token with what is new of its text, while ``row.logits_V`` is what it was drawn from.
    """
    ordered = sorted(completions, key=lambda one: len(one.row.context))
    for first in range(0, len(ordered), batch_size):
        batch = ordered[first : first + batch_size]
        of_row = {id(one.row): one for one in batch}
        for row in rollout(model, [one.row for one in batch], autocast_dtype=autocast_dtype):
            watch(of_row[id(row)], of_row[id(row)].advance())


def generate_text(
    model: Transformer,
    tokenizer: Tokenizer,
    prompt: str,
    sampler: Sampler,
    *,
    max_new_tokens: int,
    stop: Sequence[str] = (),
) -> Iterator[str]:
    """Yield the text that follows ``prompt`` in pieces, as it is made."""
    completion = Completion(
        tokenizer,
        prompt,
        sampler,
        max_new_tokens=max_new_tokens,
        vocab_size=model.config.vocab_size,
        stop=stop,
    )
    for _ in rollout(model, [completion.row]):
        yield completion.advance()


def _mask(tokens: Iterable[int], vocab_size: int) -> torch.Tensor:
    mask_V = torch.zeros(vocab_size, dtype=torch.bool)
    mask_V[[token for token in tokens if token < vocab_size]] = True
    return mask_V


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of ``text`` may be the beginning of ``stop``."""
    lengths = range(min(len(text), len(stop) - 1), 0, -1)
    return next((length for length in lengths if text.endswith(stop[:length])), 0)

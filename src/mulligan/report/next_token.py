"""What a model says may follow a text: the logits of every token, ordered, as a page can hold them.

Shapes: V vocabulary.
"""

import base64
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mulligan.data.shards import Shards
from mulligan.data.tokens import Tokenizer
from mulligan.model.transformer import Transformer

SHOWN = {" ": "␣", "\n": "↵", "\t": "⇥"}


class Context(NamedTuple):
    """Tokens, and where they are from; ``next_id`` is the one that follows them there, None where nothing does."""

    origin: str
    ids: list[int]
    next_id: int | None = None


class NextToken(NamedTuple):
    """``logits_V`` from the likeliest token down, float32: no temperature changes that order. ``labels`` are those of
    the first tokens; ``next_rank`` and ``next_label`` are of the token that did follow.
    """

    origin: str
    text: str
    logits_V: NDArray[np.float32]
    labels: list[str]
    next_rank: int | None
    next_label: str | None

    def as_json(self) -> dict[str, object]:
        """The logits as base64 of little-endian float32, to the last bit."""
        packed = base64.b64encode(self.logits_V.astype("<f4").tobytes()).decode()
        return self._asdict() | {"logits_V": packed}


def prompt_context(tokenizer: Tokenizer, prompt: str) -> Context:
    """A blank at the end of a prompt is left out: in running text it is the beginning of the next token."""
    ids = tokenizer.encode(prompt.rstrip(" ")).tolist()
    return Context("prompt", [tokenizer.begin_id, *ids])


def held_out_beginnings(shards: Shards, *, num_tokens: int, count: int) -> list[Context]:
    """The first tokens of so many files of held-out text, each of which begins with a document."""
    long_enough = [
        (entry["file"], tokens)
        for entry, tokens in zip(shards.entries, shards.tokens, strict=True)
        if len(tokens) > num_tokens
    ]
    return [
        Context(f"held out, {file}", tokens[:num_tokens].tolist(), int(tokens[num_tokens]))
        for file, tokens in long_enough[:count]
    ]


@torch.no_grad()
def next_tokens(
    model: Transformer, tokenizer: Tokenizer, contexts: Sequence[Context], *, top: int = 20
) -> list[NextToken]:
    """Raises ValueError where a logit is not finite."""
    model.eval()
    device, found = next(model.parameters()).device, []
    for context in contexts:
        ids = context.ids[-model.config.max_length :]
        logits_V = model(torch.tensor([ids], device=device))[0, -1].float().cpu()
        if not logits_V.isfinite().all():
            raise ValueError("the model gives logits that are not finite: its training has diverged")
        ordered_V, order_V = logits_V.sort(descending=True, stable=True)
        is_next = context.next_id is not None
        found.append(
            NextToken(
                origin=context.origin,
                text=tokenizer.decode(ids),
                logits_V=ordered_V.numpy(),
                labels=[token_label(tokenizer, number) for number in order_V[:top].tolist()],
                next_rank=int((order_V == context.next_id).nonzero()) if is_next else None,
                next_label=token_label(tokenizer, context.next_id) if context.next_id is not None else None,
            )
        )
    return found


def token_label(tokenizer: Tokenizer, number: int) -> str:
    """A token so that all of it is seen: blanks and line ends as signs, what is no character as hexadecimal bytes."""
    if number in (tokenizer.begin_id, tokenizer.end_id):
        return "<begin>" if number == tokenizer.begin_id else "<end>"
    if number >= tokenizer.vocab_size:
        return f"<unused {number}>"
    spelled = tokenizer.decode_bytes([number])
    try:
        text = spelled.decode()
    except UnicodeDecodeError:
        return "".join(f"<0x{byte:02X}>" for byte in spelled)
    return "".join(
        SHOWN.get(char) or (char if char.isprintable() else char.encode("unicode_escape").decode()) for char in text
    ) or f"<{number}>"  # fmt: skip

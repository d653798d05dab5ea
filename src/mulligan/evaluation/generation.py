"""Sampling from a model, one token at a time, with a key-value cache.

Shapes: V vocabulary.
"""

import codecs
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from mulligan.data.tokens import Tokenizer
from mulligan.model.transformer import Transformer


class Sampler:
    """Temperature, then top-k, then top-p (Holtzman et al. 2020); temperature 0 takes the likeliest token."""

    def __init__(
        self, *, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None, seed: int = 0
    ) -> None:
        if not 0.0 <= temperature < math.inf:
            raise ValueError(f"temperature={temperature} must not be negative; 0 takes the likeliest token")
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k={top_k} must be at least 1, or null for all tokens")
        if top_p is not None and not 0.0 < top_p <= 1.0:
            raise ValueError(f"top_p={top_p} must be in (0, 1], or null for all tokens")
        self.temperature, self.top_k, self.top_p, self.seed = temperature, top_k, top_p, seed

    def probabilities(self, logits_V: Tensor) -> Tensor:
        """The distribution a token is drawn from, (V,), in float32."""
        logits_V = logits_V.float()
        if self.temperature == 0.0:
            return torch.nn.functional.one_hot(logits_V.argmax(), len(logits_V)).float()
        logits_V = (logits_V - logits_V.max()) / self.temperature  # the largest is 0 at any temperature
        if self.top_k is not None and self.top_k < len(logits_V):
            smallest_kept = logits_V.topk(self.top_k).values[-1]
            logits_V = logits_V.masked_fill(logits_V < smallest_kept, float("-inf"))
        probabilities_V = logits_V.softmax(0)
        if self.top_p is not None:
            ordered_V, order_V = probabilities_V.sort(descending=True)
            outside_V = ordered_V.cumsum(0) - ordered_V >= self.top_p  # the first token always stays
            probabilities_V = probabilities_V.index_fill(0, order_V[outside_V], 0.0)
        return probabilities_V / probabilities_V.sum()


@torch.no_grad()
def generate(
    model: Transformer,
    prompt: list[int],
    sampler: Sampler,
    *,
    max_new_tokens: int,
    end_id: int,
    num_tokens: int | None = None,
    first: list[int] | None = None,
) -> Iterator[int]:
    """Yield new tokens until ``end_id`` or ``max_new_tokens``. Past ``max_length`` the oldest half of the context is
    dropped and the rest read again. Of a vocabulary larger than the tokenizer's only the first ``num_tokens`` count.
    ``first`` names the tokens that may come first; all by default.
    """
    if not prompt:
        raise ValueError("the prompt must hold at least one token")
    device, limit = next(model.parameters()).device, model.config.max_length
    generator = torch.Generator().manual_seed(sampler.seed)
    model.eval()
    context = prompt[-limit:]
    unread, caches = context, _empty_caches(model)
    for number in range(max_new_tokens):
        logits_V = model(torch.tensor([unread], device=device), caches=caches)[0, -1, :num_tokens].cpu()
        if not logits_V.isfinite().all():
            raise ValueError("the model gives logits that are not finite: its training has diverged")
        if number == 0 and first is not None:
            logits_V = torch.full_like(logits_V, -math.inf).index_copy(0, torch.tensor(first), logits_V[first])
        token = int(torch.multinomial(sampler.probabilities(logits_V), 1, generator=generator))
        if token == end_id:
            return
        yield token
        context, unread = [*context, token], [token]
        if len(context) > limit:
            context = context[-(limit // 2 + 1) :]
            unread, caches = context, _empty_caches(model)


def generate_text(
    model: Transformer, tokenizer: Tokenizer, prompt: str, sampler: Sampler, *, max_new_tokens: int
) -> Iterator[str]:
    """Yield the text that follows ``prompt`` at the start of a document, in whole characters.

    The last token of the prompt is drawn again among those that begin with it: "def " ends in a blank that in running
    text is the beginning of the next word's token, and never stands before a letter by itself.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    ids = [tokenizer.begin_id, *tokenizer.encode(prompt).tolist()]
    begun, first = b"", None
    if prompt:
        begun = tokenizer.decode_bytes([ids.pop()])
        first = tokenizer.beginning_with(begun)
    for token in generate(
        model,
        ids,
        sampler,
        max_new_tokens=max_new_tokens,
        end_id=tokenizer.end_id,
        num_tokens=tokenizer.vocab_size,
        first=first,
    ):
        yield decoder.decode(tokenizer.decode_bytes([token])[len(begun) :])
        begun = b""
    yield decoder.decode(b"", final=True)


def _empty_caches(model: Transformer) -> list[list[Tensor]]:
    return [[] for _ in model.blocks]

"""Exposure bias: what becomes of a model that reads its own words, where it has learned from those of people.

Trained on human contexts, a model may drift in its own (Bengio et al. 2015; Ranzato et al. 2016). What that costs
cannot be read off without an oracle of human text (Arora et al. 2022 take a larger model for one), but a perfect model
would find its own text as hard to foresee as people's, on average at every position. So from prefixes of held-out
documents the model goes on by itself, at temperature 1 and without filters, and its loss on what it wrote (an estimate
of its entropy there: Braverman et al. 2020) is compared with its loss on what people wrote.

- ``human_loss``, ``own_loss``: nats a token of the human and the own continuation, each given itself.
- ``gap``: own minus human. Below zero the model's text is tamer than people's, above it is wilder.
- ``drift``: the gap in the last quarter of the positions minus that in the first, where contexts are mostly human
  still. This part comes from its own contexts; the rest is there from the first token on.
- ``excess_after_own``: how much worse it foresees the human text that follows behind its own continuation than behind
  the human one. No model has 0, since what people wrote next follows from what they wrote; ``excess_after_unrelated``
  is the same behind human text of another place, which is what it costs to know nothing of what was said. He et al.
  (2021) compare such contexts to tell distortion from self-recovery.

Marks of begin and end have no share of the probability on either side, so that every stretch is as long as the others.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from mulligan.data.shards import Shards
from mulligan.evaluation.likelihood import Pair, likelihoods
from mulligan.evaluation.rollout import Row, rollout
from mulligan.evaluation.sampler import Sampler
from mulligan.evaluation.suites import Score, Subject, mean_score


class ExposureBiasSuite:
    """Stretches of ``prefix_tokens``, ``rollout_tokens`` and ``continuation_tokens``, drawn from the held-out documents
    by ``seed``, as are the model's own tokens.
    """

    def __init__(
        self,
        *,
        num_prefixes: int,
        prefix_tokens: int,
        rollout_tokens: int,
        continuation_tokens: int,
        seed: int,
    ) -> None:
        sizes = {"prefix_tokens": prefix_tokens, "continuation_tokens": continuation_tokens}
        for name, number in sizes.items():
            if number < 1:
                raise ValueError(f"{name}={number} must be at least 1")
        if num_prefixes < 2:
            raise ValueError(f"num_prefixes={num_prefixes} must be at least 2")
        if rollout_tokens < 4:
            raise ValueError(f"rollout_tokens={rollout_tokens} must be at least 4: its quarters are compared")
        if seed < 0:
            raise ValueError(f"seed={seed} must not be negative")
        self.num_prefixes, self.seed = num_prefixes, seed
        self.prefix_tokens, self.rollout_tokens = prefix_tokens, rollout_tokens
        self.continuation_tokens = continuation_tokens

    def __call__(self, subject: Subject) -> dict[str, Score]:
        own_start, next_start = self.prefix_tokens, self.prefix_tokens + self.rollout_tokens
        length = next_start + self.continuation_tokens
        if length > subject.sequence_length:
            raise ValueError(
                f"prefix_tokens={self.prefix_tokens}, rollout_tokens={self.rollout_tokens} and "
                f"continuation_tokens={self.continuation_tokens} are together more than the {subject.sequence_length} "
                "tokens that the model reads: make them shorter"
            )
        found = stretches(
            subject.held_out(None),
            length=length,
            count=self.num_prefixes,
            begin_id=subject.tokenizer.begin_id,
            seed=self.seed,
        ).tolist()
        prefixes, humans = [one[:own_start] for one in found], [one[own_start:next_start] for one in found]
        nexts, others = [one[next_start:] for one in found], [*humans[1:], humans[0]]
        owns = self._own_continuations(subject, prefixes)
        human, own, unrelated = (self._losses(subject, prefixes, between, nexts) for between in (humans, owns, others))
        first, last = (
            slice(self.rollout_tokens),
            slice(self.rollout_tokens, None),
        )  # behind the prefix, and what is next
        gaps_NT, quarter = (own - human)[:, first], self.rollout_tokens // 4
        per_prefix = {
            "human_loss": human[:, first].mean(1),
            "own_loss": own[:, first].mean(1),
            "gap": gaps_NT.mean(1),
            "drift": gaps_NT[:, -quarter:].mean(1) - gaps_NT[:, :quarter].mean(1),
            "excess_after_own": (own - human)[:, last].mean(1),
            "excess_after_unrelated": (unrelated - human)[:, last].mean(1),
        }
        return {name: mean_score(values_N.tolist()) for name, values_N in per_prefix.items()}

    def _own_continuations(self, subject: Subject, prefixes: list[list[int]]) -> list[list[int]]:
        allowed_V = torch.ones(subject.model.config.vocab_size, dtype=torch.bool)
        allowed_V[_banned(subject)] = False
        rows = [
            Row(
                prefix,
                Sampler(seed=hash((self.seed, number)) % 2**63),
                max_new_tokens=self.rollout_tokens,
                allowed_V=allowed_V,
            )
            for number, prefix in enumerate(prefixes)
        ]
        for first in range(0, len(rows), subject.batch_size):
            batch = rows[first : first + subject.batch_size]
            for _ in rollout(subject.model, batch, autocast_dtype=subject.autocast_dtype):
                pass
        return [row.new for row in rows]

    def _losses(
        self, subject: Subject, prefixes: list[list[int]], between: list[list[int]], nexts: list[list[int]]
    ) -> NDArray[np.float64]:
        """Nats of each token behind the prefix, a row a prefix."""
        pairs = [
            Pair(prefix, [*middle, *after]) for prefix, middle, after in zip(prefixes, between, nexts, strict=True)
        ]
        found = likelihoods(
            subject.model,
            pairs,
            batch_size=subject.batch_size,
            banned=_banned(subject),
            autocast_dtype=subject.autocast_dtype,
        )
        return np.array([one.losses for one in found])


def stretches(shards: Shards, *, length: int, count: int, begin_id: int, seed: int) -> NDArray[np.int64]:
    """``count`` stretches of ``length`` tokens, each within a document and none overlapping, drawn by ``seed``."""
    places = []
    for number, tokens in enumerate(shards.tokens):
        begins = np.flatnonzero(tokens == begin_id).tolist()
        for begin, stop in zip(begins, [*begins[1:], len(tokens)], strict=True):
            places += [(number, start) for start in range(begin, stop - length, length)]  # the end mark is left out
    if len(places) < count:
        raise ValueError(
            f"num_prefixes={count}: {shards.folder} holds {len(places)} stretches of {length} tokens out of its "
            "held-out documents; ask for fewer or shorter ones"
        )
    chosen = np.random.default_rng(seed).permutation(len(places))[:count]
    found = (places[number] for number in chosen)
    return np.stack([shards.tokens[number][start : start + length].astype(np.int64) for number, start in found])


def _banned(subject: Subject) -> list[int]:
    tokenizer = subject.tokenizer
    unused = range(tokenizer.vocab_size, subject.model.config.vocab_size)
    return [tokenizer.begin_id, tokenizer.end_id, *unused]

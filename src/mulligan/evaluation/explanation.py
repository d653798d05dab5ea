"""Why a token was drawn: the candidates it stood among, before and after the sampler's filters.

Shapes: V vocabulary.
"""

import math
from typing import NamedTuple

from mulligan.evaluation.rollout import Row


class Candidate(NamedTuple):
    """``probability`` is the model's own, ``filtered`` what the sampler made of it; rank 1 is the likeliest."""

    token: int
    probability: float
    filtered: float
    rank: int

    @property
    def log_probability(self) -> float:
        """In nats."""
        return math.log(self.probability) if self.probability > 0.0 else -math.inf


class Explanation(NamedTuple):
    """Of one draw. ``candidates`` are the likeliest, and behind them the drawn one where it is not among these."""

    drawn: int
    candidates: list[Candidate]
    entropy_nats: float  # of the model's distribution
    num_left: int  # tokens that the filters leave

    @property
    def entropy_bits(self) -> float:
        return self.entropy_nats / math.log(2.0)

    @property
    def effective_choices(self) -> float:
        """Of so many equally likely tokens a draw would be as uncertain."""
        return math.exp(self.entropy_nats)


def explain(row: Row, *, top: int = 10) -> Explanation:
    """The newest draw of ``row``: a token, or the end mark."""
    drawn = row.end_id if row.has_ended else row.new[-1]
    assert drawn is not None
    probabilities_V = row.logits_V.double().softmax(0)
    filtered_V = row.sampler.probabilities(row.logits_V)
    shown = row.logits_V.topk(min(top, len(row.logits_V))).indices.tolist()
    shown = [token for token in shown if probabilities_V[token] > 0.0]  # the rest may not be drawn
    candidates = [
        Candidate(
            token,
            float(probabilities_V[token]),
            float(filtered_V[token]),
            1 + int((row.logits_V > row.logits_V[token]).sum()),
        )
        for token in (shown if drawn in shown else [*shown, drawn])
    ]
    nats_V = -probabilities_V * probabilities_V.log()
    return Explanation(drawn, candidates, float(nats_V.nan_to_num(0.0).sum()), int((filtered_V > 0.0).sum()))

"""From the logits of a token to the distribution it is drawn from.

Shapes: V vocabulary.
"""

import math

import torch
from torch import Tensor

COLDEST = torch.finfo(torch.float32).smallest_normal  # below it a temperature may be 0 in float32


class Sampler:
    """Temperature, then top-k, top-p (Holtzman et al. 2020) and min-p (Nguyen et al. 2024); temperature 0 takes the
    likeliest token.
    """

    def __init__(
        self,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        seed: int = 0,
    ) -> None:
        """``min_p`` keeps the tokens at least so likely as this share of the likeliest."""
        if not 0.0 <= temperature < math.inf:
            raise ValueError(
                f"temperature={temperature} must be a number that is not negative; 0 takes the likeliest token"
            )
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k={top_k} must be at least 1, or null for all tokens")
        for name, share in (("top_p", top_p), ("min_p", min_p)):
            if share is not None and not 0.0 < share <= 1.0:
                raise ValueError(f"{name}={share} must be in (0, 1], or null for all tokens")
        if not -(2**63) <= seed < 2**63:
            raise ValueError(f"seed={seed} must fit into 64 bits")
        self.temperature, self.top_k, self.top_p, self.min_p, self.seed = temperature, top_k, top_p, min_p, seed

    def probabilities(self, logits_V: Tensor) -> Tensor:
        """The distribution a token is drawn from, (V,), in float32."""
        logits_V = logits_V.float()
        if self.temperature < COLDEST:
            return torch.nn.functional.one_hot(logits_V.argmax(), len(logits_V)).float()
        logits_V = (logits_V - logits_V.max()) / self.temperature  # the largest is 0 at any temperature
        if self.top_k is not None and self.top_k < len(logits_V):
            smallest_kept = logits_V.topk(self.top_k).values[-1]
            logits_V = logits_V.masked_fill(logits_V < smallest_kept, float("-inf"))
        probabilities_V = logits_V.softmax(0)
        if self.top_p is not None and self.top_p < 1.0:  # in float32 the sum may be 1 before all are in it
            ordered_V, order_V = probabilities_V.sort(descending=True)
            outside_V = ordered_V.cumsum(0) - ordered_V >= self.top_p  # the first token always stays
            probabilities_V = probabilities_V.index_fill(0, order_V[outside_V], 0.0)
        if self.min_p is not None:
            probabilities_V = probabilities_V.where(probabilities_V >= self.min_p * probabilities_V.max(), 0.0)
        return probabilities_V / probabilities_V.sum()

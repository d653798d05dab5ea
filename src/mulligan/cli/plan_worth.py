"""What a budget of compute is worth by the scaling laws, as numbers of a plan."""

from typing import Any

from mulligan.planning.pace import Pace
from mulligan.planning.scaling_laws import (
    BESIROGLU,
    HOFFMANN,
    KAPLAN_SOURCE,
    Budget,
    is_extrapolated,
    kaplan_loss,
    smaller_models,
)


def budget_numbers(budget: Budget, pace: Pace | None) -> dict[str, Any]:
    told: dict[str, Any] = {
        "budget": {**budget._asdict(), "tokens_per_parameter": budget.tokens / budget.params, "flops": budget.flops},
        **worth_of(budget, budget.flops, without_embeddings=budget.params),
    }
    return told if pace is None else told | {"time": pace.numbers(budget.flops)}


def worth_of(budget: Budget, flops: float, *, without_embeddings: float) -> dict[str, Any]:
    """The optimum for ``flops``, and what the laws expect of ``budget``."""
    loss = BESIROGLU.loss(budget)
    optima = {law.source: law.best_for_flops(flops) for law in (BESIROGLU, HOFFMANN)}
    least = BESIROGLU.best_for_loss(loss)
    return {
        "optima": {
            source: {**best._asdict(), "tokens_per_parameter": best.tokens / best.params, "loss": BESIROGLU.loss(best)}
            for source, best in optima.items()
        },
        "losses": {
            BESIROGLU.source: loss,
            HOFFMANN.source: HOFFMANN.loss(budget),
            KAPLAN_SOURCE: kaplan_loss(Budget(without_embeddings, budget.tokens)),
        },
        "extrapolated": is_extrapolated(budget),
        "same_loss": {
            "loss": loss,
            "best": {**least._asdict(), "flops": least.flops},
            "own_training_ratio": flops / least.flops,
            "smaller": [
                {**one.budget._asdict(), **{key: value for key, value in one._asdict().items() if key != "budget"}}
                for one in smaller_models(loss)
            ],
        },
    }

"""A line in a picture, of however many points: of very many those that stand out are drawn, a single one as a dot."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from mulligan.data.sequencer import Indices

Numbers = Sequence[float] | NDArray[Any]
PARTS = 1000  # of a curve: no part is much wider than a pixel
DOT: dict[str, Any] = {"marker": "o", "markersize": 3}


def draw_line(axes: Axes, xs: Numbers, ys: Numbers, **style: Any) -> None:
    shown = standing_out(ys)
    draw_points(axes, np.asarray(xs)[shown], np.asarray(ys)[shown], **style)


def draw_points(axes: Axes, xs: Numbers, ys: Numbers, **style: Any) -> None:
    """All of them, joined; what is not finite is a gap."""
    is_finite = np.isfinite(ys)
    dot = DOT if is_finite.sum() == 1 else {}
    axes.plot(xs, np.where(is_finite, ys, np.nan), **dot | style)


def standing_out(values: Numbers) -> Indices:
    """Positions: of many values the ends, and of each part the least, the most and the first that is not finite."""
    if len(values) <= 2 * PARTS:
        return np.arange(len(values))
    is_finite = np.isfinite(values)
    lows, highs = np.where(is_finite, values, np.inf), np.where(is_finite, values, -np.inf)
    found = {0, len(values) - 1}
    for start, stop in pairwise(np.linspace(0, len(values), PARTS + 1, dtype=np.int64)):
        part = slice(start, stop)
        gap = () if is_finite[part].all() else (is_finite[part].argmin(),)
        found |= {start + int(place) for place in (lows[part].argmin(), highs[part].argmax(), *gap)}
    return np.array(sorted(found))

"""A curve as columns of blocks, for any terminal or file."""

import math
from collections.abc import Sequence

BLOCKS = " ▁▂▃▄▅▆▇█"
STEPS_OF_A_BLOCK = len(BLOCKS) - 1
NO_NUMBER = "!"


def bars(values: Sequence[float | None], *, rows: int) -> list[str]:
    """A column for each value, from the least to the greatest finite one; the axis names these two. What is no finite
    number is a ! at the top.
    """
    finite = [value for value in values if value is not None and math.isfinite(value)]
    low, high = min(finite, default=math.nan), max(finite, default=math.nan)
    tallest = rows * STEPS_OF_A_BLOCK
    columns = []
    for value in values:
        if value is None or not math.isfinite(value):
            columns.append(" " * (rows - 1) + NO_NUMBER)
            continue
        height = tallest if high == low else 1 + round((value - low) / (high - low) * (tallest - 1))
        full, rest = divmod(height, STEPS_OF_A_BLOCK)
        columns.append((BLOCKS[-1] * full + BLOCKS[rest]).ljust(rows)[:rows])
    labels = [f"{low:>9.4g} ┤", *[" " * 10 + "│"] * (rows - 2), f"{high:>9.4g} ┤"]
    lines = [label + "".join(column[row] for column in columns) for row, label in enumerate(labels)]
    return lines[::-1]


def axis(steps: Sequence[int], marks: dict[int, str]) -> str:
    """The line below the bars of ``steps``, with a letter at each step that ``marks`` names."""
    return " " * 10 + "└" + "".join(marks.get(step, "─") for step in steps)

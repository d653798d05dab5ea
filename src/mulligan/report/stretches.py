"""Which of a run's attempts were kept, and which a rewind gave up."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple


class Stretch(NamedTuple):
    """Attempts in (after, last], all kept or all given up."""

    after: int
    last: int
    is_kept: bool


def stretches(entries: Sequence[dict[str, Any]], last: int) -> Iterator[Stretch]:
    """Attempts 1 to ``last`` in order, as kept and as given up."""
    given_up = [False] * (last + 1)
    lineage: list[int] = []  # the attempt of each step
    done = 0
    for entry in entries:
        if "target" in entry:
            lineage.extend(range(done + 1, entry["attempt"] + 1))
            done = entry["attempt"]
            for attempt in lineage[entry["target"] :]:
                if attempt <= last:
                    given_up[attempt] = True
            del lineage[entry["target"] :]
    start = 0
    for attempt in range(1, last + 1):
        if attempt == last or given_up[attempt + 1] != given_up[attempt]:
            yield Stretch(start, attempt, is_kept=not given_up[attempt])
            start = attempt

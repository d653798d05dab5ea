"""A sample of text for the tokenizer: some of every source and of many of their parts, however large one of them."""

from collections import deque
from collections.abc import Iterator, Sequence

TURNS = 16  # in which one part alone could fill the sample


def taken_in_turns(sources: Sequence[Sequence[Iterator[str]]], num_bytes: int) -> Iterator[str]:
    """Texts of ``num_bytes`` in all, or all there are: sources take turns, and in each of them its parts, in order."""
    turn = num_bytes / TURNS
    waiting = deque(deque(parts) for parts in sources)
    while waiting and num_bytes > 0:
        parts = waiting.popleft()
        texts, taken = parts.popleft(), 0
        for text in texts:
            yield text
            taken += len(text.encode())
            if taken >= min(num_bytes, turn):
                parts.append(texts)
                break
        num_bytes -= taken
        if parts:
            waiting.append(parts)

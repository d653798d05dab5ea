"""W&B's own file of a run on this disk, which `wandb sync` reads: protocol buffers in LevelDB's log format."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

BLOCK, HEADER = 32768, 7  # of the format; W&B's own header takes the first seven bytes, too
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records(file: Path) -> Iterator[Record]:
    content, place, parts = file.read_bytes(), HEADER, b""
    while place + HEADER <= len(content):
        if BLOCK - place % BLOCK < HEADER:
            place += BLOCK - place % BLOCK
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        if place + HEADER + length > len(content):
            return  # it is being written
        parts += content[place + HEADER : place + HEADER + length]
        place += HEADER + length
        if kind in (FULL, LAST):
            yield Record.FromString(parts)
            parts = b""
        else:
            assert kind in (FIRST, MIDDLE)


def finished(file: Path, *, within_seconds: float = 30.0) -> list[Record]:
    """All records, when the end of the run is among them: W&B's own process writes a little later."""
    until, found = time.monotonic() + within_seconds, list(records(file))
    while not any(record.HasField("exit") for record in found):
        assert time.monotonic() < until, f"{file} has no end"
        time.sleep(0.1)
        found = list(records(file))
    return found


def history(found: list[Record]) -> list[dict[str, Any]]:
    """Each line that was logged, by key."""
    return [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in found
        if record.HasField("history")
    ]


def updates(found: list[Record], kind: str) -> dict[str, Any]:
    """All that was set of the ``kind`` config or summary."""
    return {
        item.key or "/".join(item.nested_key): json.loads(item.value_json)
        for record in found
        if record.HasField(kind)
        for item in getattr(record, kind).update
    }

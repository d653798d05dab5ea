"""What was done to a run, and why: an append-only file of JSON lines, each of which holds the hash of the one before.

The ledger decides with the config and the data what a run is: the samples it leaves out, the rates it cut and the
checkpoints it has abandoned follow from these lines alone. A line is on disk before the run acts on it.
"""

import hashlib
import json
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any

from mulligan.files import append_line, finite
from mulligan.stability.policy import Done

FIRST = "0" * 64


class Ledger:
    """The lines of ``path``, read and checked. Every process of a run holds them, rank 0 alone writes them."""

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        self.path, self.writes = path, writes
        self.lines: list[str] = _whole_lines(path)
        self.entries = _entries(self.lines, str(path))
        self._follow_all()

    def _follow_all(self) -> None:
        """Look at each line once: a run asks several times a step, and may have thousands of them."""
        self.rewinds: list[dict[str, Any]] = []
        self.withheld_steps: set[int] = set()  # of the present lineage, whose update was left out
        self.lost_steps = 0  # tried and not kept
        self._lost_through: list[tuple[int, int]] = []  # each target, and the steps lost when the run was back there
        for entry in self.entries:
            self._follow(entry)

    def _follow(self, entry: dict[str, Any]) -> None:
        if entry["kind"] == "withheld":
            self.withheld_steps.add(entry["judged_step"])
            return
        if entry["kind"] == "rewind":
            self.rewinds.append(entry)
        self.withheld_steps = {step for step in self.withheld_steps if step <= entry["target"]}
        self.lost_steps += entry["step"] - entry["target"]
        self._lost_through.append((entry["target"], self.lost_steps))

    def lost_before(self, step: int) -> int:
        """Steps that were tried and not kept when ``step`` of the present lineage was made: its ``attempt - step``."""
        return next((lost for target, lost in reversed(self._lost_through) if target < step), 0)

    @property
    def skips(self) -> list[tuple[int, int]]:
        """Half-open ranges of sample indices that the run never trains on again; another epoch has other indices."""
        return [(entry["skip"][0], entry["skip"][1]) for entry in self.rewinds]

    @property
    def history(self) -> list[Done]:
        return [
            Done(
                onset=entry["onset"],
                trigger=entry["step"],
                target=entry["target"],
                skip_steps=entry["skip_steps"],
                level=entry["level"],
                rate_until=entry["target"] + entry["rate_steps"] if entry["rate_steps"] else 0,
            )
            for entry in self.rewinds
        ]

    def before(self, number: int) -> "Ledger":
        """The ledger as it was when line ``number`` came to it. It writes nothing."""
        earlier = copy(self)
        earlier.writes, earlier.lines, earlier.entries = False, self.lines[:number], self.entries[:number]
        earlier._follow_all()
        return earlier

    def rate_factor(self, step: int) -> float:
        """What cuts of the learning rate leave of it at ``step``."""
        factor = 1.0
        for entry in self.rewinds:
            if entry["target"] <= step < entry["target"] + entry["rate_steps"]:
                factor *= entry["rate_factor"]
        return factor

    def abandons(self, step: int, num_lines: int) -> bool:
        """Whether a state of ``step``, taken when the ledger had ``num_lines``, lies on a lineage given up since."""
        return any("target" in entry and entry["target"] < step for entry in self.entries[num_lines:])

    def append(self, kind: str, **content: Any) -> dict[str, Any]:
        """Add a line; on disk when this returns."""
        previous = hashlib.sha256(self.lines[-1].encode()).hexdigest() if self.lines else FIRST
        entry = {"number": len(self.lines), "previous": previous, "kind": kind} | content
        line = json.dumps(finite(entry), sort_keys=True)
        if self.writes:
            append_line(self.path, line)
        self.lines.append(line)
        self.entries.append(json.loads(line))
        self._follow(self.entries[-1])
        return self.entries[-1]

    def check_copy(self, copy: Sequence[str], origin: str) -> None:
        """Raise ValueError unless ``copy``, which ``origin`` holds, is how this ledger begins."""
        for number, line in enumerate(copy):
            if number >= len(self.lines):
                state = "is missing" if not self.lines else f"has lost its line {number + 1}"
            elif self.lines[number] != line:
                state = f"has another line {number + 1}"
            else:
                continue
            raise ValueError(
                f"{self.path} {state}, which {origin} has a copy of: "
                f"bring the ledger back, or begin a run of another name"
            )


def _whole_lines(path: Path) -> list[str]:
    """Lines that were written to their end; a last one that was not is cut off, since nothing followed from it."""
    if not path.is_file():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    return whole.decode("utf-8", errors="replace").splitlines()


def _entries(lines: Sequence[str], origin: str) -> list[dict[str, Any]]:
    previous, entries = FIRST, []
    for number, line in enumerate(lines):
        try:
            entry = json.loads(line)
            sound = entry["previous"] == previous and entry["number"] == number
        except (ValueError, KeyError, TypeError):
            sound = False
        if not sound:
            raise ValueError(
                f"{origin}, line {number + 1}: it does not follow from the line before; the ledger was changed. "
                f"Bring it back, or begin a run of another name"
            )
        previous = hashlib.sha256(line.encode()).hexdigest()
        entries.append(entry)
    return entries

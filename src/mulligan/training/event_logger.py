"""What loggers beyond Lightning's own can be told of a run: more than numbers."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger


class EventLogger(Logger):
    """Rank 0 calls these; each returns at once. Metrics come with ``attempt``, which only grows, and ``step``."""

    @abstractmethod
    def note_data(self, folder: Path, fingerprint: str) -> None:
        """The prepared data that the run begins or goes on with."""

    @abstractmethod
    def note_intervention(self, text: str, entries: Sequence[dict[str, Any]]) -> None:
        """``text`` tells of what was just done; ``entries`` are all those of the ledger."""

    @abstractmethod
    def note_warning(self, text: str) -> None:
        """``text`` tells of what somebody should see, though nothing was done."""

    @abstractmethod
    def note_checkpoint(self, path: Path, description: dict[str, Any]) -> None:
        """A checkpoint is whole on disk."""

    @abstractmethod
    def note_summary(self, summary: dict[str, Any]) -> None:
        """The closing numbers."""

    @abstractmethod
    def close(self, exit_code: int) -> None:
        """The run has ended, as the process will; what does not end in reasonable time is left behind."""


def event_loggers(loggers: Sequence[Logger]) -> list[EventLogger]:
    return [logger for logger in loggers if isinstance(logger, EventLogger)]


@contextmanager
def closed_at_the_end(loggers: Sequence[Logger]) -> Iterator[None]:
    """Close the loggers that are to know how the run ended, whichever way it does."""
    exit_code = 1
    try:
        yield
        exit_code = 0
    except SystemExit as asked:  # to go on later
        exit_code = asked.code if isinstance(asked.code, int) else exit_code
        raise
    finally:
        for logger in event_loggers(loggers):
            logger.close(exit_code)

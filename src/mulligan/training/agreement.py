"""What every rank decides by itself, or sees on disk, must be the same on all, or their collectives do not fit."""

from typing import Any

from mulligan.distributed import gathered


def check_agreement(own: dict[str, Any]) -> None:
    """Raise ValueError, on every rank, where what one has of any key is not what rank 0 has; every rank must ask."""
    everyone = gathered(own)
    for rank, theirs in enumerate(everyone):
        for key, first in everyone[0].items():
            if theirs[key] != first:
                raise ValueError(
                    f"{key} is {theirs[key]} on rank {rank} and {first} on rank 0: give all the same command, set what "
                    "is auto, and have the folders of runs and of prepared data on storage that all hosts share"
                )

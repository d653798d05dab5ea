"""What every rank decides by itself, or sees on disk, must be the same on all, or their collectives do not fit."""

from typing import Any

from mulligan.distributed import gathered


def check_agreement(own: dict[str, Any]) -> None:
    """Raise ValueError, on every rank, where what one has of any key is not what rank 0 has; every rank must ask."""
    everyone = gathered(own)
    first = everyone[0]
    for rank, theirs in enumerate(everyone):
        for key in first | theirs:
            here, there = first.get(key, "not set"), theirs.get(key, "not set")
            if here != there and str(here) != str(there):  # NaN is not equal to itself
                raise ValueError(
                    f"{key} is {there} on rank {rank} and {here} on rank 0: give all the same command, set what is "
                    "auto, and have the folders of runs and of prepared data on storage that all hosts share"
                )

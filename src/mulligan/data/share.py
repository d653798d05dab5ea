"""The share of the work that one of several machines does."""

from mulligan.data.tokenize import PartJob


class Share:
    """What a call prepares of the data's parts: share ``part`` of ``parts``, counted from 0, or with neither the whole.

    Shares take turns, so that each has some of every source, and differ by one part at most.
    """

    def __init__(self, *, part: int | None = None, parts: int | None = None) -> None:
        if part is not None and parts is None:
            raise ValueError(f"prepare.part={part} needs prepare.parts, the number of calls that share the work")
        if parts is not None and part is None:
            raise ValueError(
                f"prepare.parts={parts} needs prepare.part, counted from 0; leave out both to finish and join all parts"
            )
        if part is not None and parts is not None:
            if parts < 1:
                raise ValueError(f"prepare.parts={parts} must be at least 1")
            if not 0 <= part < parts:
                raise ValueError(
                    f"prepare.part={part} must be in [0, {parts - 1}]: the prepare.parts={parts} are counted from 0"
                )
        self.part, self.parts = part, parts

    @property
    def is_whole(self) -> bool:
        return self.part is None

    def of(self, jobs: list[PartJob]) -> list[PartJob]:
        return jobs[self.part :: self.parts]

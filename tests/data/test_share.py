"""Shares are the whole when taken together, and each is as large as the others."""

from pathlib import Path
from typing import Any

import pytest

from mulligan.data.share import Share
from mulligan.data.tokenize import PartJob


def jobs(count: int) -> list[PartJob]:
    source: Any = None
    return [PartJob(source, "web", (), number, b"", 0.5, 1, Path(f"{number}.npz")) for number in range(count)]


@pytest.mark.parametrize(("count", "parts"), [(12, 1), (12, 5), (2, 64), (0, 3)])
def test_every_part_is_in_one_share_of_even_size(count: int, parts: int) -> None:
    shares = [Share(part=part, parts=parts).of(jobs(count)) for part in range(parts)]
    assert sorted(job.part_number for share in shares for job in share) == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_without_numbers_it_is_the_whole() -> None:
    assert Share().is_whole
    assert not Share(part=0, parts=1).is_whole
    assert Share().of(jobs(3)) == jobs(3)


@pytest.mark.parametrize(
    ("part", "parts", "message"),
    [
        (3, None, r"prepare\.part=3 needs prepare\.parts"),
        (None, 64, r"prepare\.parts=64 needs prepare\.part, counted from 0"),
        (0, 0, r"prepare\.parts=0 must be at least 1"),
        (64, 64, r"prepare\.part=64 must be in \[0, 63\]: the prepare\.parts=64 are counted from 0"),
        (-1, 64, r"prepare\.part=-1 must be in \[0, 63\]"),
    ],
)
def test_a_share_that_is_none_is_refused(part: int | None, parts: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Share(part=part, parts=parts)

"""What ranks must have alike is compared key by key; tests/training/test_ranks.py has it of two processes."""

from typing import Any

import pytest

from mulligan.training import agreement
from mulligan.training.agreement import check_agreement


@pytest.mark.parametrize(
    ("others", "says"),
    [
        ([], None),
        ([{"seed": 0, "paths": ["a"]}], None),
        ([{"seed": 0, "paths": ["a"]}, {"seed": 1, "paths": ["a"]}], "seed is 1 on rank 2 and 0 on rank 0: give all"),
        ([{"seed": 0, "paths": ["b"]}], r"paths is \['b'\] on rank 1 and \['a'\] on rank 0"),
        ([{"seed": 0, "paths": ["a"], "more": None}], "more is None on rank 1 and not set on rank 0"),
        ([{"seed": 0}], r"paths is not set on rank 1 and \['a'\] on rank 0"),
    ],
)
def test_the_first_key_that_differs_is_named(
    monkeypatch: pytest.MonkeyPatch, others: list[dict[str, Any]], says: str | None
) -> None:
    monkeypatch.setattr(agreement, "gathered", lambda own: [own, *others])
    if says is None:
        check_agreement({"seed": 0, "paths": ["a"]})
        return
    with pytest.raises(ValueError, match=says):
        check_agreement({"seed": 0, "paths": ["a"]})

"""What ranks must have alike is compared key by key."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mulligan.training import agreement
from mulligan.training.agreement import check_agreement
from tests.conftest import Cli, environment, lines_of
from tests.training.test_ranks import free_port


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


def test_no_number_is_alike_on_every_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "gathered", lambda own: [own, {"rate": float("nan")}])
    check_agreement({"rate": float("nan")})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("own", "says"),
    [
        (("optimizer.lr=1e-3", "optimizer.lr=2e-3"), "optimizer.lr is 0.002 on rank 1 and 0.001 on rank 0"),
        (("max_steps=8", "max_steps=8"), "whether there is a checkpoint is False on rank 1 and True on rank 0"),
    ],
    ids=["another command", "a folder of its own"],
)
def test_ranks_that_do_not_agree_say_so(
    own: tuple[str, str], says: str, tiny: tuple[str, ...], mulligan: Cli, tmp_path: Path
) -> None:
    """Both in one line, and nothing waits for a collective that the other is not in."""
    folders = [tmp_path, tmp_path]
    if own[0] == own[1]:
        assert mulligan("train", *tiny, "max_steps=4").returncode == 0
        folders[1] = tmp_path / "of another host"
        folders[1].mkdir()
    port = free_port()
    keys = ("trainer=cpu_ddp", "accept_changes=true")  # and each rank its own loader, which is no difference
    command = [sys.executable, "-m", "mulligan", "train", *tiny, *keys]
    ranks = [
        subprocess.Popen(
            [*command, own[rank], f"data.loader_workers={rank}"], cwd=folders[rank], text=True,
            stderr=subprocess.PIPE, env=environment() | {
                "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "by hand",
            },
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=100)[1] for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    assert [process.returncode for process in ranks] == [2, 2], said
    for text in said:
        (line,) = lines_of(text)
        assert says in line

"""Which state a run goes back to."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mulligan.files import write_json
from mulligan.stability.ledger import Ledger
from mulligan.stability.snapshots import Snapshots
from mulligan.training.checkpoints import checkpoint_path
from mulligan.training.restore_points import RestorePoints

TRAINER: Any = SimpleNamespace(strategy=SimpleNamespace(broadcast=lambda steps: steps))
MODULE: Any = None  # not looked at where memory lacks what is asked for


def points(folder: Path, snapshots: Snapshots | None, on_disk: list[int]) -> RestorePoints:
    for step in on_disk:
        checkpoint_path(folder, step).touch()
        write_json(checkpoint_path(folder, step).with_suffix(".json"), {"step": step, "sha256": ""})
    return RestorePoints(snapshots=snapshots, folder=folder, ledger=Ledger(folder / "ledger.jsonl"))


def take(snapshots: Snapshots, *steps: int) -> None:
    for step in steps:
        snapshots.take(step, {"weight": torch.zeros(1)}, {})


@pytest.mark.parametrize(
    ("latest", "onset", "target"),
    [
        (28_990, 29_030, 28_975),  # on disk, and less is lost
        (28_970, 29_005, 28_950),  # deep enough, though 28,975 is nearer
        (28_605, 29_005, 28_750),  # deeper than memory: the nearest on disk, not the milestone 8,605 steps back
        (19_990, 29_005, 20_000),
        (28_800, 28_860, 28_750),
        (9_000, 9_500, None),
    ],
)
def test_the_nearest_state_and_rather_one_deep_enough(
    tmp_path: Path, latest: int, onset: int, target: int | None
) -> None:
    snapshots = Snapshots(every_n_steps=50, keep=4)
    states = points(tmp_path, snapshots, [10_000, 20_000, 28_750, 28_975])
    take(snapshots, 28_850, 28_900, 28_950, 29_000)
    assert states.find(TRAINER, latest, onset) == target


def test_memory_gives_no_other_state_than_the_one_asked_for(tmp_path: Path) -> None:
    """That of step 120 is on disk alone."""
    snapshots = Snapshots(every_n_steps=50, keep=4)
    states = points(tmp_path, snapshots, [120])
    take(snapshots, 100, 150)
    assert states.restore(TRAINER, MODULE, 120) is None
    assert snapshots.steps == [100, 150]


def test_without_memory_the_nearest_on_disk(tmp_path: Path) -> None:
    assert points(tmp_path, None, [100, 200, 300]).find(TRAINER, 230, 310) == 200


@pytest.mark.parametrize(("on_disk", "target"), [([], 0), ([50], 0), ([20, 50], 20)])
def test_a_run_that_goes_on_from_its_first_checkpoint_can_begin_anew(
    tmp_path: Path, on_disk: list[int], target: int
) -> None:
    """At step 51, of which the state of step 50 shows the rise."""
    assert points(tmp_path, Snapshots(every_n_steps=50, keep=4), on_disk).find(TRAINER, 41, 51) == target


def test_a_fit_that_begins_again_knows_no_snapshot_of_the_one_before(tmp_path: Path) -> None:
    """Their lineage was given up, and their steps come once more."""
    snapshots = Snapshots(every_n_steps=50, keep=4)
    take(snapshots, 350, 400, 450)
    assert points(tmp_path, snapshots, [300]).find(TRAINER, 420, 440) == 300

"""What a run is bound to when it goes on with another config: weights, model, data and their order, by their bytes."""

from pathlib import Path
from typing import Any

from mulligan.cli.provenance import begun_with
from mulligan.cli.record import DATA, bound_differences, is_one_of, recorded_model
from mulligan.cli.recorded_data import prepared_folder
from mulligan.files import read_json, sha256_file
from mulligan.training.run import TrainingRun


def check_changes(
    run: TrainingRun, content: dict[str, Any], folder: Path, recorded: dict[str, Any], changes: list[str]
) -> None:
    """Raise ValueError for ``changes`` of what the run in ``folder`` was begun with that nobody may make, or that
    nobody has accepted.
    """
    before = recorded_model(recorded, folder)
    bound = bound_differences(changes, before=before, now=run.model, same=_same_bytes(run, folder, changes))
    if bound:
        raise ValueError(
            f"{folder} cannot go on from other weights, as another model, on other data or with another order of data; "
            f"begin a run of another name. Different: {'; '.join(bound)}{_advice(bound, content, folder)}"
        )
    if not run.accept_changes:
        raise ValueError(
            f"{folder} was begun with another config; set accept_changes=true or another name. "
            f"Different: {'; '.join(changes)}"
        )


def _same_bytes(run: TrainingRun, folder: Path, changes: list[str]) -> tuple[str, ...]:
    """Keys that name what the run was begun with by another path."""
    begun, keys = begun_with(folder), [change.split(":")[0] for change in changes]
    manifest, initial = run.data.folder / "manifest.json", run.initial_weights
    fingerprint = read_json(manifest, "fingerprint")["fingerprint"] if manifest.is_file() else None
    same = DATA if fingerprint is not None and fingerprint == begun.get("data_fingerprint") else ()
    if initial is None or "initial_weights" not in keys:  # hashing takes long
        return same
    is_same = sha256_file(initial.weights_path) == begun.get("initial_weights_sha256")
    return (*same, "initial_weights") if is_same else same


def _advice(bound: list[str], content: dict[str, Any], folder: Path) -> str:
    """How to go on where it is only the texts that have moved."""
    if not any(is_one_of(change.split(":")[0], DATA) for change in bound):
        return ""
    if prepared_folder(folder, content) is not None:
        return ". It reads its prepared data and needs no texts: leave the keys of data as they were"
    return ". Where this is the same data in another place, `mulligan prepare` with these keys first"

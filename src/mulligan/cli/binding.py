"""What a run is bound to when it goes on with another config: weights, model, data and their order, by their bytes."""

from pathlib import Path
from typing import Any

from mulligan.cli.provenance import begun_with
from mulligan.cli.record import BY_BYTES, DATA, bound_differences, differences, is_one_of, recorded_model
from mulligan.cli.recorded_data import prepared_folder
from mulligan.files import read_json, sha256_file
from mulligan.training.run import TrainingRun


def accepted_changes(run: TrainingRun, content: dict[str, Any], folder: Path, recorded: dict[str, Any]) -> list[str]:
    """How ``content`` differs from the config that the run in ``folder`` was begun with; ValueError for what nobody may
    change, and for what nobody has accepted.
    """
    changes = differences(recorded, content)
    if any(is_one_of(_key(change), BY_BYTES) for change in changes):
        same = _same_bytes(run, folder)
        changes = [change for change in changes if not is_one_of(_key(change), same)]
    bound = bound_differences(changes, before=recorded_model(recorded, folder), now=run.model) if changes else []
    if bound:
        raise ValueError(
            f"{folder} cannot go on from other weights, as another model, by another optimizer, on other data or in "
            "another order of data; begin a run of another name. "
            f"Different: {'; '.join(bound)}{_advice(bound, content, folder)}"
        )
    if changes and not run.accept_changes:
        raise ValueError(
            f"{folder} was begun with another config; set accept_changes=true or another name. "
            f"Different: {'; '.join(changes)}"
        )
    return changes


def _key(change: str) -> str:
    return change.split(":")[0]


def _same_bytes(run: TrainingRun, folder: Path) -> tuple[str, ...]:
    """Keys of which today's values stand for the bytes that the run was begun with."""
    begun, manifest, initial = begun_with(folder), run.data.folder / "manifest.json", run.initial_weights
    prepared = read_json(manifest, "fingerprint", "tokenizer_sha256") if manifest.is_file() else {}
    data = [prepared.get(key) for key in ("fingerprint", "tokenizer_sha256")]
    weights = None if initial is None else sha256_file(initial.weights_path)
    same: tuple[str, ...] = ()
    if prepared and data == [begun.get(key) for key in ("data_fingerprint", "tokenizer_sha256")]:
        same += DATA
    if weights is not None and weights == begun.get("initial_weights_sha256"):
        same += ("initial_weights",)
    return same


def _advice(bound: list[str], content: dict[str, Any], folder: Path) -> str:
    """How to go on where it is only the texts that have moved."""
    if not any(is_one_of(_key(change), DATA) for change in bound):
        return ""
    if prepared_folder(folder, content) is not None:
        return ". It reads its prepared data and needs no texts: leave the keys of data as they were"
    return ". Where this is the same data in another place, `mulligan prepare` with these keys first"

"""The prepared data that a run was begun with: it is read where it lies, without a look at the texts it was made of."""

from pathlib import Path
from typing import Any

from mulligan.data.prepared import PreparedData
from mulligan.files import read_json

PREPARED = f"{PreparedData.__module__}.{PreparedData.__qualname__}"
READING = ("weights", "document_mask", "loader_workers", "verify")  # how a run reads it, whoever made it


def prepared_folder(folder: Path, content: dict[str, Any]) -> Path | None:
    """Where the data of the run in ``folder`` lies: below the data.folder of ``content``, which may be another by now,
    or where it was at the last start; None where neither is whole.
    """
    note = folder / "data.json"
    if not note.is_file():
        return None
    noted = Path(read_json(note, "folder")["folder"])
    places = (Path(content["data"]["folder"]) / noted.name, noted)
    return next((place for place in places if (place / "manifest.json").is_file()), None)


def on_recorded_data(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    """``content`` with that folder in the place of a recipe for it, where it is whole."""
    found = prepared_folder(folder, content)
    if found is None:
        return content
    reading = {key: content["data"][key] for key in READING if key in content["data"]}
    return content | {"data": {"_target_": PREPARED, "folder": str(found), **reading}}

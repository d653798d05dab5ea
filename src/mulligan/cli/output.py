"""The file that a verb is told to write: looked at before there is anything to write."""

from pathlib import Path


def output_path(output: str | None, *, key: str = "output") -> Path | None:
    """``output`` as a path; ValueError where nothing could be written there."""
    if output is None:
        return None
    path = Path(output)
    if path.is_dir():
        raise ValueError(f"{key}={output} is a folder; name a file in it")
    if not path.parent.is_dir():
        raise ValueError(f"{key}={output}: there is no folder {path.parent}; make it first")
    return path

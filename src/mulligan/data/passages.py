"""Short texts to be judged by, a row or a line each: a local file, or a data set of the hub."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from mulligan.data.documents import Source
from mulligan.data.hub import HubDataset, TableFiles

TABLES = (".jsonl", ".json", ".jsonl.gz", ".json.gz", ".parquet")


class Passages:
    """``path`` ends in .txt (a passage a line), or in .jsonl, .json or .parquet (one a row); else it is of the hub."""

    def __init__(self, *, path: str, split: str, revision: str | None = None, limit: int | None = None) -> None:
        is_file = path.endswith((".txt", *TABLES))
        if is_file and not Path(path).is_file():
            raise ValueError(f"path={path} is not a file")
        if not is_file and Path(path).is_file():
            raise ValueError(f"path={path} must end in .txt, or in one of {', '.join(TABLES)}")
        self.path, self.split, self.revision, self.limit = path, split, revision, limit
        self._read: list[str] | None = None

    def read(self) -> list[str]:
        """All, or the first ``limit``; they are read once. Raises ValueError where there is none."""
        if self._read is None:
            self._read = list(islice(self._texts(), self.limit))
        if not self._read:
            raise ValueError(f"{self.path} holds no passage")
        return self._read

    def _texts(self) -> Iterator[str]:
        if self.path.endswith(".txt"):
            lines = Path(self.path).read_text(errors="replace").split("\n")
            yield from (line for line in lines if line.strip())
            return
        source: Source
        if self.path.endswith(TABLES):
            source = TableFiles(paths=[self.path])
        else:
            source = HubDataset(path=self.path, split=self.split, revision=self.revision)
        yield from (document.text for part in source.parts() for document in source.read(part) if document.text)

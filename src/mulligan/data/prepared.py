"""Prepared data as a run reads it: the folder it lies in, and how its windows are drawn from it."""

from collections.abc import Callable
from pathlib import Path

from mulligan.data.join import verify as verify_folder
from mulligan.files import read_json

Report = Callable[[str, int, int], None]  # (what, done, total)
Say = Callable[[str], None]


class PreparedData:
    """A folder that is there, whatever has become of the texts it was made of.

    ``weights`` are the sources' shares of the samples.
    """

    def __init__(
        self,
        *,
        folder: str,
        weights: dict[str, float] | None = None,
        document_mask: bool = False,
        loader_workers: int = 0,
        verify: bool = True,
    ) -> None:
        if loader_workers < 0:
            raise ValueError(f"data.loader_workers={loader_workers} must be 0 (a thread) or more (processes)")
        self.folder, self.weights = Path(folder), weights
        self.document_mask, self.loader_workers, self.verify = document_mask, loader_workers, verify

    @property
    def vocab_size(self) -> int:
        return int(read_json(self.folder / "manifest.json", "vocab_size")["vocab_size"])

    def prepare(self, report: Report, say: Say = lambda text: None) -> Path:
        """Return the folder. With ``verify`` every file is compared with its sha256, at about a second a GB, the first
        time it is seen.
        """
        if self.verify:
            report("verifying", 0, 1)
            verify_folder(self.folder)
            report("verifying", 1, 1)
        return self.folder

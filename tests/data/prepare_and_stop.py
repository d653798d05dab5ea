"""The recipe that tests of preparation share; as a program it prepares and, at a stage, is killed or pauses.

python prepare_and_stop.py FOLDER STAGE [PART]
"""

import os
import signal
import sys
from pathlib import Path

from mulligan.data.documents import TextFiles
from mulligan.data.join import VERIFIED
from mulligan.data.prepare import DataRecipe
from mulligan.data.share import Share
from mulligan.data.tokenizer import TokenizerRecipe
from mulligan.files import sha256_file


def recipe(folder: str, workers: int = 1, **changes: object) -> DataRecipe:
    options: dict = {
        "name": "two",
        "folder": folder,
        "sources": {name: TextFiles(paths=[f"{name}/*"], part_bytes=2500) for name in ("web", "code")},
        "tokenizer": TokenizerRecipe(vocab_size=330, sample_bytes=4000),
        "weights": {"web": 3.0, "code": 1.0},
        "validation_fraction": 0.25,
        "workers": workers,
    }
    return DataRecipe(**options | changes)


def silent(what: str, done: int, total: int) -> None:
    pass


def hashes(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != VERIFIED)
    return {str(path.relative_to(folder)): sha256_file(path) for path in files}


def stopped_at(stage: str, folder: str, share: Share) -> None:
    """Prepare, and at ``stage`` be killed, or pause until told to go on."""

    def report(what: str, done: int, total: int) -> None:
        if f"{what} {done}" == stage:
            os.kill(os.getpid(), signal.SIGKILL)
        if f"pause {what} {done}" == stage:
            print("pauses")
            input()

    own = recipe(folder)
    if share.is_whole:
        own.prepare(report, print)
    else:
        own.prepare_share(share, report, print)


if __name__ == "__main__":
    _, given_folder, given_stage, *given_part = sys.argv
    stopped_at(given_stage, given_folder, Share(part=int(given_part[0]), parts=2) if given_part else Share())

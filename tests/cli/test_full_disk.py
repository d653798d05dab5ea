"""A disk that is full, for real: one line names the file, nothing is torn, and with room the same command goes on."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import environment

# In namespaces of its own, a user without privileges may mount: the disk is there for these processes alone.
NAMESPACES = ("unshare", "--user", "--map-root-user", "--mount")
WITHOUT_ROOM_AND_WITH = """
mount -t tmpfs -o size=50m tmpfs . && cd "$PWD" || exit 99
head -c $(((50 * 1024 - $1) * 1024)) /dev/zero > of_others
shift
"$@"
echo "exit code $?"
find . -name "*.tmp" -size +0
rm of_others
exec "$@"
"""


@pytest.fixture(scope="session", autouse=True)
def _may_mount(tmp_path_factory: pytest.TempPathFactory) -> None:
    mount = ("mount", "-t", "tmpfs", "tmpfs", str(tmp_path_factory.mktemp("disk")))  # a container may refuse this alone
    try:
        subprocess.run([*NAMESPACES, *mount], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a full disk needs user namespaces in which to mount: {getattr(error, 'stderr', error)}")


def without_room_and_with(kilobytes: int, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``mulligan`` in ``folder``, a disk with so much room, and again when others have made more."""
    command = [sys.executable, "-m", "mulligan", *arguments]
    return subprocess.run(
        [*NAMESPACES, "bash", "-c", WITHOUT_ROOM_AND_WITH, "bash", str(kilobytes), *command],
        cwd=folder, env=environment(), capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kilobytes", "file"),
    [pytest.param(4, "tokenizer.model", marks=pytest.mark.slow), (40, "parts/000000.npz")],
)
def test_prepare(kilobytes: int, file: str, corpus: Path, tmp_path: Path) -> None:
    keys = ("data=files", f"data.sources.files.paths=[{corpus}/*.txt]", "tokenizer.vocab_size=400", "data.workers=1")
    done = without_room_and_with(kilobytes, tmp_path, "prepare", *keys)
    (line,) = done.stderr.splitlines()
    assert line.startswith("mulligan prepare: ")
    assert line.endswith(f"/{file}: No space left on device; make room there, and the same command goes on")
    assert "exit code 2" in done.stdout
    assert ".tmp" not in done.stdout
    assert done.returncode == 0
    assert "is ready, fingerprint" in done.stdout


@pytest.mark.parametrize(
    ("kilobytes", "file"),
    [
        pytest.param(400, "runs/default/checkpoints/step_00000006.ckpt", marks=pytest.mark.slow),  # each has 160
        pytest.param(4, "runs/default/config.yaml", marks=pytest.mark.slow),
        pytest.param(8, "runs/default/provenance.jsonl", marks=pytest.mark.slow),
    ],
)
def test_train(kilobytes: int, file: str, tiny: tuple[str, ...], tmp_path: Path) -> None:
    done = without_room_and_with(kilobytes, tmp_path, "train", *tiny)
    (line,) = done.stderr.splitlines()
    assert line == f"mulligan train: {file}: No space left on device; make room there, and the same command goes on"
    assert "exit code 2" in done.stdout
    assert ".tmp" not in done.stdout
    assert done.returncode == 0
    again = done.stdout.split("exit code 2")[1]
    assert ("going on from step 4" in again) == file.endswith(".ckpt")
    assert "passed over" not in again
    assert "step 8/8" in again

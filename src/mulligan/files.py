"""Files that are whole or absent: atomic writes, sha256, durable JSON."""

import fcntl
import hashlib
import json
import math
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Any


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary neighbour of ``path``; on success it is synced and renamed, on any error removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.tmp")
    try:
        with _naming(path, temporary), temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        rename(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Make a temporary neighbour of ``path`` to write files in; on success it is renamed, on any error removed."""
    temporary = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.tmp")
    try:
        with _naming(path, temporary):
            temporary.mkdir()
        with _folder_to_sync(temporary):
            yield temporary
        rename(temporary, path)
    finally:
        remove(temporary)


@contextmanager
def _naming(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """A full disk is met by a write, whose error knows no name; a folder that is only read, by one of ``temporary``."""
    try:
        yield
    except OSError as error:
        if error.filename not in (None, str(temporary)) or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def exclusive(
    path: Path, *, patience_seconds: float = math.inf, waiting: Callable[[], None] = lambda: None
) -> AbstractContextManager[None]:
    """Hold the lock file ``path`` alone; wait so long for whoever holds it. The system frees it when its holder dies.

    ``waiting`` is called once if there is somebody to wait for.
    """
    return _held(path, fcntl.LOCK_EX, patience_seconds, waiting)


def shared(path: Path, *, waiting: Callable[[], None] = lambda: None) -> AbstractContextManager[None]:
    """Hold the lock file ``path`` beside others who share it, and keep out who wants it alone."""
    return _held(path, fcntl.LOCK_SH, math.inf, waiting)


@contextmanager
def _held(path: Path, kind: int, patience_seconds: float, waiting: Callable[[], None]) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + patience_seconds
    with path.open("ab+") as file:  # NFS wants a file open for reading to share it, and for writing to hold it alone
        if not _locked(file, kind):
            waiting()
            while not _locked(file, kind):
                if time.monotonic() > deadline:
                    raise ValueError(f"{path.parent} is in use by another process; wait for it, or choose another name")
                time.sleep(0.1)
        yield


def is_exclusive(path: Path) -> bool:
    """Whether a process holds the lock file ``path`` alone at the moment, as far as the storage tells."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no such file, or no locks
        pass
    return False


def _locked(file: IO[bytes], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise ValueError(
            f"{file.name} cannot be locked ({error.strerror}): the storage must offer flock, as Lustre does when it is "
            "mounted with -o flock"
        ) from None
    return True


def rename(source: Path, target: Path) -> None:
    """Give a file or folder its last name; on disk when this returns."""
    with _folder_to_sync(target.parent):  # opened first: once the new name is seen, another may rename the folder
        source.replace(target)


def remove_temporaries(folder: Path) -> None:
    """Remove what stands in ``folder`` under no last name yet, since its process was killed."""
    for leftover in folder.glob(".*.tmp"):
        remove(leftover)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def finite(content: Any) -> Any:
    """``content`` as JSON can hold it: a number that is infinite or none becomes null."""
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, dict):
        return {key: finite(value) for key, value in content.items()}
    return [finite(value) for value in content] if isinstance(content, list | tuple) else content


def write_json(path: Path, content: Any) -> None:
    """Numbers that are not finite are null in the file. The name of a file that is not UTF-8 comes back as it was."""
    text = json.dumps(finite(content), indent=2, sort_keys=True, ensure_ascii=False)
    with atomic_write(path) as file:
        file.write(text.encode(errors="surrogatepass") + b"\n")  # as json.loads reads


def read_json(path: Path, *keys: str) -> Any:
    """The content of ``path``, which must hold ``keys``."""
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not whole JSON ({error}); remove it to have it made again") from None
    for key in keys:
        if not isinstance(content, dict) or key not in content:
            raise ValueError(f"{path} is not what it was: it has no {key!r}; remove it to have it made again")
    return content


def append_line(path: Path, line: str) -> None:
    """Add a line to ``path``; on disk when this returns. A torn last line, which a kill leaves, is cut off first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    created = not path.exists()
    with _naming(path), path.open("ab+") as file:
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        file.write(line.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    if created:
        with _folder_to_sync(path.parent):
            pass


def sha256_file(path: Path) -> str:
    """Hex digest of the file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class HashingWriter:
    """A binary file that hashes what passes through, so that writing and hashing read the bytes once."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.num_bytes = 0

    def write(self, chunk: bytes | memoryview) -> int:
        self._hash.update(chunk)
        self.num_bytes += memoryview(chunk).nbytes
        return self._file.write(chunk)

    def flush(self) -> None:
        self._file.flush()

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def write_hashed(path: Path, write: Callable[[HashingWriter], None]) -> str:
    """Write ``path`` atomically through ``write`` and return the sha256 of its bytes."""
    with atomic_write(path) as file:
        hashing = HashingWriter(file)
        write(hashing)
    return hashing.hexdigest()


@contextmanager
def _folder_to_sync(folder: Path) -> Iterator[None]:
    """Make what is done to its names durable: on POSIX a folder is a file of its own."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

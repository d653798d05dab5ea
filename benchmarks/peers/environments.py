"""Environments of the peers, below .venv-peers/ of the repository: made on first use, remade when their pins change.

An environment holds only what is pinned in ``requirements-NAME.txt``. Everything else, torch above all, it reads from
the environment that the benchmark runs in: peers must be measured on the same build of torch as ours.
"""

import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[2] / ".venv-peers"
PATIENCE_SECONDS = 300.0


def interpreter_of(name: str | None) -> str:
    """Python of a peer's environment; None names our own. RuntimeError says why there is none."""
    if name is None:
        return sys.executable
    pins = Path(__file__).with_name(f"requirements-{name}.txt")
    folder = ROOT / name
    python, done = folder / "bin" / "python", folder / "made-of.txt"
    if not done.is_file() or done.read_text() != pins.read_text():
        done.unlink(missing_ok=True)
        _run(sys.executable, "-m", "venv", "--clear", str(folder))
        _run(str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--requirement", str(pins))
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        shared = folder / "lib" / version / "site-packages" / "shared.pth"
        shared.write_text(sysconfig.get_path("purelib") + "\n")
        done.write_text(pins.read_text())
    return str(python)


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or ["no reason given"]
        raise RuntimeError(f"its environment cannot be made: {lines[-1]}") from None
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"its environment cannot be made in {PATIENCE_SECONDS:.0f} s") from None

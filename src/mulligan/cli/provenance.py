"""What a run was made with: a line of ``provenance.jsonl`` in its folder each time that training begins.

Lines, not one document: a run goes on elsewhere, with other code, and what was true of its earlier steps stays.
"""

import hashlib
import inspect
import json
import os
import platform
import subprocess
import sysconfig
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_object

import mulligan
from mulligan.cli.compose import CONF
from mulligan.files import append_line, read_json, sha256_file
from mulligan.report.run_files import json_lines
from mulligan.training.run import TrainingRun

GIT_SECONDS = 30.0  # a large checkout on a slow disk


def note_start(run: TrainingRun, overrides: Sequence[str], source: dict[str, Any]) -> dict[str, Any]:
    """Add the line of a start, and return it. The config and the data are there by now, and devices are in use."""
    manifest = read_json(run.data.folder / "manifest.json", "fingerprint", "tokenizer_sha256")
    initial = run.initial_weights
    entry = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "step": run.trainer.global_step,
        "overrides": list(overrides),
        "config_sha256": run.config_hash,
        "data_fingerprint": manifest["fingerprint"],
        "tokenizer_sha256": manifest["tokenizer_sha256"],
        "initial_weights_sha256": None if initial is None else sha256_file(initial.weights_path),
        "world_size": run.trainer.world_size,
        "num_nodes": run.trainer.num_nodes,
        "strategy": type(run.trainer.strategy).__name__,
        **source,
        "machine": machine(),
    }
    append_line(run.folder / "provenance.jsonl", json.dumps(entry))
    return entry


def begun_with(folder: Path) -> dict[str, Any]:
    """The line of the start at step 0 that the run in ``folder`` goes back to; empty where it is not known."""
    starts = [entry for entry in json_lines(folder / "provenance.jsonl") if entry.get("step") == 0]
    return starts[-1] if starts else {}


def overwritten(weights_sha256: str | None, begun: dict[str, Any]) -> str | None:
    """What to say where the initial weights of now are not those that a run was ``begun`` with; None where they are."""
    wanted = begun.get("initial_weights_sha256")
    if weights_sha256 is None or wanted in (None, weights_sha256):
        return None
    return f"initial_weights holds {weights_sha256[:16]} by now, and the run began from {wanted[:16]}"


def source(content: dict[str, Any]) -> dict[str, Any]:
    """The code of this process and of the parts that the config names. Ask before training begins: the files may change
    under a run, its code does not.
    """
    package, checkout = Path(mulligan.__file__).parent, CONF.parent
    image, lock = image_stamp(), checkout / "requirements.lock"
    return {
        "version": mulligan.__version__,
        "source_sha256": files_sha256(package, CONF),
        "own_sources_sha256": own_sources(content),
        # An installed package has its conf/ inside, and may lie in the repository of something else.
        "git": git_state(checkout) if checkout != package else None,
        "image": image,
        "lock_sha256": image["lock_sha256"] if image else sha256_file(lock) if lock.is_file() else None,
        "python": platform.python_version(),
        "packages": dict(sorted((found.name, found.version) for found in metadata.distributions() if found.name)),
    }


def own_sources(content: dict[str, Any]) -> dict[str, str]:
    """The sha256 of the file of each module that a ``_target_`` is from; of installed ones the version tells."""
    modules = {inspect.getmodule(get_object(target)) for target in _targets(content)}
    files = {module.__name__: getattr(module, "__file__", None) for module in modules if module}  # builtins have none
    paths = {name: Path(file) for name, file in files.items() if file}
    known = (
        Path(mulligan.__file__).parent,
        *(Path(sysconfig.get_path(kind)) for kind in ("stdlib", "purelib", "platlib")),
    )
    own = {name: path for name, path in paths.items() if not any(path.is_relative_to(one) for one in known)}
    return {name: sha256_file(own[name]) for name in sorted(own)}


def _targets(node: Any) -> Iterator[str]:
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    if isinstance(node, dict) and "_target_" in node:
        yield node["_target_"]
    for child in children:
        yield from _targets(child)


def changed_sources(folder: Path, made_with: dict[str, Any]) -> list[str]:
    """The modules of one's own whose file is another one than at the last start in ``folder``."""
    starts = json_lines(folder / "provenance.jsonl")
    before = starts[-1].get("own_sources_sha256", {}) if starts else {}
    return [name for name, now in made_with["own_sources_sha256"].items() if before.get(name, now) != now]


def files_sha256(package: Path, conf: Path) -> str:
    """One hash over Python files and configs by name: the same for a checkout, its wheel and its image."""
    found = {path.relative_to(package).as_posix(): path for path in package.rglob("*.py")}
    found |= {path.relative_to(conf.parent).as_posix(): path for path in conf.rglob("*.yaml")}
    digest = hashlib.sha256()
    for name in sorted(found):
        digest.update(f"{name}:{sha256_file(found[name])}\n".encode())
    return digest.hexdigest()


def git_state(checkout: Path) -> dict[str, str | None] | None:
    """The commit and the sha256 of what differs from it in tracked files, None if nothing; None without git."""
    diff = ("diff", "HEAD", "--binary", "--full-index", "--no-color", "--no-ext-diff", "--no-textconv")
    try:
        revision, changes = _git(checkout, "rev-parse", "HEAD"), _git(checkout, *diff)
    except (OSError, subprocess.SubprocessError):
        return None
    return {
        "revision": revision.decode().strip(),
        "diff_sha256": hashlib.sha256(changes).hexdigest() if changes else None,
    }


def _git(checkout: Path, *words: str) -> bytes:
    # Somebody else's checkout may be asked too: its code is running already.
    command = ["git", "--no-optional-locks", "-c", "safe.directory=*", "-C", str(checkout), *words]
    return subprocess.run(command, capture_output=True, check=True, timeout=GIT_SECONDS).stdout


def image_stamp() -> dict[str, Any] | None:
    """What the Dockerfile wrote down of the image this runs in."""
    path = os.environ.get("MULLIGAN_IMAGE")
    return read_json(Path(path), "lock_sha256", "revision") if path else None


def machine() -> dict[str, Any]:
    """The host of rank 0, with what decides how its processor and devices round."""
    has_cuda = torch.cuda.is_available()
    return {
        "host": platform.node(),
        "system": platform.platform(),
        "processor": _processor(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())],
        "cuda": torch.version.cuda if has_cuda else None,
        "cudnn": torch.backends.cudnn.version() if has_cuda else None,
        "nccl": ".".join(map(str, torch.cuda.nccl.version())) if has_cuda else None,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())

"""What torch.compile needs of the machine: a compiler, and the headers of this Python."""

import os
import shutil
import sysconfig
from functools import cache
from pathlib import Path


def can_compile_for_cpu() -> bool:
    """Inductor compiles C++."""
    return _has_headers() and any(shutil.which(name) for name in ("g++", "clang++"))


@cache  # asked at every step
def can_compile_for_cuda() -> bool:
    """Triton compiles a launcher in C for each of its kernels."""
    return _has_headers() and any(shutil.which(name) for name in (os.environ.get("CC", "gcc"), "gcc", "clang"))


def _has_headers() -> bool:
    return Path(sysconfig.get_path("include"), "Python.h").is_file()

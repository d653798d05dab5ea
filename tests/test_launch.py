"""The launch scripts: what they hand on to the launcher."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parents[1] / "launch"


@pytest.mark.parametrize(
    ("settings", "restarts"),
    [
        ({}, 0),  # a mistake in a key is said once
        ({"NNODES": "2", "RDZV_ENDPOINT": "a:1"}, 3),
        ({"MAX_RESTARTS": "5"}, 5),
    ],
)
def test_torchrun_starts_workers_again_only_where_hosts_can_be_replaced(
    settings: dict[str, str], restarts: int, tmp_path: Path
) -> None:
    shutil.copytree(LAUNCH, tmp_path / "launch")
    echo = tmp_path / ".venv/bin/torchrun"
    echo.parent.mkdir(parents=True)
    echo.write_text('#!/bin/sh\necho "$@"\n')
    echo.chmod(0o755)
    environment = {"PATH": os.environ["PATH"], **settings}
    script = [str(tmp_path / "launch/torchrun.sh"), "name=x"]
    said = subprocess.run(script, env=environment, capture_output=True, text=True, check=True).stdout.split()
    assert f"--max-restarts={restarts}" in said
    assert said[-4:] == ["-m", "mulligan", "train", "name=x"]

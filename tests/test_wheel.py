"""The wheel holds all there is to a run: installed alone, it trains from an empty folder."""

import json
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

import mulligan
from mulligan.cli.compose import CONF
from mulligan.cli.provenance import files_sha256
from tests.conftest import environment

ROOT = Path(__file__).parents[1]


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """An environment with the wheel of this source, and the libraries of the one that runs the tests."""
    wheels, folder = tmp_path / "wheels", tmp_path / "environment"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(wheels), str(ROOT)]
    subprocess.run(build, check=True, timeout=120)
    venv.create(folder, with_pip=False, symlinks=True)
    (wheel,) = wheels.glob("mulligan-*.whl")
    install = ["--python", str(folder / "bin/python"), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([*pip, *install], check=True, timeout=120)
    site = folder / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    # A folder that a .pth names comes behind its own, and the .pth files in there are not read: an editable
    # install of the source is not seen.
    (site / "libraries.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
    return folder / "bin"


@pytest.mark.slow
def test_the_wheel_alone_trains_from_an_empty_folder(installed: Path, tiny: tuple[str, ...], tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    of_the_tests = ("PYTHONPATH", "MULLIGAN_IMAGE")
    variables = {name: value for name, value in environment().items() if name not in of_the_tests}

    def output(program: str, *arguments: str) -> str:
        command = [str(installed / program), *arguments]
        return subprocess.run(
            command, cwd=empty, env=variables, check=True, stdout=subprocess.PIPE, text=True, timeout=200
        ).stdout

    assert Path(output("python", "-c", "import mulligan; print(mulligan.__file__)")).is_relative_to(installed.parent)
    assert "usage: mulligan VERB" in output("mulligan", "--help")
    assert "step 8/8 (100%)" in output("mulligan", "train", *tiny, "trainer=cpu_ddp")
    assert "runs/default/report.html" in output("mulligan", "report", "run=runs/default")
    made_with = json.loads((empty / "runs/default/provenance.jsonl").read_text())
    assert made_with["source_sha256"] == files_sha256(Path(mulligan.__file__).parent, CONF)
    assert (made_with["git"], made_with["lock_sha256"]) == (None, None)  # wherever the environment lies

"""The parts of the image agree: the Dockerfile, what it may copy, the lock and what the package asks for."""

import itertools
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
# Each instruction as one line, without comments.
INSTRUCTIONS = re.sub(r"\\\n\s*", "", re.sub(r"(?m)^\s*#.*\n", "", DOCKERFILE)).splitlines()


def pins() -> dict[str, str]:
    lines = (line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


def asked() -> list[Requirement]:
    content = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = content["project"]["optional-dependencies"].values()
    lists = (content["build-system"]["requires"], content["project"]["dependencies"], *extras)
    return [Requirement(text) for texts in lists for text in texts if not text.startswith("mulligan[")]


@pytest.mark.parametrize("one", asked(), ids=str)
def test_the_lock_holds_a_version_of_what_is_asked_for(one: Requirement) -> None:
    assert one.specifier.contains(pins()[canonicalize_name(one.name)], prereleases=True)


def test_what_is_copied_is_let_in() -> None:
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {name for line in INSTRUCTIONS if line.startswith("COPY ") for name in line.split()[1:-1]}
    assert copied == let_in
    assert all((ROOT / name).exists() for name in copied)


def test_the_largest_layer_is_built_of_the_lock_and_of_what_is_asked_for() -> None:
    before = itertools.takewhile(lambda line: "pip install" not in line, INSTRUCTIONS)
    copies = [line.split()[1:-1] for line in before if line.startswith("COPY ")]
    assert copies == [["requirements.lock", "pyproject.toml"]]


def test_every_argument_is_explained() -> None:
    head, _, _ = DOCKERFILE.partition("\nARG ")
    arguments = re.findall(r"(?m)^ARG (\w+)", DOCKERFILE)
    assert {"BASE", "TORCH_INDEX_URL", "EXTRAS", "COMPILER", "REVISION"} <= set(arguments)
    assert all(name in head for name in arguments if not name.startswith("PIP_"))


def test_the_image_is_a_program_of_a_user_who_is_not_root() -> None:
    assert INSTRUCTIONS[-4:] == ["USER mulligan", "WORKDIR /work", 'ENTRYPOINT ["mulligan"]', 'CMD ["--help"]']

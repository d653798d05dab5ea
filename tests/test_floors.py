"""Imports point down: no climb, no strangers, no import inside a function, no library away from its home."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "mulligan"
FLOORS = [
    {"compilers", "distributed", "files", "launcher", "safetensors_file"},
    {"model", "objective", "data", "stability"},
    {"evaluation", "export", "planning", "report"},
    {"training"},
    {"cli"},
]
HOMES = {
    "hydra": {"cli"},
    "omegaconf": {"cli"},
    "lightning": {"training"},
    "datasets": {"data"},
    "gguf": {"export"},
    "sentencepiece": {"data"},
    "tokenizers": {"data"},
    "lm_eval": {"evaluation"},
    "matplotlib": {"report"},
    "torchao": {"model"},
    "jinja2": {"report"},
    "triton": {"objective"},
    "wandb": {"training"},
}
FLOOR_OF = {name: number for number, names in enumerate(FLOORS) for name in names}
FILES = sorted(path for path in SOURCE.rglob("*.py") if path.parent != SOURCE or path.stem in FLOOR_OF)


def home_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_modules(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield str(node.module)


def violations(path: Path, source: str) -> Iterator[str]:
    home, tree = home_of(path), ast.parse(source)
    for module in imported_modules(tree):
        top, *rest = module.split(".")
        if top == "mulligan" and rest and rest[0] in FLOOR_OF:
            climbs = FLOOR_OF[rest[0]] > FLOOR_OF[home]
            is_stranger = FLOOR_OF[rest[0]] == FLOOR_OF[home] and rest[0] != home
            if climbs or is_stranger:
                yield f"{home} imports {module}"
        if home not in HOMES.get(top, {home}):
            yield f"{home} imports the library {top}"
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if any(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.walk(function)):
            yield f"{function.name} imports inside a function"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_down(path: Path) -> None:
    assert list(violations(path, path.read_text())) == []


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("model/x.py", "from mulligan.training.run import TrainingRun"),
        ("model/x.py", "import mulligan.data.shards"),
        ("training/x.py", "import hydra"),
        ("cli/x.py", "from lightning.pytorch import Trainer"),
        ("files.py", "def f():\n    import json"),
        ("evaluation/x.py", "import wandb"),
    ],
)
def test_the_walk_sees_each_violation(file: str, source: str) -> None:
    assert list(violations(SOURCE / file, source))


def test_every_folder_has_a_floor() -> None:
    folders = {path.name for path in SOURCE.iterdir() if path.is_dir() and (path / "__init__.py").is_file()}
    assert folders <= set(FLOOR_OF)

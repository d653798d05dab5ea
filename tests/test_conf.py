"""Every choice of every config group composes, and every ``_target_`` binds to its signature."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException
from omegaconf import OmegaConf

from mulligan.cli.choices import known_keys
from mulligan.cli.compose import CONF, build, plain, problems
from mulligan.files import write_json
from mulligan.model.config import ModelConfig

GROUPS = sorted(path.name for path in CONF.iterdir() if path.is_dir())
PRIMARY = sorted(path.stem for path in CONF.glob("*.yaml"))
# Keys that only a user can give, so that a choice can be composed.
GIVEN = {
    "data=files": ["data.sources.files.paths=[pyproject.toml]"],
    "data=tables": ["data.sources.tables.paths=[a.parquet]"],
    "data=hub": ["data.sources.hub.path=some/data"],
    "trainer=multi_node": ["trainer.num_nodes=2"],  # or a launcher
    "model=initial": ["initial_weights=model"],
    "tokenizer=file": ["tokenizer.model_file=tokenizer.model"],
    "suite=text": ["suite.text.paths=[pyproject.toml]"],
    "suite=lm_eval": ["suite.lm_eval.tasks=[arc_easy]"],
    "evaluate": ["run=runs/x"],
    "backtest": ["curve=loss.csv"],
    "generate": ["run=runs/x"],
    "replay": ["run=runs/x"],
    "report": ["run=runs/x"],
    "export": ["run=runs/x", "to=model.safetensors"],
    "import": ["from=llama", "to=here"],
    "inspect": ["run=runs/x"],
}


ABSENT = object()
SHAPE = ModelConfig(
    vocab_size=4096, max_length=512, width=8, num_layers=1, num_heads=2, feedforward_width=9, norm_eps=1e-6
)


@pytest.fixture(autouse=True)
def in_a_folder_with_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_json(Path("model/model.json"), asdict(SHAPE))


def choices() -> Iterator[str]:
    for group in GROUPS:
        for file in sorted((CONF / group).glob("*.yaml")):
            if file.stem != "base":
                yield f"{group}={file.stem}"


def composed(primary: str, *overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(primary, overrides=list(overrides))
    content = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(content, dict)
    return {key: node for key, node in content.items() if key not in ("hydra", "tokenizer")}


@pytest.mark.parametrize("choice", list(choices()))
def test_choice_binds_to_its_signature(choice: str) -> None:
    if choice == "suite=lm_eval":
        pytest.importorskip("lm_eval")
    content = composed("train", choice, *GIVEN.get(choice, []))
    assert list(problems(content, "")) == []


@pytest.mark.parametrize("primary", PRIMARY)
def test_primary_file_composes(primary: str) -> None:
    assert list(problems(composed(primary, *GIVEN.get(primary, [])), "")) == []


def test_a_target_is_bound() -> None:
    content = composed("train")
    content["optimizer"]["rate"] = 1.0
    content["model"].pop("width")
    content["seed"] = "zero"
    found = " ".join(problems(content, ""))
    assert "optimizer.rate" in found
    assert "model.width is not set" in found
    assert "seed='zero': expected int" in found


def of_a_user(rate: float, steps: int = 5) -> None:
    """As people write their own: its parameters have no star before them."""


def test_what_a_function_of_a_users_lacks_is_named_with_its_key() -> None:
    own = {"mine": {"_target_": f"{__name__}.of_a_user", "steps": 9}}
    assert list(problems(own, "callbacks")) == ["callbacks.mine.rate is not set: give it as callbacks.mine.rate=VALUE"]


@pytest.mark.parametrize(
    "value",
    [None, -1, "a text", float("nan"), *(pytest.param(one, marks=pytest.mark.slow) for one in ([1], {"a": 1}))],
    ids=str,
)
def test_a_key_with_another_kind_of_value_is_taken_or_refused_by_name(value: Any) -> None:
    whole = OmegaConf.create(composed("train"))
    keys = [key for key in sorted(known_keys("train")) if OmegaConf.select(whole, key, default=ABSENT) is not ABSENT]
    assert len(keys) > 100
    refused = []
    for key in keys:
        content = deepcopy(whole)
        OmegaConf.update(content, key, value, merge=False)
        try:
            build(plain(content))
        except Exception as error:
            cause = innermost(error)
            # What else a constructor raises is one line as well, of Python's words.
            assert isinstance(cause, ValueError | OSError), f"{key}={value!r}: {cause!r}"
            named = key.rpartition(".")[2] if key != "initial_weights" else "initial_weights model.json"
            assert any(word in str(cause) for word in named.split()), f"{key}={value!r}: {cause}"
            refused.append(key)
    assert "optimizer.lr" in refused


def innermost(error: BaseException) -> BaseException:
    while isinstance(error, InstantiationException) and error.__cause__ is not None:
        error = error.__cause__
    return error


@pytest.mark.parametrize("name", [file.stem for file in sorted((CONF / "model").glob("*.yaml")) if file.stem != "base"])
def test_model_is_a_config(name: str) -> None:
    content = composed("train", f"model={name}", *GIVEN.get(f"model={name}", []))["model"]
    assert isinstance(build(content), ModelConfig)


def test_the_initial_model_has_every_key_of_its_folder() -> None:
    content = composed("train", "model=initial", *GIVEN["model=initial"], "model.dropout=0.1")["model"]
    assert content.keys() - {"_target_"} == asdict(SHAPE).keys()
    assert build(content) == replace(SHAPE, dropout=0.1)


def test_conf_names_no_choice_that_yaml_reads_as_a_boolean() -> None:
    assert not {path.stem for path in Path(CONF).rglob("*.yaml")} & {"on", "off", "yes", "no", "true", "false"}

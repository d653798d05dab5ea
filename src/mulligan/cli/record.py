"""The config a run was begun with, kept in its folder, and what may differ when it goes on."""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from mulligan.cli.compose import CONF, build
from mulligan.files import atomic_write
from mulligan.model.config import ModelConfig
from mulligan.model.weights import empty_weights

# Keys that leave the run's numbers alone.
NEUTRAL = (
    "accept_changes",
    "activation_checkpointing",
    "checkpoint",
    "data.folder",
    "data.loader_workers",
    "data.verify",
    "data.workers",
    "evaluate_bytes",
    "evaluate_every_n_steps",
    "folder",
    "log_every_n_steps",
    "logger",
    "name",
    "print_every_n_steps",
    "profiler",
    "sample_prompt",
    "sample_prompts",
    "sample_tokens",
    "stability",
    "suite",
    "validate_every_n_steps",
    "validation_samples",
)
FREE = (*NEUTRAL, "deterministic", "micro_batch", "trainer")  # or change them by rounding only
# What decides the prepared bytes.
DATA = ("data.sources", "data.split_seed", "data.tokenizer", "data.validation_fraction", "tokenizer")
BY_BYTES = (*DATA, "initial_weights")  # bound, unless they stand for the same bytes in another place
# What a run cannot change even when told: its next samples follow from the step and these.
BOUND = (
    *BY_BYTES,
    "data.weights",
    "global_batch_samples",
    "global_batch_tokens",
    "optimizer._target_",
    "seed",
    "sequence_length",
)
# What each rank may be given for itself: its host's places and processors, and loggers, of which rank 0's write.
OF_A_RANK = ("data.folder", "data.loader_workers", "data.verify", "data.workers", "logger")
DECIDED_ONCE = ("precision", "compile")  # what auto meant when the run began stays
MODEL = f"{ModelConfig.__module__}.{ModelConfig.__qualname__}"


def read_record(folder: Path) -> dict[str, Any] | None:
    path = folder / "config.yaml"
    return _read(path) if path.is_file() else None


def _read(path: Path) -> dict[str, Any]:
    try:
        content = OmegaConf.to_container(OmegaConf.load(path))
    except Exception:  # whatever reading torn YAML raises
        content = None
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path} is not whole; restore it, or begin a run of another name")
    return {str(key): node for key, node in content.items()}


def check_is_of_a_run(recorded: dict[str, Any], folder: Path) -> None:
    for key in ("sequence_length", "precision", "checkpoint", "stability"):
        if key not in recorded:
            raise ValueError(f"{folder}/config.yaml is not that of a run, it has no {key}: bring it back")


def check_model(content: dict[str, Any]) -> None:
    """Raise ValueError for a model that no verb would read the run of."""
    target = content["model"]["_target_"]
    if target != MODEL:
        raise ValueError(
            f"model._target_={target} must be {MODEL}: another architecture is a change of mulligan's own model/"
        )


def recorded_model(recorded: dict[str, Any], folder: Path) -> ModelConfig:
    """The model of the run in ``folder``, which may be somebody else's: nothing but a model is made of what it says."""
    node = recorded.get("model")
    if not isinstance(node, dict) or node.get("_target_") != MODEL:
        raise ValueError(f"{folder}/config.yaml is not that of a run, its model has no _target_={MODEL}")
    model = build(node)
    assert isinstance(model, ModelConfig)
    return model


def read_earlier_records(folder: Path) -> dict[int, dict[str, Any]]:
    """Configs that ``accept_changes`` replaced, by the last step each was in force for."""
    paths = sorted(folder.glob("config_until_step_*.yaml"))
    return {int(path.stem.removeprefix("config_until_step_")): _read(path) for path in paths}


def keep_record(folder: Path, step: int) -> None:
    """Put by a copy of the config that was in force until ``step``, unless one is there, before another is written."""
    path = folder / f"config_until_step_{step:08d}.yaml"
    if not path.exists():  # else the later one was in force for no step that is left
        with atomic_write(path) as file:
            file.write((folder / "config.yaml").read_bytes())


def checkpoints_of(folder: Path, recorded: dict[str, Any]) -> Path:
    """Where the run in ``folder`` keeps its checkpoints: with it, also when it was moved, or where its config says."""
    beside = folder / "checkpoints"
    return beside if beside.is_dir() else Path(recorded["checkpoint"]["folder"])


def write_record(folder: Path, content: dict[str, Any]) -> None:
    with atomic_write(folder / "config.yaml") as file:
        file.write(OmegaConf.to_yaml(OmegaConf.create(content)).encode())


def played_again(recorded: dict[str, Any], folder: Path, *, alone: bool = False) -> dict[str, Any]:
    """The config of a run whose interventions lie in its past: in another folder, where callbacks write too, logging
    and evaluating nothing, the guard only watching; ``alone`` in one process. Top-level keys that are younger than the
    run have their defaults, where these leave its numbers alone.
    """
    defaults = {key: node for key, node in _read(CONF / "train.yaml").items() if key in NEUTRAL}
    quiet: dict[str, Any] = {"logger": {}, "evaluate_every_n_steps": None, "profiler": None}
    content = defaults | recorded | quiet | {"folder": str(folder)}
    content["checkpoint"] = recorded["checkpoint"] | {"folder": str(folder / "checkpoints")}
    content["callbacks"] = _moved(recorded["callbacks"], recorded["folder"], str(folder))
    if recorded["stability"] is not None:
        content["stability"] = recorded["stability"] | {"way": "watch"}
    if alone:
        content["trainer"] = recorded["trainer"] | {"devices": 1, "num_nodes": 1, "strategy": "auto"}
    return content


def _moved(node: Any, before: str, now: str) -> Any:
    """``node`` with the folder ``now`` wherever a path leads to that of ``before`` or into it."""
    if isinstance(node, dict):
        return {key: _moved(child, before, now) for key, child in node.items()}
    if isinstance(node, list):
        return [_moved(child, before, now) for child in node]
    leads_there = isinstance(node, str) and f"{node}/".startswith(f"{before}/")
    return now + node[len(before) :] if leads_there else node


def differences(recorded: dict[str, Any], content: dict[str, Any], *, free: tuple[str, ...] = FREE) -> list[str]:
    """One ``key: recorded -> now`` for each key that would change the run, which those of ``free`` do not."""
    return [f"{key}: {before} -> {now}" for key, before, now in different_keys(recorded, content, free=free)]


def different_keys(
    recorded: dict[str, Any], content: dict[str, Any], *, free: tuple[str, ...]
) -> list[tuple[str, Any, Any]]:
    """Each dotted key with its two values, ``absent`` where one config does not have it."""
    before, now = _flat(recorded), _flat(content)
    return [
        (key, before.get(key, "absent"), now.get(key, "absent"))
        for key in sorted(before.keys() | now.keys())
        if not _same(before.get(key), now.get(key)) and not is_one_of(key, free)
    ]


def has_same_data(recorded: dict[str, Any], content: dict[str, Any]) -> bool:
    """Whether both ask for the same prepared bytes."""
    return not any(is_one_of(key, DATA) for key, _, _ in different_keys(recorded, content, free=()))


def bound_differences(changes: list[str], *, before: ModelConfig, now: ModelConfig) -> list[str]:
    """Those of the differences that no ``accept_changes`` allows; the model's too where its weights would not fit."""
    shapes = [{name: weight.shape for name, weight in empty_weights(one).items()} for one in (before, now)]
    bound = BOUND if shapes[0] == shapes[1] else (*BOUND, "model")
    return [change for change in changes if is_one_of(change.split(":")[0], bound)]


def _same(one: Any, other: Any) -> bool:
    return bool(one == other) or str(one) == str(other)  # NaN is not equal to itself


def is_one_of(key: str, listed: tuple[str, ...]) -> bool:
    return key in listed or key.startswith(tuple(f"{parent}." for parent in listed))


def shared_keys(content: dict[str, Any]) -> dict[str, Any]:
    """The values, by their dotted keys, that every rank must be given alike."""
    return {key: value for key, value in _flat(content).items() if not is_one_of(key, OF_A_RANK)}


def _flat(node: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(node, dict):
        return {path: node}
    flat: dict[str, Any] = {}
    for key, child in node.items():
        flat |= _flat(child, f"{path}.{key}" if path else str(key))
    return flat

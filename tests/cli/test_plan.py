"""``mulligan plan`` as a user runs it, and its memory against that of a real run."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mulligan.model.transformer import Transformer
from tests.conftest import Cli, environment
from tests.model.test_config import NAMES, config_of

Plan = Callable[..., tuple[dict[str, Any], str]]
GPUS = ("trainer=fsdp", "trainer.devices=64", "global_batch_samples=512", "hardware=h100")
needs_proc = pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="no /proc tells of memory here")


@pytest.fixture
def plan(here: Cli) -> Plan:
    """Run the verb, and return what it wrote as JSON and what it printed."""

    def run(*overrides: str) -> tuple[dict[str, Any], str]:
        done = here("plan", *overrides, "output=plan.json")
        assert done.returncode == 0, done.stderr
        assert not Path("runs").exists()
        return json.loads(Path("plan.json").read_text()), done.stdout

    return run


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_those_of_the_built_model(name: str, plan: Plan) -> None:
    told, _ = plan(f"model={name}")
    with torch.device("meta"):
        model = Transformer(config_of(name))
    sizes = {named: parameter.numel() for named, parameter in model.named_parameters()}  # a shared one once
    assert told["parameters"] == {
        "all": sum(sizes.values()),
        "blocks": sum(size for named, size in sizes.items() if named.startswith("blocks.")),
        "embeddings": sum(size for named, size in sizes.items() if "embedding." in named),
        "head": sizes.get("head.weight", 0),
        "last norm": sum(size for named, size in sizes.items() if named.startswith("norm.")),
    }


@pytest.mark.parametrize(("every_n_steps", "share"), [(100, 0.0), (75, 0.25)], ids=["of snapshots", "of its own"])
def test_a_checkpoint_of_a_snapshot_needs_no_copy(every_n_steps: int, share: float, plan: Plan) -> None:
    told, _ = plan("trainer=cpu", "stability.snapshots.keep=4", f"checkpoint.every_n_steps={every_n_steps}")
    parts = told["memory"]["parts"]
    assert parts["copy of a checkpoint"] == share * parts["snapshots"]


def test_a_run_on_gpus_that_are_not_there(plan: Plan) -> None:
    keys = ("sequence_length=2048", "max_tokens_per_parameter=20", "price_per_hour=2.5")
    told, printed = plan("model=llama_1b", *GPUS, *keys)
    run, time = told["run"], told["time"]
    assert run["num_steps"] == -(-20 * 1_235_814_400 // (512 * 2048))
    assert (run["micro_batch"], run["accumulation"], run["precision"]) == (8, 1, "bf16-mixed")
    assert time["seconds"] == pytest.approx(run["flops"] / (64 * 989e12 * 0.4))
    assert time["cost"] == pytest.approx(2.5 * 64 * time["seconds"] / 3600)
    assert told["memory"]["fits"] is True
    ways = told["memory"]["ways"]
    assert ways["bf16-mixed"]["fsdp 64"] == pytest.approx(told["memory"]["rank_bytes"])
    assert ways["bf16-mixed, again"]["fsdp 32 x 2"] < ways["bf16-mixed"]["fsdp 64"]
    rows = {row["devices"]: row for row in told["scaling"]["same"]["global_batch"]}
    assert rows[64]["fsdp"]["tokens_per_second"] == pytest.approx(
        rows[64]["fsdp"]["efficiency"] * time["tokens_per_second"]
    )
    assert rows[4096]["fsdp"] is None, "512 samples"
    assert rows[4096]["fsdp x tp"]["tensor_parallel_size"] == 8
    assert told["scaling"]["network"] == {
        "devices_per_host": 8, "link_bandwidth": 450e9, "network_bandwidth": 50e9
    }  # fmt: skip
    storage = told["storage"]
    assert storage["checkpoint_bytes"] == 12 * 1_235_814_400
    assert storage["host_bytes"] == pytest.approx(4 * 12 * 1_235_814_400 / 64), "a checkpoint is written from one"
    assert "1,235,814,400" in printed
    assert "fits" in printed
    assert "Scaling at this global batch" in printed


def test_float8_on_gpus_that_are_not_there_is_planned_as_without(plan: Plan) -> None:
    with_float8, without = (plan("model=llama_1b", *GPUS, *keys)[0] for keys in (["float8=rowwise"], []))
    assert with_float8 == without


def test_what_does_not_fit(plan: Plan) -> None:
    told, printed = plan("model=llama_8b", "trainer=ddp", "trainer.devices=8", "hardware=a100")
    assert told["memory"]["fits"] is False
    assert told["storage"]["refused"].startswith("stability.snapshots.keep=4 states of 96.36 GB are more than")
    assert "does not fit" in printed
    assert "`mulligan train` will refuse" in printed


@pytest.mark.parametrize(
    ("given", "params", "tokens"),
    [
        (("params=70e9", "tokens=15e12"), 70e9, 15e12),
        (("flops=6.3e24", "params=70e9"), 70e9, 15e12),
        (("hours=720", "hardware=h100", "trainer.devices=1024", "tokens=1e12"), 175e9, 1e12),
    ],
)
def test_a_budget_fills_in_the_rest(given: tuple[str, ...], params: float, tokens: float, plan: Plan) -> None:
    told, _ = plan(*given)
    assert told["budget"]["params"] == pytest.approx(params, rel=0.001)
    assert told["budget"]["tokens"] == pytest.approx(tokens)
    assert "memory" not in told
    if "hours=720" in given:
        assert told["time"]["seconds"] == pytest.approx(720 * 3600)


def measured(folder: Path, *overrides: str, timeout: float) -> float:
    """The most memory that a process held which trained."""
    command = [sys.executable, "-m", "tests.cli.train_and_measure", "peak", *overrides, "logger=none"]
    root = str(Path(__file__).parents[2])
    variables = environment() | {"PYTHONPATH": f"{root}/src:{root}"}
    subprocess.run(command, cwd=folder, env=variables, check=True, timeout=timeout, stdout=subprocess.DEVNULL)
    return float((folder / "peak").read_text())


def told_of_process(mulligan: Cli, folder: Path, *overrides: str) -> float:
    done = mulligan("plan", *overrides, "output=plan.json")
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "plan.json").read_text())["memory"]["rank_bytes"]


@needs_proc
@pytest.mark.slow
def test_memory_is_that_of_a_short_run(tiny: tuple[str, ...], mulligan: Cli, tmp_path: Path) -> None:
    keys = (
        *tiny,
        "model.width=128",
        "model.feedforward_width=512",
        "model.num_layers=4",
        "global_batch_samples=64",
        "max_steps=3",
    )
    assert told_of_process(mulligan, tmp_path, *keys) == pytest.approx(measured(tmp_path, *keys, timeout=120), rel=0.15)


# The default run with its copies, which it has after 250 steps, after 20.
EARLY = (
    "max_steps=30", "checkpoint.every_n_steps=20", "stability.snapshots.every_n_steps=5",
    "stability.policy.depth_steps=10",
)  # fmt: skip


@needs_proc
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "keys", [("experiment=smoke",), ("experiment=heal_demo",), EARLY], ids=["smoke", "heal_demo", "default"]
)
def test_memory_is_that_of_the_cpus_experiments(
    keys: tuple[str, ...], prepared: Path, mulligan: Cli, tmp_path: Path
) -> None:
    keys = (*keys, f"data.folder={prepared}")
    vocabulary = ("tokenizer.vocab_size=512",) if "experiment=heal_demo" in keys else ()
    # Apart: training a tokenizer takes memory of its own.
    assert mulligan("prepare", *vocabulary, f"data.folder={prepared}", timeout=300.0).returncode == 0
    assert told_of_process(mulligan, tmp_path, *keys) == pytest.approx(measured(tmp_path, *keys, timeout=800), rel=0.15)

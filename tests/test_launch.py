"""The launch files: what they hand on, that their formats are right, and their command lines run."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.conftest import environment

LAUNCH = Path(__file__).parents[1] / "launch"
NO_HYPER_PARAMETERS = {"trainer", "name"}  # the groups that a launch file may set


def on_path() -> dict[str, str]:
    """An environment in which `mulligan` and the tools are those of this Python."""
    return environment() | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def job() -> dict[str, Any]:
    _, content = yaml.safe_load_all((LAUNCH / "kubernetes.yaml").read_text())
    return content


def container() -> dict[str, Any]:
    (one,) = job()["spec"]["template"]["spec"]["containers"]
    return one


def task() -> dict[str, Any]:
    return yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())


def keys_of(words: list[str]) -> dict[str, str]:
    return dict(word.split("=", 1) for word in words)


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


def test_a_container_gets_the_environment_of_the_other_launchers(tmp_path: Path) -> None:
    variables = {"PATH": os.environ["PATH"], "ENGINE": "echo", "OMP_NUM_THREADS": "3", "IMAGE": "boxed"}
    script = [str(LAUNCH / "docker.sh"), "train", "name=x"]
    said = subprocess.run(script, cwd=tmp_path, env=variables, capture_output=True, text=True, check=True).stdout
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "GLIBC_TUNABLES", "OMP_NUM_THREADS"):
        assert f"--env {name} " in said
    assert said.endswith(" boxed train name=x\n")


@pytest.mark.parametrize("file", ["*.sh", "slurm.sbatch", "skypilot.yaml setup", "skypilot.yaml run"])
def test_the_shell_is_sound(file: str, tmp_path: Path) -> None:
    name, _, block = file.partition(" ")
    scripts = sorted(LAUNCH.glob(name))
    if block:
        scripts = [tmp_path / "block.sh"]
        scripts[0].write_text("#!/bin/bash\n" + task()[block])
    assert scripts
    command = ["shellcheck", "--external-sources", "--source-path", str(LAUNCH.parent), *map(str, scripts)]
    done = subprocess.run(command, env=on_path(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("version", ["1.31", kubernetes_validate.latest_version()])  # the first with all it uses
def test_kubernetes_takes_the_objects(version: str) -> None:
    for content in yaml.safe_load_all((LAUNCH / "kubernetes.yaml").read_text()):
        kubernetes_validate.validate(content, version, strict=True)
    wrong = job()
    wrong["spec"]["podFailurPolicy"] = wrong["spec"].pop("podFailurePolicy")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, version, strict=True)


def test_the_parts_of_the_kubernetes_job_agree() -> None:
    service, content = yaml.safe_load_all((LAUNCH / "kubernetes.yaml").read_text())
    spec, pod = content["spec"], content["spec"]["template"]["spec"]
    verb, *words = container()["args"]
    keys = keys_of(words)
    assert verb == "train"
    assert {key.split(".")[0] for key in keys} <= NO_HYPER_PARAMETERS
    assert spec["completions"] == spec["parallelism"] == int(keys["trainer.num_nodes"])
    assert container()["resources"]["limits"]["nvidia.com/gpu"] == int(keys["trainer.devices"])
    name = service["metadata"]["name"]
    assert pod["subdomain"] == name
    assert service["spec"]["selector"] == {"job-name": content["metadata"]["name"]}
    values = {one["name"]: one.get("value") for one in container()["env"]}
    assert values["MASTER_ADDR"] == f"{content['metadata']['name']}-0.{name}"
    dockerfile = (LAUNCH.parent / "Dockerfile").read_text()
    assert f"useradd --uid {pod['securityContext']['runAsUser']} " in dockerfile
    assert 'ENTRYPOINT ["mulligan"]' in dockerfile


def test_what_skypilot_is_given() -> None:
    """Its schema lies in a package too heavy to be had for this: the keys are those of its documentation."""
    known = {"name", "workdir", "num_nodes", "resources", "envs", "file_mounts", "setup", "run"}
    assert set(task()) == known
    assert set(task()["resources"]) == {"accelerators", "use_spot", "job_recovery"}
    assert set(task()["resources"]["job_recovery"]) == {"recover_on_exit_codes"}
    assert {key.split(".")[0] for key in keys_of(task()["envs"]["ARGS"].split())} <= NO_HYPER_PARAMETERS


@pytest.mark.slow
def test_the_pods_train_together(tiny: tuple[str, ...], tmp_path: Path) -> None:
    """Their own arguments and environment, but for what is the cluster's: addresses, GPUs."""
    command = [sys.executable, "-m", "mulligan", *container()["args"], *tiny, "trainer=cpu_ddp", "trainer.devices=1"]
    values = {one["name"]: one.get("value", "") for one in container()["env"]} | {"MASTER_ADDR": "127.0.0.1"}
    assert "NODE_RANK" in values
    pods = [
        subprocess.Popen(
            command, cwd=tmp_path, env=environment() | values | {"NODE_RANK": str(index)}, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )
        for index in range(job()["spec"]["completions"])
    ]  # fmt: skip
    try:
        said = [pod.communicate(timeout=120)[0] for pod in pods]
    finally:
        for pod in pods:
            pod.kill()
            pod.wait()
    assert [pod.returncode for pod in pods] == [0, 0], said
    assert said[1] == "", "index 0 alone says what the run does"
    assert json.loads((tmp_path / "runs/big/summary.json").read_text())["world_size"] == 2


@pytest.mark.slow
def test_the_run_of_skypilot_trains(tiny: tuple[str, ...], tmp_path: Path) -> None:
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    (mounted,) = task()["file_mounts"]
    script = task()["run"].replace(f"cd {mounted}\n", f"cd {bucket}\n")
    assert str(bucket) in script
    given = {
        "ARGS": " ".join(("name=sky", *tiny, "trainer=cpu")),
        "SKYPILOT_NODE_IPS": "127.0.0.1\n",
        "SKYPILOT_NODE_RANK": "0",
        "SKYPILOT_NUM_NODES": "1",
        "SKYPILOT_NUM_GPUS_PER_NODE": "1",
    }
    done = subprocess.run(
        ["bash", "-c", script], cwd=LAUNCH.parent, env=on_path() | given, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((bucket / "runs/sky/summary.json").read_text())["name"] == "sky"

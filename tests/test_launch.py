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
BOXED = {"ENGINE": "echo", "IMAGE": "boxed"}
NO_HYPER_PARAMETERS = {"trainer", "name"}  # the groups that a launch file may set


def on_path() -> dict[str, str]:
    """An environment in which `mulligan` and the tools are those of this Python."""
    return environment() | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def program(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def ended(*command: str | Path, cwd: Path | None = None, **values: str) -> "subprocess.CompletedProcess[str]":
    """A script's end in an environment of nothing but ``values``."""
    return subprocess.run(
        command, cwd=cwd, env={"PATH": os.environ["PATH"]} | values, capture_output=True, text=True, check=False
    )


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
    program(tmp_path / ".venv/bin/torchrun", 'echo "$@"')
    said = ended(tmp_path / "launch/torchrun.sh", "name=x", **settings).stdout.split()
    assert f"--max-restarts={restarts}" in said
    assert said[-4:] == ["-m", "mulligan", "train", "name=x"]


@pytest.mark.parametrize("script", ["local.sh", "torchrun.sh", "docker.sh"])
def test_a_script_finds_its_checkout_through_a_link_and_under_cdpath(script: str, tmp_path: Path) -> None:
    shutil.copytree(LAUNCH, tmp_path / "launch")
    for name in ("mulligan", "torchrun"):
        program(tmp_path / f".venv/bin/{name}", 'echo "$OMP_WAIT_POLICY"')
    (tmp_path / "linked").symlink_to(f"launch/{script}")
    for path in (f"launch/{script}", "./linked"):
        said = ended(path, "train", cwd=tmp_path, CDPATH=str(tmp_path), ENGINE=str(tmp_path / ".venv/bin/mulligan"))
        assert said.stdout == "PASSIVE\n"


def test_a_container_gets_the_environment_of_the_other_launchers(tmp_path: Path) -> None:
    said = ended(LAUNCH / "docker.sh", "train", "name=x", cwd=tmp_path, **BOXED, OMP_NUM_THREADS="3").stdout
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "GLIBC_TUNABLES", "OMP_NUM_THREADS"):
        assert f"--env {name} " in said
    assert " --stop-timeout 300 " in said, "docker stop would kill before a step is saved"
    assert said.endswith(" boxed train name=x\n")


def test_a_container_gets_no_path_of_this_machine(tmp_path: Path) -> None:
    places = ("HF_HOME", "HF_HUB_CACHE", "HF_TOKEN_PATH", "WANDB_DIR", "WANDB_CACHE_DIR", "NCCL_TOPO_FILE")
    values = dict.fromkeys((*places, "HF_TOKEN", "WANDB_PROJECT"), "/a")
    said = ended(LAUNCH / "docker.sh", "train", cwd=tmp_path, **BOXED, **values).stdout
    assert [name for name in values if f"--env {name} " in said] == ["HF_TOKEN", "WANDB_PROJECT"]


@pytest.mark.parametrize(
    ("settings", "given"),
    [
        ({}, "--gpus all "),
        ({"CUDA_VISIBLE_DEVICES": "1,3"}, '--gpus "device=1,3" '),
        ({"CUDA_VISIBLE_DEVICES": ""}, None),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, None),
        ({"CUDA_VISIBLE_DEVICES": "1", "GPUS": "2"}, "--gpus 2 "),
        ({"GPUS": "none"}, None),
    ],
)
def test_a_container_gets_the_gpus_that_are_visible(
    settings: dict[str, str], given: str | None, tmp_path: Path
) -> None:
    program(tmp_path / "bin/nvidia-smi", "exit 0")
    path = f"{tmp_path}/bin:{os.environ['PATH']}"
    said = ended(LAUNCH / "docker.sh", "train", cwd=tmp_path, **BOXED, **settings | {"PATH": path}).stdout
    assert given in said if given else "--gpus" not in said


def submitted(script: Path, **settings: str) -> "subprocess.CompletedProcess[str]":
    """What a job says that SLURM tells to have been submitted as ``script``; its tasks were told to stop."""
    folder = script.parent / "bin"
    for name, text in (("squeue", f"echo {script} name=x"), ("srun", "exit 143"), ("scontrol", 'echo "$@"')):
        program(folder / name, text)
    values = {"SLURM_JOB_ID": "5", "SLURM_NNODES": "1", "SLURM_NTASKS_PER_NODE": "1", "SLURM_SUBMIT_DIR": "/"}
    path = f"{folder}:{os.environ['PATH']}"
    return ended("bash", str(LAUNCH / "slurm.sbatch"), **values | settings | {"PATH": path})


@pytest.mark.parametrize(
    ("array", "job"), [({}, "5"), ({"SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "3"}, "5_3")]
)
def test_slurm_requeues_the_one_task_of_an_array(array: dict[str, str], job: str, tmp_path: Path) -> None:
    shutil.copytree(LAUNCH, tmp_path / "launch")
    assert submitted(tmp_path / "launch/slurm.sbatch", **array).stdout == f"requeue {job}\n"


@pytest.mark.parametrize(
    ("name", "below"), [("SLURM_SUBMIT_DIR", ""), ("SLURM_SUBMIT_DIR", "launch"), ("MULLIGAN_ROOT", "")]
)
def test_a_copy_of_the_batch_file_finds_the_checkout(name: str, below: str, tmp_path: Path) -> None:
    shutil.copytree(LAUNCH, tmp_path / "launch")
    assert submitted(tmp_path / "mine.sbatch", **{name: str(tmp_path / below)}).stdout == "requeue 5\n"


def test_a_copy_of_the_batch_file_without_a_checkout_is_one_line(tmp_path: Path) -> None:
    said = submitted(tmp_path / "mine.sbatch")
    assert said.returncode == 2
    assert said.stderr == (
        f"slurm.sbatch: neither {tmp_path}/mine.sbatch nor / lies in a checkout: set MULLIGAN_ROOT to its folder\n"
    )


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

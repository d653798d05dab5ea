"""torchrun on two hosts, which are network namespaces joined by a switch: a host dies, a cable is pulled."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import Cli, environment

TORCHRUN = Path(__file__).parents[1] / "launch/torchrun.sh"
OPTIONS = ("max_steps=600", "log_every_n_steps=20", "validate_every_n_steps=200", "checkpoint.every_n_steps=100")
TIMEOUT = 10.0  # seconds a rank waits for the other
# A host has its own name, known to both: it is how the agents of torchrun tell each other where they are.
AS_HOST = 'mount --bind "$HOSTS" /etc/hosts && hostname "$0" && exec "$@"'


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], capture_output=True, text=True, timeout=20, check=True).stdout


class Network:
    """Two hosts and their switch; 198.51.100.0/24 is for documentation, so it leads nowhere else."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.prefix = folder, f"mulligan{os.getpid()}"
        self.agents: list[subprocess.Popen[bytes]] = []

    def make(self) -> None:
        known = [Path("/etc/hosts").read_text(), "198.51.100.1 host0", "198.51.100.2 host1"]
        (self.folder / "hosts").write_text("\n".join(known) + "\n")
        ip("netns", "add", self.switch)
        ip("-n", self.switch, "link", "add", "bridge", "up", "type", "bridge")
        for host in (0, 1):
            name = self.name(host)
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "add", "eth0", "up", "type", "veth", "peer", f"port{host}", "netns", self.switch)
            ip("-n", name, "address", "add", f"198.51.100.{host + 1}/24", "dev", "eth0")
            ip("-n", self.switch, "link", "set", f"port{host}", "master", "bridge", "up")

    @property
    def switch(self) -> str:
        return f"{self.prefix}-switch"

    def name(self, host: int) -> str:
        return f"{self.prefix}-{host}"

    def log(self, host: int) -> str:
        return (self.folder / f"host{host}.log").read_text(errors="replace")

    def start(self, host: int, settings: dict[str, str], *overrides: str) -> subprocess.Popen[bytes]:
        """launch/torchrun.sh on ``host``, with one rank there."""
        values = environment() | {
            "HOSTS": str(self.folder / "hosts"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "NNODES": "2",
            "NPROC_PER_NODE": "1",
            "RDZV_ENDPOINT": "198.51.100.1:29400",
            "GLOO_SOCKET_IFNAME": "eth0",
        }
        inside = ["ip", "netns", "exec", self.name(host), "unshare", "--mount", "--uts", "bash", "-c", AS_HOST]
        keys = ("trainer=cpu_ddp", "trainer.devices=1", "trainer.num_nodes=2", *overrides)
        with (self.folder / f"host{host}.log").open("ab") as log:
            agent = subprocess.Popen(
                [*inside, f"host{host}", str(TORCHRUN), *keys], cwd=self.folder, env=values | settings,
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        self.agents.append(agent)
        return agent

    def wait_for(self, what: Callable[[], bool], seconds: float) -> float:
        """The seconds it took."""
        begun = time.monotonic()
        while not what():
            assert time.monotonic() - begun < seconds, self.log(0) + self.log(1)
            time.sleep(0.1)
        return time.monotonic() - begun

    def kill(self, host: int) -> None:
        """The machine dies."""
        for number in ip("netns", "pids", self.name(host)).split():
            with suppress(ProcessLookupError):
                os.kill(int(number), signal.SIGKILL)

    def cut(self, host: int) -> None:
        """Its cable is pulled at the switch: the host itself is told nothing but that."""
        ip("-n", self.switch, "link", "set", f"port{host}", "down")

    def remove(self) -> None:
        for host in (0, 1):
            with suppress(subprocess.CalledProcessError):
                self.kill(host)
        for agent in self.agents:
            agent.wait(timeout=20)
        for name in (self.name(0), self.name(1), self.switch):
            with suppress(subprocess.CalledProcessError):
                ip("netns", "del", name)


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and the command ip")
    network = Network(tmp_path)
    try:
        try:
            network.make()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces are refused here: {error.stderr.strip()}")
        yield network
    finally:
        network.remove()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_host_that_died_is_replaced_and_the_bits_are_the_same(
    network: Network, mulligan: Cli, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    assert mulligan("train", *tiny, *OPTIONS, "trainer=cpu_ddp", "name=whole").returncode == 0
    keys = (*tiny, *OPTIONS, "name=replaced")
    first = network.start(0, {}, *keys)
    network.start(1, {}, *keys)
    network.wait_for(lambda: "step 220/" in network.log(0), 120)
    network.kill(1)
    second = network.start(1, {}, *keys)
    network.wait_for(lambda: "going on from step 200" in network.log(0), 120)
    network.wait_for(lambda: None not in (first.poll(), second.poll()), 120)
    assert (first.returncode, second.returncode) == (0, 0), network.log(0) + network.log(1)
    hashes = [
        json.loads((tmp_path / f"runs/{name}/summary.json").read_text())["weights_sha256"]
        for name in ("whole", "replaced")
    ]
    assert hashes[0] == hashes[1]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("tcp_retries", [15, 4])
def test_ranks_whose_link_is_cut_say_so_in_time(network: Network, tiny: tuple[str, ...], tcp_retries: int) -> None:
    """15 is Linux's. With it the agent that does not keep the rendezvous asks the lost store for a quarter of an hour;
    with 4 it ends, and the ranks themselves see the link as lost before they have waited for each other so long.
    """
    keys = (*tiny, *OPTIONS, "max_steps=6000", f"trainer.strategy.timeout_seconds={TIMEOUT}")
    for host in (0, 1):
        ip("netns", "exec", network.name(host), "sysctl", "--write", f"net.ipv4.tcp_retries2={tcp_retries}")
    first, second = (network.start(host, {"MAX_RESTARTS": "0"}, *keys) for host in (0, 1))
    network.wait_for(lambda: "step 220/" in network.log(0), 120)
    network.cut(1)
    lost = "answered for trainer.strategy.timeout_seconds: " + ("Timed out" if tcp_retries == 15 else "")
    waited = network.wait_for(lambda: lost in network.log(0) and lost in network.log(1), 60)
    assert (TIMEOUT - 2 if tcp_retries == 15 else 0) < waited < TIMEOUT + 10
    agents = [first] if tcp_retries == 15 else [first, second]
    ended = network.wait_for(lambda: None not in [agent.poll() for agent in agents], 60)
    print(f"with {tcp_retries}: the ranks {waited:.0f} s after the cut, the agents {ended:.0f} s after them")
    assert "exitcode  : 75" in network.log(0)
    assert tcp_retries == 15 or "RendezvousConnectionError" in network.log(1)
    for host in (0, 1):
        said = [line for line in network.log(host).splitlines() if line.startswith("mulligan train")]
        assert len(said) == 1
    assert "File" not in network.log(0).split(lost)[0], "a traceback came before the line"

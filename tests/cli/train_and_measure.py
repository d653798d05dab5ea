"""Started by tests/cli/test_plan.py: train in this process, and write the most memory that it held, in bytes."""

import sys
from pathlib import Path

from hydra import compose, initialize_config_dir

from mulligan.cli.compose import CONF, build, plain
from mulligan.cli.train import quiet_lightning


def main(output: str, *overrides: str) -> None:
    quiet_lightning()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        run = build(plain(compose("train", overrides=list(overrides))))
    run.train(lambda *_: None, print)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    Path(output).write_text(str(1024 * int(status["VmHWM"].split()[0])))


if __name__ == "__main__":
    main(*sys.argv[1:])

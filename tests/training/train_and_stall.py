"""A program for test_checkpoint_io: train, while one rank takes so many seconds to write the checkpoint of a step."""

import sys
import time
from typing import Any

from hydra import compose, initialize_config_dir

from mulligan.cli.compose import CONF, build, plain
from mulligan.distributed import rank
from mulligan.files import HashingWriter


def main() -> None:
    stalled_rank, step, seconds, *overrides = sys.argv[1:]
    write, done = HashingWriter.write, []

    def stall(self: HashingWriter, chunk: Any) -> int:
        if f"step_{int(step):08d}" in self._file.name and rank() == int(stalled_rank) and self.num_bytes and not done:
            print("stalled", flush=True)
            self._file.flush()
            time.sleep(float(seconds))
            done.append(step)
        return write(self, chunk)

    HashingWriter.write = stall  # type: ignore[method-assign]  # stands for a slow disk
    with initialize_config_dir(str(CONF), version_base="1.3"):
        run = build(plain(compose("train", overrides=overrides)))
    run.train(lambda *_: None, lambda *_: None)


if __name__ == "__main__":
    main()

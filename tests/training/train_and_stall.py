"""A program for test_checkpoint_io: train, while one rank never ends to write the checkpoint of a step."""

import sys
import time
from typing import Any

from hydra import compose, initialize_config_dir

from mulligan.cli.compose import CONF, build, plain
from mulligan.distributed import rank
from mulligan.files import HashingWriter


def main() -> None:
    stalled_rank, step, *overrides = sys.argv[1:]
    write = HashingWriter.write

    def stall(self: HashingWriter, chunk: Any) -> int:
        if f"step_{int(step):08d}" in self._file.name and rank() == int(stalled_rank) and self.num_bytes:
            print("stalled", flush=True)
            self._file.flush()
            time.sleep(600)
        return write(self, chunk)

    HashingWriter.write = stall  # type: ignore[method-assign]  # stands for a slow disk
    with initialize_config_dir(str(CONF), version_base="1.3"):
        run = build(plain(compose("train", overrides=overrides)))
    run.train(lambda *_: None, lambda *_: None)


if __name__ == "__main__":
    main()

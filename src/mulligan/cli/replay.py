"""``mulligan replay run=runs/NAME``: train again with the ledger in force from the start. Are the bits the same?"""

import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from omegaconf import DictConfig

from mulligan.cli.compose import build, plain
from mulligan.cli.console import Reporter
from mulligan.cli.provenance import begun_with, overwritten
from mulligan.cli.record import (
    BY_BYTES,
    NEUTRAL,
    check_is_of_a_run,
    checkpoints_of,
    differences,
    played_again,
    read_earlier_records,
    read_record,
)
from mulligan.cli.recorded_data import on_recorded_data
from mulligan.cli.train import quiet_lightning
from mulligan.files import sha256_file
from mulligan.launcher import is_launched_rank_zero
from mulligan.stability.ledger import Ledger
from mulligan.training.replay import CompareCheckpoints, SameData, StopAfter
from mulligan.training.run import TrainingRun

DIFFERS = 1
FAULTS = "mulligan.training.faults."  # what a drill did to the run; the ledger has healed it


class Replay:
    """The schema of conf/replay.yaml."""

    def __init__(self, *, run: str) -> None:
        self.folder = Path(run)
        recorded = read_record(self.folder)
        if recorded is None:
            raise ValueError(f"run={run}: no run is there (no config.yaml); give a folder such as runs/default")
        check_is_of_a_run(recorded, self.folder)
        for step, earlier in read_earlier_records(self.folder).items():
            if changes := differences(earlier, recorded, free=(*NEUTRAL, *BY_BYTES)):
                raise ValueError(
                    f"run={run}: its config was changed after step {step}, and one run cannot be played under two. "
                    f"Different: {'; '.join(changes)}"
                )
        self.recorded = recorded
        self.ledger = Ledger(self.folder / "ledger.jsonl", writes=False)
        self.comparison = CompareCheckpoints(checkpoints_of(self.folder, recorded), self.ledger)

    def again(self, folder: Path) -> TrainingRun:
        """The run as it was recorded, in ``folder``: rewinds are in its past, and nothing is logged."""
        content = played_again(self.recorded, folder)
        callbacks = {
            name: node
            for name, node in content["callbacks"].items()
            if node is None or not node["_target_"].startswith(FAULTS)
        }
        # What a guard did is in the ledger. Another one may stand in the config by now, or none.
        content |= {"callbacks": callbacks, "stability": None}
        if self.ledger.path.is_file():
            shutil.copy(self.ledger.path, folder)
        run: TrainingRun = build(on_recorded_data(content, self.folder))
        weights = None if run.initial_weights is None else sha256_file(run.initial_weights.weights_path)
        if other := overwritten(weights, begun_with(self.folder)):
            raise ValueError(f"run={self.folder}: {other}: bring those back to play it again")
        run.trainer.strategy.checkpoint_io = self.comparison
        run.callbacks.extend([SameData(self.comparison.data_fingerprint), StopAfter(self.comparison.steps[-1])])
        return run


def work(config: DictConfig) -> None:
    quiet_lightning()
    replay: Replay = build(plain(config))
    speaks, comparison = is_launched_rank_zero(), replay.comparison
    if speaks:
        print(
            f"replaying {replay.folder} to step {comparison.steps[-1]:,}, with "
            f"{len(replay.ledger.lines)} intervention(s) in force from the start",
            flush=True,
        )
    with TemporaryDirectory() as folder:
        replay.again(Path(folder)).train(
            Reporter(speaks=speaks), warn=lambda text: print(text, flush=True) if speaks else None
        )
    if not speaks:
        return
    same = ", ".join(f"{step:,}" for step in comparison.same)
    if comparison.difference is None:
        print(f"bit-identical: weights and moments at step {same}")
        return
    print(f"differs at {comparison.difference}" + (f"; bit-identical at step {same}" if same else ""))
    sys.exit(DIFFERS)

"""The LightningDataModule: prepared data on rank 0, then the rank's own loaders."""

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from mulligan.data.loader import Loader, MicroBatches
from mulligan.data.order import order_of
from mulligan.data.prepared import PreparedData, Report, Say
from mulligan.data.shards import Shards
from mulligan.data.tokenizer import tokenizer_in
from mulligan.distributed import data_parallel
from mulligan.files import read_json
from mulligan.stability.ledger import Ledger
from mulligan.training.agreement import check_agreement


class ShardsDataModule(LightningDataModule):
    def __init__(
        self,
        *,
        data: PreparedData,
        sequence_length: int,
        global_batch: int,
        micro_batch: int,
        validation_samples: int,
        tensor_parallel_size: int,
        seed: int,
        ledger: Ledger,
        report: Report,
        say: Say,
        also_on_rank_zero: Callable[[], None],
        decided: dict[str, Any],
    ) -> None:
        """``also_on_rank_zero`` is called when the data is prepared, while other ranks wait. ``decided`` is what every
        rank must have come to alike, besides the data.
        """
        super().__init__()
        self.prepare_data_per_node = False  # hosts share their storage; one of them prepares
        self.data, self.sequence_length, self.seed, self.ledger = data, sequence_length, seed, ledger
        self.global_batch, self.micro_batch = global_batch, micro_batch
        self.validation_samples, self.report, self.say = validation_samples, report, say
        self.tensor_parallel_size = tensor_parallel_size
        self.also_on_rank_zero, self.decided = also_on_rank_zero, decided

    def __deepcopy__(self, memo: dict[int, Any]) -> "ShardsDataModule":
        """The same: a callback that copies the module, which asks this one, would copy the trainer and all it holds."""
        return self

    def prepare_data(self) -> None:
        self.data.prepare(self.report, self.say)
        self.also_on_rank_zero()

    def setup(self, stage: str) -> None:
        manifest = self.data.folder / "manifest.json"
        seen = read_json(manifest, "fingerprint")["fingerprint"] if manifest.is_file() else None
        check_agreement(self.decided | {f"the fingerprint in {manifest}": seen})
        self.shards = Shards(self.data.folder, "train", self.sequence_length)
        self.held_out = Shards(self.data.folder, "validation", self.sequence_length)
        self.tokenizer = tokenizer_in(self.data.folder)
        for shards in (self.shards, self.held_out):
            if not sum(shards.windows_by_source().values()):
                fraction = shards.manifest["request"]["validation_fraction"]
                raise ValueError(
                    f"sequence_length={self.sequence_length} is longer than every {shards.split} shard of "
                    f"{self.data.folder}, {shards.num_tokens} tokens in all; "
                    f"make it shorter, or change data.validation_fraction={fraction}"
                )
        self.sequencer = order_of(self.shards, weights=self.data.weights, seed=self.seed, skips=self.ledger.skips)

    def train_dataloader(self) -> Loader:
        trainer, (reader, num_readers) = self._trainer(), data_parallel(self.tensor_parallel_size)
        batches = MicroBatches(
            shards=self.shards,
            sequencer=self.sequencer,
            global_batch=self.global_batch,
            micro_batch=self.micro_batch,
            rank=reader,
            world_size=num_readers,
            document_mask=self.data.document_mask,
        )
        return Loader(
            batches,
            next_step=lambda: trainer.global_step,
            num_workers=self.data.loader_workers,
            pin_memory=trainer.strategy.root_device.type == "cuda",
        )

    def val_dataloader(self) -> DataLoader[Tensor]:
        count = min(self.validation_samples, sum(self.held_out.windows_by_source().values()))
        reader, num_readers = data_parallel(self.tensor_parallel_size)
        mine, most = range(reader, count, num_readers), len(range(0, count, num_readers))
        # As many batches on every rank, the last may be empty: sharded models meet in each forward pass.
        batches = [mine[start : start + self.micro_batch] for start in range(0, most, self.micro_batch)]
        return DataLoader(_Windows(self.held_out), sampler=batches, batch_size=None)

    def held_out_shards(self, max_bytes: int | None) -> Shards:
        return Shards(self.data.folder, "validation", self.sequence_length, max_bytes=max_bytes)

    def fingerprint(self) -> str:
        return str(self.shards.manifest["fingerprint"])

    def begin_id(self) -> int:
        return self.tokenizer.begin_id

    def token_bytes(self) -> Tensor:
        """UTF-8 bytes that each token stands for, (V,)."""
        return torch.from_numpy(self.tokenizer.token_bytes())

    def _trainer(self) -> Any:
        assert self.trainer is not None
        return self.trainer


class _Windows(torch.utils.data.Dataset[Tensor]):
    """Held-out windows by their numbers."""

    def __init__(self, shards: Shards) -> None:
        self.shards = shards

    def __getitem__(self, numbers: range) -> Tensor:
        tokens = torch.empty((len(numbers), self.shards.sequence_length + 1), dtype=torch.int64)
        self.shards.read(torch.as_tensor(numbers).numpy(), tokens.numpy())
        return tokens

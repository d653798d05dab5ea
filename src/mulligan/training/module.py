"""The LightningModule: one global batch's gradient, whatever the ranks and the accumulation.

Shapes: B samples of a micro-batch, T positions, D width, V vocabulary.
"""

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.optim.lr_scheduler import LambdaLR

from mulligan.data.loader import MicroBatch
from mulligan.distributed import all_reduce_sum, data_parallel
from mulligan.model.config import ModelConfig
from mulligan.model.folder import ModelFolder
from mulligan.model.linears import Linears
from mulligan.model.parallel_plan import split_blocks
from mulligan.model.transformer import Transformer
from mulligan.objective.linear_cross_entropy import Terms
from mulligan.objective.next_token import NextToken, targets_within_documents
from mulligan.stability.ledger import Ledger
from mulligan.training.clipping import Clipping
from mulligan.training.hardware import generator_of
from mulligan.training.lean_loop import LeanModule
from mulligan.training.loss_scale import LossScale
from mulligan.training.optimizers import OptimizerRecipe
from mulligan.training.resuming import check_shapes, hold_settings, rescale_batch_progress, take_loss_scale, take_recipe
from mulligan.training.schedules import LearningRateSchedule
from mulligan.training.step_sums import StepSums, StepValues

SENT_AS = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


class PretrainModule(LeanModule):
    """Next-token training. The loss of a micro-batch is its sum over the counted targets of the *global* batch, so that
    the gradients of all micro-batches and ranks add up to that of the global mean.
    """

    token_bytes_V: Tensor

    def __init__(
        self,
        *,
        model: ModelConfig,
        initial_weights: ModelFolder | None,
        float8: Linears | None,
        objective: NextToken,
        optimizer: OptimizerRecipe,
        schedule: LearningRateSchedule,
        num_steps: int,
        accumulation: int,
        tensor_parallel_size: int,
        seed: int,
        begin_id: Callable[[], int],
        document_mask: bool,
        compile_model: bool,
        checkpoints_activations: bool,
        loss_scale: LossScale | None,
        token_bytes: Callable[[], Tensor],
        data_fingerprint: Callable[[], str],
        ledger: Ledger,
    ) -> None:
        super().__init__()
        self.model_config, self.initial_weights, self.float8 = model, initial_weights, float8
        self.objective = objective
        self.optimizer_recipe, self.schedule, self.num_steps = optimizer, schedule, num_steps
        self.accumulation, self.tensor_parallel_size, self.seed = accumulation, tensor_parallel_size, seed
        self.begin_id, self.document_mask = begin_id, document_mask
        self.compile_model, self.checkpoints_activations = compile_model, checkpoints_activations
        self.token_bytes, self.data_fingerprint = token_bytes, data_fingerprint
        self.ledger = ledger
        # DDP adds its gradient up with the others: the loss of all ranks, and no collective more.
        self.carried_2 = torch.nn.Parameter(torch.zeros(2))
        self.loss_scale = loss_scale
        self.sums, self.clipping = StepSums(tensor_parallel_size), Clipping(optimizer.clip_norm, loss_scale)
        self.model: Transformer | None = None
        self.validation_sums: Tensor | None = None
        self.change_of_rate: str | None = None  # what to say of it where the run goes on

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        """What Lightning's bf16-true does to every weight would round the loss that DDP carries."""
        super()._apply(*args, **kwargs)
        self.carried_2.data = self.carried_2.data.float()
        return self

    @cached_property
    def data_parallel_rank(self) -> int:
        return data_parallel(self.tensor_parallel_size)[0]

    @cached_property
    def data_parallel_size(self) -> int:
        return data_parallel(self.tensor_parallel_size)[1]

    @property
    def attempt(self) -> int:
        """The number of the last update among all ever tried, which rewinds do not turn back."""
        return self.attempt_of(self.global_step)

    def attempt_of(self, step: int) -> int:
        return step + self.ledger.lost_before(step)

    def configure_model(self) -> None:
        if self.model is not None:
            return
        with torch.device("meta"):
            model = Transformer(self.model_config, checkpoints_activations=self.checkpoints_activations)
        model.to(torch.get_default_dtype())  # Lightning's bf16-true sets it around this hook
        if self.float8 is not None:
            self.float8.convert(model)
        if self.device_mesh is not None and self.tensor_parallel_size > 1:
            split_blocks(model, self.device_mesh["tensor_parallel"])
        if self.compile_model:
            # Under DDP torch would cut each graph again at the bounds of the buckets; a block is small enough.
            torch._dynamo.config.optimize_ddp = False
            if torch.are_deterministic_algorithms_enabled():
                # Else kernels with other bits are chosen among by timing them, in each process anew.
                torch._inductor.config.deterministic = True
            for block in model.blocks:
                block.compile()  # one graph serves every block, so compiling costs the same at any depth
        if self.device_mesh is not None:
            self._shard(model, self.device_mesh["data_parallel"])
        model.materialize(self.device, self.seed)
        if self.initial_weights is not None:
            self.initial_weights.fill(model)
        self.model = model  # not before: where memory lacks, Lightning would move weights that have none

    def _shard(self, model: Transformer, mesh: DeviceMesh) -> None:
        """Each block apart, so that one at a time is whole. Gradients are summed over ranks in float32."""
        # What autocast would make of a block's weights is made before they travel: half the bytes. Its norms' gains,
        # which autocast leaves alone, travel with them. What is outside the blocks keeps its type, as the stream does.
        sent_as = SENT_AS.get(str(self.trainer.precision))
        blocks = MixedPrecisionPolicy(param_dtype=sent_as, reduce_dtype=torch.float32, cast_forward_inputs=False)
        for block in model.blocks:
            fully_shard(block, mesh=mesh, mp_policy=blocks)
        fully_shard(model, mesh=mesh, mp_policy=MixedPrecisionPolicy(reduce_dtype=torch.float32))

    def configure_optimizers(self) -> Any:
        assert self.model is not None
        optimizer = self.optimizer_recipe.make(self.model)
        scheduler = LambdaLR(optimizer, self.rate_factor)
        hold_settings(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def rate_factor(self, step: int) -> float:
        """The schedule's, and what the ledger's cuts leave of it."""
        return self.schedule.factor(step, self.num_steps) * self.ledger.rate_factor(step)

    def training_step(self, batch: MicroBatch, batch_idx: int) -> Tensor:
        micro_step = batch_idx % self.accumulation
        # The random state is a function of the place in the run: nothing to save, nothing to restore after a rewind.
        place = (self.seed, self.global_step, micro_step, self.data_parallel_rank)
        generator_of(self.device).manual_seed(hash(place) % 2**63)
        if micro_step == 0:
            self.carried_2.grad = None  # no optimizer clears it
        terms = self._terms(batch.tokens_ST, regularized=True)
        judged_2 = self.sums.add(terms, begins_step=micro_step == 0)
        # DDP takes the mean over ranks and Lightning over micro-batches: both are undone, the count is already global.
        loss = terms.loss_sum * (self.data_parallel_size * self.accumulation / batch.global_count)
        if self.loss_scale is not None:
            loss = loss * self.loss_scale.scale
        return loss + (self.carried_2 * judged_2).sum() if self._is_ddp else loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        # Compiling once more, without gradients, takes longer than it saves.
        is_empty = not len(batch)  # a rank without windows, which goes through the layers with the others
        if is_empty:
            batch = batch.new_zeros(1, *batch.shape[1:])  # float8 looks for the largest of some number
        with torch.compiler.set_stance("force_eager"):
            terms = self._terms(batch, regularized=False)
        targets_BT = batch[:, 1:]
        num_bytes = self.token_bytes_V[targets_BT].sum()  # the begin mark, which a mask leaves out, stands for none
        sums = torch.stack((terms.cross_entropy_sum.double(), terms.num_counted.double(), num_bytes.double()))
        sums *= not is_empty
        sums /= self.tensor_parallel_size  # each rank's share
        self.validation_sums = sums if self.validation_sums is None else self.validation_sums + sums

    def on_validation_epoch_start(self) -> None:
        if not hasattr(self, "token_bytes_V"):
            self.token_bytes_V = self.token_bytes().to(self.device)  # no buffer: a copy made before would lack it
        self.validation_sums = None

    def take_step_values(self, step: int) -> StepValues:
        """What the guard judges ``step`` by. Waits for nothing."""
        norm, left_out, sums_2 = self.clipping.norm, self.clipping.left_out, self.sums.step_2
        assert norm is not None
        assert sums_2 is not None
        left_out = torch.zeros_like(norm) if left_out is None else left_out
        return StepValues(step, torch.stack((*sums_2.unbind(), norm.to(sums_2.dtype), left_out.to(sums_2.dtype))))

    def _global_step_sums(self) -> Tensor:
        assert self.sums.step_2 is not None
        if not self._is_ddp:
            return self.sums.step_2  # of one process, or to be summed while clipping
        assert self.carried_2.grad is not None
        return self.carried_2.grad * (self.data_parallel_size * self.accumulation)

    @property
    def _is_ddp(self) -> bool:
        return isinstance(self.trainer.strategy, DDPStrategy)

    def take_validation_sums(self) -> list[float]:
        """Cross-entropy sum, count and UTF-8 bytes of the last validation, over all ranks. Waits for the device."""
        assert self.validation_sums is not None
        sums = all_reduce_sum(self.validation_sums).tolist()
        self.validation_sums = None
        return sums

    def configure_gradient_clipping(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        withheld_before = self.global_step + 1 in self.ledger.withheld_steps  # then now as well, whatever the norm
        self.sums.step_2 = self.clipping(optimizer, self._global_step_sums(), withhold=withheld_before)

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        scheduler.step()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["mulligan"] = {
            "attempt": self.attempt,
            "data_fingerprint": self.data_fingerprint(),
            "ledger": list(self.ledger.lines),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        saved = checkpoint["mulligan"]
        if saved["data_fingerprint"] != self.data_fingerprint():
            raise ValueError(
                f"the checkpoint was trained on data {saved['data_fingerprint'][:16]}, the prepared data is "
                f"{self.data_fingerprint()[:16]}: bring the old data back, or begin a run of another name"
            )
        take_loss_scale(checkpoint, self.loss_scale)
        check_shapes(checkpoint["state_dict"], self.state_dict())
        self.ledger.check_copy(saved.get("ledger", []), f"the checkpoint of step {checkpoint['global_step']}")
        rescale_batch_progress(checkpoint, self.accumulation)
        assert self.model is not None
        fresh = self.optimizer_recipe.make(self.model)
        self.change_of_rate = take_recipe(checkpoint, fresh, self.rate_factor(checkpoint["global_step"]))

    def _terms(self, tokens_BT: Tensor, *, regularized: bool) -> Terms:
        assert self.model is not None
        inputs_BT, targets_BT, document_BT = tokens_BT[:, :-1], tokens_BT[:, 1:], None
        if self.document_mask:
            targets_BT, document_BT = targets_within_documents(inputs_BT, targets_BT, self.begin_id())
        head = partial(
            self.objective, targets_BT=targets_BT, softcap=self.model_config.logit_softcap, regularized=regularized
        )
        return self.model(inputs_BT, document_BT=document_BT, head=head)

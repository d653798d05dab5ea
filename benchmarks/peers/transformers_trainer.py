"""transformers' own models under its own Trainer, from scratch."""

import sys
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from benchmarks.peers.plain_model import count_parameters
from benchmarks.peers.shapes import (
    BETAS,
    CLIP_NORM,
    EPS,
    INIT_STD,
    LOG_EVERY_N_STEPS,
    LR,
    NEVER,
    WEIGHT_DECAY,
    Shape,
    Work,
)  # fmt: skip
from benchmarks.peers.turns import Turns
from benchmarks.peers.windows import Windows


def make_model(shape: Shape) -> PreTrainedModel:
    if shape.form == "gpt2":
        config = GPT2Config(
            vocab_size=shape.vocab_size,
            n_positions=shape.length,
            n_embd=shape.width,
            n_layer=shape.num_layers,
            n_head=shape.num_heads,
            n_inner=shape.feedforward_width,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            use_cache=False,
        )
        return GPT2LMHeadModel(config)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=shape.vocab_size,
            max_position_embeddings=shape.length,
            hidden_size=shape.width,
            num_hidden_layers=shape.num_layers,
            num_attention_heads=shape.num_heads,
            num_key_value_heads=shape.key_value_heads,
            intermediate_size=shape.feedforward_width,
            rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
            rms_norm_eps=1e-5,
            initializer_range=INIT_STD,
            tie_word_embeddings=True,
            use_cache=False,
        )
    )


class Examples(Dataset[dict[str, Tensor]]):
    """The model shifts the labels itself: of T tokens it predicts T - 1."""

    def __init__(self, work: Work) -> None:
        self.windows = Windows(work, work.of_shape.length)

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        return {"input_ids": self.windows[number], "labels": self.windows[number]}


class TakeTurns(TrainerCallback):
    def __init__(self, turns: Turns, model: PreTrainedModel) -> None:
        self.turns, self.num_parameters = turns, count_parameters(model)
        model.register_forward_hook(self._note_loss)

    def _note_loss(self, model: PreTrainedModel, inputs: Any, output: Any) -> None:
        self.loss = output.loss.detach()

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.turns.begin(self.num_parameters)

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.turns.step_done(self.loss)


def main(work: Work) -> None:
    turns = Turns(work.block_steps)
    set_seed(0)
    model = make_model(work.of_shape)
    arguments = TrainingArguments(
        output_dir=work.folder,
        per_device_train_batch_size=work.of_shape.micro_batch,
        max_steps=NEVER,
        optim="adamw_torch_fused",
        learning_rate=LR,
        adam_beta1=BETAS[0],
        adam_beta2=BETAS[1],
        adam_epsilon=EPS,
        weight_decay=WEIGHT_DECAY,
        max_grad_norm=CLIP_NORM,
        lr_scheduler_type="constant",
        logging_steps=LOG_EVERY_N_STEPS,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        torch_compile=work.compile,
        use_cpu=work.device == "cpu",
        bf16=work.bf16,
    )
    Trainer(model, arguments, train_dataset=Examples(work), callbacks=[TakeTurns(turns, model)]).train()


if __name__ == "__main__":
    main(Work.from_json(sys.argv[1]))

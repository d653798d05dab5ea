"""The card says what the run's folder says."""

from typing import Any

from omegaconf import OmegaConf

from mulligan.export.model_card import Trained, model_card
from mulligan.model.config import ModelConfig

MODEL = ModelConfig(vocab_size=99, max_length=8, width=8, num_layers=1, num_heads=2, feedforward_width=12)
SUMMARY = {
    "val_bits_per_byte": 1.53759, "gzip_bits_per_byte": 2.008, "xz_bits_per_byte": 1.6108, "val_perplexity": None,
    "val_tokens": 156701, "val_utf8_bytes": 534776, "weights_sha256": "65d7",
}  # fmt: skip
CONFIG = {
    "data": {
        "name": "files", "folder": "/home/me", "weights": None, "document_mask": False,
        "tokenizer": {"vocab_size": 4096, "model_type": "bpe", "model_file": None},
    },
    "sequence_length": 8, "precision": "32-true", "seed": 3,
    "model": {"_target_": "m", "width": 8}, "objective": {}, "optimizer": {"lr": 0.002, "more": {"eps": 1e-8}},
    "schedule": {"warmup": 0.1},
    "stability": None,
}  # fmt: skip
START = {
    "step": 0, "time": "2026-11-26", "version": "0.1.0", "source_sha256": "4824df63c3f8ad4b913a", "world_size": 2,
    "packages": {"torch": "2.13.0"}, "image": {"revision": "8c60"}, "git": None,
}  # fmt: skip
WITHHELD = {"kind": "withheld", "judged_step": 249, "loss": None, "limit": 3.94, "gradient_norm": 25.5, "trigger": None}
REWIND = {
    "kind": "rewind", "judged_step": 252, "onset": 250, "target": 230, "skip": [3680, 4320], "trigger": "loss",
    "loss": 8.78, "limit": 3.94, "gradient_norm": 22.6,
}  # fmt: skip


def card(**changes: Any) -> str:
    told = Trained("healed", 400, 128, MODEL, CONFIG, "a44c", None, SUMMARY, [START], [WITHHELD, REWIND])
    return model_card(told._replace(**changes), "LlamaForCausalLM")


def test_numbers_training_and_interventions_are_told() -> None:
    told = card()
    assert OmegaConf.create(told.split("---")[1]).library_name == "transformers"
    assert f"{MODEL.num_parameters:,} parameters (`LlamaForCausalLM`), trained by [mulligan]" in told
    assert "400 steps on 51,200 tokens" in told
    for line in (
        "| bits per byte | 1.5376 |", "| perplexity | - |", "| tokens | 156,701 |", "| data fingerprint | a44c |",
        "| tokenizer | bpe, 4,096 tokens |",
        "| global batch | 128 tokens |", "| optimizer | lr=0.002, more=(eps=1e-08) |",
        "| stability | - |", "| weights sha256 | 65d7 |",
        "| 0 | 2026-11-26 | 0.1.0 | 8c60 | 4824df63c3f8ad4b | 2.13.0 | 2 |",
        "| withheld | - | - | 249 | - | - | - | 3.94 | 25.5 |",
        "| rewind | loss | 250 | 252 | 230 | 3680 to 4319 | 8.78 | 3.94 | 22.6 |",
    ):  # fmt: skip
        assert line in told, line
    assert "1 time(s) the run went back to before a spike, and 640 samples" in told
    assert "/home/me" not in told, "paths are nobody's business"
    for name in ("initial weights", "source weights", "document_mask", "float8"):
        assert name not in told, "a default needs no row"


def test_a_model_that_was_trained_further_names_the_weights_it_began_from() -> None:
    told = card(config=CONFIG | {"initial_weights": "/home/me/smollm"}, initial_weights_sha256="9f0c")
    assert "(`LlamaForCausalLM`), trained further from the weights of `smollm` by [mulligan]" in told
    assert "| initial weights | smollm, sha256 9f0c |" in told
    assert "/home/me" not in told


def test_what_is_not_usual_is_told() -> None:
    recipe = {"vocab_size": 49152, "model_type": "bpe", "model_file": "/home/me/tokenizer.json"}
    data = {"name": "mixed", "tokenizer": recipe, "weights": {"code": 0.7, "prose": 0.3}, "document_mask": True}
    told = card(config=CONFIG | {"data": data, "float8": {"_target_": "f", "recipe": "rowwise", "emulate": False}})
    for line in (
        "| tokenizer | tokenizer.json, 49,152 tokens |", "| source weights | code=0.7, prose=0.3 |",
        "| document_mask | True |", "| float8 | recipe=rowwise, emulate=False |",
    ):  # fmt: skip
        assert line in told, line


def test_what_is_not_known_is_not_told() -> None:
    told = card(summary=None, starts=[], interventions=[])
    assert "was not evaluated at this step" in told
    assert "weights sha256" not in told
    assert "None: the loss was not watched (stability=none)" in told
    assert "None: no spike was seen" in card(config=CONFIG | {"stability": {"way": "in_place"}}, interventions=[])


def test_the_weights_of_the_start_have_a_card_too() -> None:
    assert "for 0 steps on 0 tokens" in card(step=0, summary=None, starts=[], interventions=[])


def test_a_checkout_with_changes() -> None:
    changed = {"git": {"revision": "105213c", "diff_sha256": "77"}}
    assert "| 105213c with changes |" in card(starts=[START | changed])

"""The stored distributions are the model's."""

import base64
from pathlib import Path

import numpy as np
import pytest
import torch

from mulligan.data.tokenizer import TokenizerRecipe
from mulligan.data.tokens import Tokenizer
from mulligan.model.config import ModelConfig
from mulligan.model.transformer import Transformer
from mulligan.report.next_token import Context, next_tokens, prompt_context, token_label


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return TokenizerRecipe(vocab_size=400).make([Path(__file__).read_text()])


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> Transformer:
    config = ModelConfig(vocab_size=410, max_length=16, width=16, num_layers=2, num_heads=2, feedforward_width=24)
    with torch.device("meta"):
        built = Transformer(config)
    return built.materialize("cpu", 0)


def test_logits_are_ordered_and_keep_their_bits(model: Transformer, tokenizer: Tokenizer) -> None:
    context = Context("held out", [1, 50, 60], 70)
    (found,) = next_tokens(model, tokenizer, [context], top=5)
    with torch.no_grad():
        logits_V = model(torch.tensor([context.ids]))[0, -1]
    assert np.array_equal(found.logits_V, logits_V.sort(descending=True).values.numpy())
    assert found.labels == [token_label(tokenizer, number) for number in logits_V.argsort(descending=True)[:5].tolist()]
    assert found.next_rank is not None
    assert found.logits_V[found.next_rank] == logits_V[70].item()
    packed = found.as_json()["logits_V"]
    assert isinstance(packed, str)
    assert np.array_equal(np.frombuffer(base64.b64decode(packed), dtype="<f4"), found.logits_V)


def test_a_prompt_begins_a_document_and_leaves_its_last_blank_to_the_next_token(tokenizer: Tokenizer) -> None:
    context = prompt_context(tokenizer, "import ")
    assert context.ids == [tokenizer.begin_id, *tokenizer.encode("import").tolist()]
    assert context.next_id is None
    assert prompt_context(tokenizer, "").ids == [tokenizer.begin_id]


def test_a_context_too_long_is_cut_at_its_beginning(model: Transformer, tokenizer: Tokenizer) -> None:
    long, cut = next_tokens(model, tokenizer, [Context("", list(range(40, 80))), Context("", list(range(64, 80)))])
    assert np.array_equal(long.logits_V, cut.logits_V)


def test_labels_show_what_cannot_be_seen(tokenizer: Tokenizer) -> None:
    byte = tokenizer.encode("\u2581").tolist()[0]
    assert [token_label(tokenizer, number) for number in (1, 2, byte, 405)] == [
        "<begin>", "<end>", "<0xE2>", "<unused 405>"
    ]  # fmt: skip
    (newline,) = tokenizer.encode("\n").tolist()
    assert token_label(tokenizer, newline) == "↵"


def test_a_model_that_diverged_is_named(model: Transformer, tokenizer: Tokenizer) -> None:
    weight = model.norm.weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight.fill_(torch.nan)
    with pytest.raises(ValueError, match="its training has diverged"):
        next_tokens(model, tokenizer, [Context("", [1])])
    with torch.no_grad():
        weight.copy_(kept)

"""transformers' tokenizer gives the ids that ours gives, for any text, and the text back."""

import json
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from mulligan.data.json_tokenizer import JsonTokenizer
from mulligan.data.pieces import Piece, read_pieces
from mulligan.data.tokens import Tokenizer
from mulligan.export import tokenizer_json as module
from mulligan.export.tokenizer_json import tokenizer_config, tokenizer_json
from tests.data.test_json_tokenizer import byte_level

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

SPECIAL = [
    "<s>",
    "</s>",
    "<unk>",
    "<0x0A>",
    "<0xE2>",
    "\u2581",
    "\t",
    "\n",
    "\0",
    "😀",
    "e\u0301",
    "é",
    "①",
    "\ufffd",
    "  ",
]
RUNS = st.builds(lambda text, times: text * times, st.sampled_from([*SPECIAL, *"=-#*_ ax0.<"]), st.integers(1, 40))
WORDS = st.sampled_from(
    ["import os\n", "    return self", "def f(x):", "<s", "0x0A>", "====", "\n\n\n", "日本語", "١٢"]
)
TEXTS = st.lists(st.one_of(RUNS, WORDS, st.text(max_size=20)), max_size=12).map("".join)


@pytest.fixture(scope="module")
def loaded(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory):
    return load(tokenizer, tmp_path_factory.mktemp("tokenizer"))


def load(tokenizer: Tokenizer, folder: Path):
    """As transformers does."""
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json(tokenizer)))
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config(tokenizer, 512)))
    return AutoTokenizer.from_pretrained(folder)


@settings(max_examples=300)
@example(text="a\t\t==<s>x</s><unk> <0x0A>\u2581\u2581 \0 *** =====")
@given(text=TEXTS)
def test_the_same_ids_and_the_text_back(text: str, tokenizer: Tokenizer, loaded) -> None:
    ids = tokenizer.encode(text).tolist()
    assert loaded(text).input_ids == [tokenizer.begin_id, *ids]
    assert loaded.decode(ids) == text == tokenizer.decode(ids)


def test_real_text(tokenizer: Tokenizer, loaded) -> None:
    for path in sorted(Path(json.__file__).parent.glob("*.py")):
        text = path.read_text()
        ids = [tokenizer.begin_id, *tokenizer.encode(text).tolist()]
        assert loaded(text, truncation=False, verbose=False).input_ids == ids
        assert loaded.decode(ids, skip_special_tokens=True) == text


def test_special_tokens(tokenizer: Tokenizer, loaded) -> None:
    assert (loaded.bos_token_id, loaded.eos_token_id, len(loaded)) == (1, 2, tokenizer.vocab_size)
    assert loaded("one", "two").input_ids == [1, *tokenizer.encode("one").tolist(), *tokenizer.encode("two").tolist()]


@pytest.mark.parametrize("marks", [("<s>", "</s>"), ("<s>",), ("</s>",)])
def test_one_that_came_as_json_begins_texts_and_does_not_end_them(marks: tuple[str, ...], tmp_path: Path) -> None:
    tokenizer = JsonTokenizer(byte_level(marks=marks))
    begun = [tokenizer.begin_id, *tokenizer.encode("ab 12<s>").tolist()]
    loaded = load(tokenizer, tmp_path)
    assert loaded("ab 12<s>").input_ids == begun
    assert loaded("ab 12<s>", "ab").input_ids == [*begun, *tokenizer.encode("ab").tolist()]
    assert (loaded.bos_token_id, loaded.eos_token_id) == (tokenizer.begin_id, tokenizer.end_id)


@pytest.mark.parametrize(
    ("model_type", "changed", "message"),
    [
        ("char", {}, "type char"),
        ("bpe", {"kind": "unused"}, "unused pieces"),
        ("bpe", {"text": "\u0416\u0416"}, "'ЖЖ' has a character that is no piece"),
        ("bpe", {"score": -1.0}, "the same score"),
        ("unigram", {"score": -1.3}, "scores are not whole 1/64 nats"),
    ],
)
def test_what_has_no_exact_form(
    model_type: str, changed: dict, message: str, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = read_pieces(tokenizer.model)
    number = max(n for n, piece in enumerate(stored.pieces) if piece.kind == "normal" and len(piece.text) > 1)
    pieces: list[Piece] = list(stored.pieces)
    pieces[number] = pieces[number]._replace(**changed)
    monkeypatch.setattr(module, "read_pieces", lambda _: stored._replace(model_type=model_type, pieces=pieces))
    with pytest.raises(ValueError, match=message):
        tokenizer_json(tokenizer)

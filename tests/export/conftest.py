"""Tokenizers of both types, trained once on texts with tabs, runs and characters of several scripts."""

import pytest

from mulligan.data.documents import PythonStdlib
from mulligan.data.tokenizer import TokenizerRecipe
from mulligan.data.tokens import Tokenizer


@pytest.fixture(scope="session", params=["bpe", "unigram"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    source = PythonStdlib()
    documents = (document for part in source.parts() for document in source.read(part))
    texts = [document.text for document, _ in zip(documents, range(12), strict=False)]
    return TokenizerRecipe(vocab_size=600, model_type=request.param, sample_bytes=2**17).make(iter(texts))

"""The baselines against the command-line numbers they stand for."""

import gzip
import random

import pytest

from mulligan.evaluation.compression import gzip_bits_per_byte, xz_bits_per_byte


def test_noise_cannot_be_compressed_and_repetition_can() -> None:
    noise = random.Random(0).randbytes(100_000)
    assert gzip_bits_per_byte([noise]) == pytest.approx(8.0, rel=1e-2)
    assert xz_bits_per_byte([noise]) == pytest.approx(8.0, rel=1e-2)
    assert xz_bits_per_byte([noise, noise]) == pytest.approx(4.0, rel=1e-2)  # together, not one by one
    assert gzip_bits_per_byte([noise, noise]) == pytest.approx(8.0, rel=1e-2)


def test_gzip_counts_each_document() -> None:
    documents = [b"def f():\n    pass\n" * 9, b"x = 1\n"]
    size = sum(len(gzip.compress(document, 9)) for document in documents)
    assert gzip_bits_per_byte(documents) == 8 * size / sum(map(len, documents))

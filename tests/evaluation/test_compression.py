"""The baselines against the command-line numbers they stand for."""

import gzip
import lzma
import random

import pytest

from mulligan.evaluation.compression import gzip_bits_per_byte, xz_bits_per_byte

NUMBERS = b"".join(b"x = %d\n" % number**2 for number in range(3000))


def test_noise_cannot_be_compressed_and_repetition_can() -> None:
    noise = random.Random(0).randbytes(100_000)
    assert gzip_bits_per_byte([noise]) == pytest.approx(8.0, rel=1e-2)
    assert xz_bits_per_byte([noise]) == pytest.approx(8.0, rel=1e-2)
    assert xz_bits_per_byte([noise, noise]) == pytest.approx(4.0, rel=1e-2)  # together, not one by one
    assert gzip_bits_per_byte([noise, noise]) == pytest.approx(8.0, rel=1e-2)


def test_gzip_counts_each_document() -> None:
    documents = [NUMBERS, b"x = 1\n"]
    sizes = {level: sum(len(gzip.compress(document, level)) for document in documents) for level in (8, 9)}
    assert gzip_bits_per_byte(documents) == 8 * sizes[9] / sum(map(len, documents))
    assert sizes[9] < sizes[8], "no text to tell the levels by"


def test_xz_does_its_utmost() -> None:
    sizes = [len(lzma.compress(NUMBERS, preset=preset)) for preset in (9, 9 | lzma.PRESET_EXTREME)]
    assert xz_bits_per_byte([NUMBERS]) == 8 * sizes[1] / len(NUMBERS)
    assert sizes[1] < sizes[0], "no text to tell the presets by"

"""What general compressors make of the same bytes: the yardstick beside a model's bits per byte."""

import gzip
import lzma


def gzip_bits_per_byte(documents: list[bytes]) -> float:
    """gzip -9 of each document by itself."""
    return 8.0 * sum(len(gzip.compress(document, 9, mtime=0)) for document in documents) / sum(map(len, documents))


def xz_bits_per_byte(documents: list[bytes]) -> float:
    """xz -9e of all documents together."""
    together = b"".join(documents)
    return 8.0 * len(lzma.compress(together, preset=9 | lzma.PRESET_EXTREME)) / len(together)

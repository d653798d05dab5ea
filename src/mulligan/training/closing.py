"""What a finished model is worth: held-out text beside what compressors make of it, and a completion."""

from pathlib import Path
from typing import Any

import torch

from mulligan.data.prepared import PreparedData, Report
from mulligan.data.shards import Shards
from mulligan.data.tokenizer import tokenizer_in
from mulligan.evaluation.compression import gzip_bits_per_byte, xz_bits_per_byte
from mulligan.evaluation.generation import generate_text
from mulligan.evaluation.held_out import held_out
from mulligan.evaluation.sampler import Sampler
from mulligan.files import read_json, write_json
from mulligan.model.transformer import Transformer
from mulligan.model.weights import weights_sha256

AUTOCAST_DTYPES = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}


def closing_summary(
    folder: Path,
    model: Transformer,
    data: PreparedData,
    *,
    known: dict[str, Any],
    tokens_per_second: float | None,
    sequence_length: int,
    batch_size: int,
    report: Report,
) -> dict[str, Any]:
    """Evaluate ``model`` and write ``folder``/summary.json, unless that holds whole numbers of the same weights.

    ``known`` is what the run knows of itself, with how it wants to be evaluated: ``evaluate_bytes`` of held-out text,
    ``precision``, ``sample_prompt``. Without ``tokens_per_second`` an earlier start has measured them.
    """
    path = folder / "summary.json"
    former = _former(path)
    known = known | {
        "tokens_per_second": tokens_per_second or former.get("tokens_per_second"),
        "weights_sha256": weights_sha256(model.state_dict()),
    }
    if known.items() <= former.items() and None not in former.values():
        return former
    report("evaluating", 0, 1)
    summary = known | closing_numbers(
        model,
        data,
        sequence_length=sequence_length,
        max_bytes=known["evaluate_bytes"],
        batch_size=batch_size,
        precision=known["precision"],
        sample_prompt=known["sample_prompt"],
    )
    write_json(path, summary)
    report("evaluating", 1, 1)
    return summary


def _former(path: Path) -> dict[str, Any]:
    try:
        return read_json(path, "tokens_per_second")
    except (OSError, ValueError):
        return {}


@torch.compiler.set_stance("force_eager")  # training has ended: nothing is worth compiling again
def closing_numbers(
    model: Transformer,
    data: PreparedData,
    *,
    sequence_length: int,
    max_bytes: int,
    batch_size: int,
    precision: str,
    sample_prompt: str,
) -> dict[str, Any]:
    """Score the held-out shards that hold the first ``max_bytes`` of text, and complete ``sample_prompt``."""
    shards = Shards(data.folder, "validation", sequence_length, max_bytes=max_bytes)
    tokenizer = tokenizer_in(data.folder)
    texts = shards.texts(tokenizer)
    scores = held_out(
        model,
        shards,
        batch_size=batch_size,
        begin_id=tokenizer.begin_id,
        document_mask=data.document_mask,
        autocast_dtype=AUTOCAST_DTYPES.get(precision),
    )
    sampler = Sampler(temperature=0.5, top_p=0.9)  # at 0.8 a model of minutes loses itself in rows of digits
    try:
        completion = "".join(generate_text(model, tokenizer, sample_prompt, sampler, max_new_tokens=120))
    except ValueError:  # a run that diverged still has its numbers
        completion = ""
    return {
        "val_bits_per_byte": scores.bits_per_byte,
        "val_perplexity": scores.perplexity,
        "val_bits_per_token": scores.bits_per_token,
        "val_tokens": scores.num_tokens,
        "val_utf8_bytes": scores.utf8_bytes,
        "gzip_bits_per_byte": gzip_bits_per_byte(texts),
        "xz_bits_per_byte": xz_bits_per_byte(texts),
        "data_fingerprint": shards.manifest["fingerprint"],
        "sample": sample_prompt + completion,
    }

"""The README.md of a published model: its numbers, how it was trained, and what was done to the run on the way."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mulligan.model.config import ModelConfig

Json = dict[str, Any]
# Of the config what decides the numbers; the rest is paths and the habits of a machine.
_TOLD = ("model", "objective", "optimizer", "schedule", "stability")
_HEAD = "---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags: [mulligan]\n---\n"


class Trained(NamedTuple):
    """What a run's folder tells of the weights of one step."""

    name: str
    step: int
    tokens_per_step: int
    model: ModelConfig
    config: Json  # config.yaml
    data_fingerprint: str
    initial_weights_sha256: str | None  # of the file that it began from, where that was noted
    summary: Json | None  # of this step, if the run has come to its end there
    starts: list[Json]  # the lines of provenance.jsonl
    interventions: Sequence[Json]  # the lines of ledger.jsonl


def model_card(trained: Trained, architecture: str) -> str:
    """Markdown, headed by the YAML that hubs read."""
    initial = trained.config.get("initial_weights")
    begun = f"trained further from the weights of `{_name(initial)}`" if initial else "trained"
    parts = [
        f"{_HEAD}\n# {trained.name}\n",
        f"A language model of {trained.model.num_parameters:,} parameters (`{architecture}`), {begun} by "
        f"[mulligan](#training) for {trained.step:,} steps on {trained.step * trained.tokens_per_step:,} tokens. It "
        "continues text; it was given no instructions to follow.\n",
        _USE,
        "## Numbers\n",
        _numbers(trained.summary),
        "## Training\n",
        _table(("key", "value"), _training(trained)),
        "## Starts\n\nWhat each start of the run was made with.\n",
        _table(("from step", "time", "mulligan", "revision", "source", "torch", "ranks"), map(_start, trained.starts)),
        "## Interventions\n",
        _interventions(trained.interventions, is_watched=trained.config["stability"] is not None),
    ]
    return "\n".join(parts)


_USE = """## Use

    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = (kind.from_pretrained("FOLDER") for kind in (AutoTokenizer, AutoModelForCausalLM))
    inputs = tokenizer("Once upon a time", return_tensors="pt")  # begins with the token that documents began with
    print(tokenizer.decode(model.generate(**inputs, max_new_tokens=40)[0], skip_special_tokens=True))
"""


def _numbers(summary: Json | None) -> str:
    if summary is None:
        return "The run was not evaluated at this step.\n"
    rows = [
        ("bits per byte", "val_bits_per_byte"),
        ("bits per byte of gzip -9, each document", "gzip_bits_per_byte"),
        ("bits per byte of xz -9e, all together", "xz_bits_per_byte"),
        ("perplexity", "val_perplexity"),
        ("tokens", "val_tokens"),
        ("bytes of text", "val_utf8_bytes"),
    ]
    return "On documents that were held out of the training data:\n\n" + _table(
        ("held out", ""), ((text, _plain(summary[key])) for text, key in rows)
    )


def _training(trained: Trained) -> list[tuple[str, Any]]:
    config, data = trained.config, trained.config["data"]
    unusual = {
        "initial weights": _initial_weights(trained),
        "source weights": data["weights"],
        "document_mask": data["document_mask"],
        "float8": config.get("float8"),
    }
    rows = [
        ("data", data["name"]),
        ("data fingerprint", trained.data_fingerprint),
        ("tokenizer", _tokenizer(data["tokenizer"])),
        ("global batch", f"{trained.tokens_per_step:,} tokens"),
        *((key, config[key]) for key in ("sequence_length", "precision", "seed")),
        *((key, value) for key, value in unusual.items() if value),
    ]
    rows += [(group, config[group]) for group in _TOLD]
    if trained.summary is not None:
        rows.append(("weights sha256", trained.summary["weights_sha256"]))
    return [(key, _plain(value)) for key, value in rows]


def _initial_weights(trained: Trained) -> str | None:
    folder, sha256 = trained.config.get("initial_weights"), trained.initial_weights_sha256
    if folder is None:
        return None
    return _name(folder) + (f", sha256 {sha256}" if sha256 else "")


def _tokenizer(recipe: Json) -> str:
    kind = recipe["model_type"] if recipe["model_file"] is None else _name(recipe["model_file"])
    return f"{kind}, {recipe['vocab_size']:,} tokens"


def _name(path: str) -> str:
    """Without the folders around it, which are nobody's business."""
    return Path(path).absolute().name


def _start(line: Json) -> tuple[Any, ...]:
    git, image = line.get("git"), line.get("image")
    revision = git["revision"] + (" with changes" if git["diff_sha256"] else "") if git else None
    return (
        line["step"], line["time"], line["version"], revision or (image or {}).get("revision") or "-",
        line["source_sha256"][:16], line["packages"].get("torch", "-"), line["world_size"],
    )  # fmt: skip


def _interventions(entries: Sequence[Json], *, is_watched: bool) -> str:
    if not entries:
        return "None: no spike was seen.\n" if is_watched else "None: the loss was not watched (stability=none).\n"
    skipped = sum(entry["skip"][1] - entry["skip"][0] for entry in entries if "skip" in entry)
    rewinds = sum(entry["kind"] == "rewind" for entry in entries)
    text = (
        f"{rewinds} time(s) the run went back to before a spike, and {skipped:,} samples were left out. What was "
        "withheld is an update that was not made.\n\n"
    )
    keys = ("kind", "trigger", "onset", "judged_step", "target")
    rows = [
        (
            *(_plain(entry.get(key)) for key in keys),
            "{} to {}".format(entry["skip"][0], entry["skip"][1] - 1) if "skip" in entry else "-",
            *(_plain(entry[key]) for key in ("loss", "limit", "gradient_norm")),
        )
        for entry in entries
    ]
    names = ("what", "trigger", "onset", "judged", "back to step", "samples left out", "loss", "limit", "gradient norm")
    return text + _table(names, rows)


def _table(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [names, ["---"] * len(names), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        nested = {
            key: f"({_plain(child)})" if isinstance(child, dict) else _plain(child) for key, child in value.items()
        }
        return ", ".join(f"{key}={text}" for key, text in nested.items() if key != "_target_")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:,}" if isinstance(value, int) else f"{value:.5g}"
    return "-" if value is None else str(value)

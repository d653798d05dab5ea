"""``mulligan prepare``: text to a tokenizer and token shards."""

from omegaconf import DictConfig

from mulligan.cli.compose import build, plain
from mulligan.cli.console import Reporter
from mulligan.data.join import SPLITS
from mulligan.data.share import Share
from mulligan.files import read_json


def work(config: DictConfig) -> None:
    built = build(plain(config))
    recipe, share = built["data"], built["prepare"]
    if not isinstance(share, Share):
        raise ValueError(f"prepare={share!r}: expected its keys, prepare.part and prepare.parts")
    with Reporter(speaks=True) as report:
        if not share.is_whole:
            recipe.prepare_share(share, report, _say)
            return
        folder = recipe.prepare(report, _say)
    manifest = read_json(folder / "manifest.json")
    for split in SPLITS:
        shards = [shard for shard in manifest["shards"] if shard["split"] == split]
        tokens, documents, size = (sum(shard[key] for shard in shards) for key in ("tokens", "documents", "utf8_bytes"))
        print(f"{split}: {tokens:,} tokens, {documents:,} documents, {size:,} bytes in {len(shards)} shards")
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in manifest["dropped"].items())
    print(f"dropped: {dropped} documents; {manifest['documents_with_replacement_characters']:,} hold U+FFFD")
    print(f"{folder} is ready, fingerprint {manifest['fingerprint'][:16]}")


def _say(text: str) -> None:
    print(text, flush=True)

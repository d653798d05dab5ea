"""A run out to a folder of transformers' form and in again: the same weights, and what they were made of."""

from pathlib import Path

import pytest
from safetensors.torch import load_file

from mulligan.data.tokenizer import load_tokenizer
from mulligan.files import read_json, sha256_file, write_json
from mulligan.model.config import ModelConfig
from mulligan.model.weights import model_with_weights, weights_sha256
from tests.conftest import Cli


def test_a_run_goes_out_and_comes_back(sharded_run: Path, here: Cli, tmp_path: Path) -> None:
    exported = here("export", f"run={sharded_run}", "to=out", "format=hf")
    assert exported.returncode == 0, exported.stderr
    imported = here("import", "from=out", "to=back")
    assert imported.returncode == 0, imported.stderr
    summary = read_json(sharded_run / "summary.json")
    assert f"| weights sha256 | {summary['weights_sha256']} |" in Path("out/README.md").read_text()
    model = model_with_weights(
        ModelConfig(**read_json(Path("back/model.json"))), load_file("back/model.safetensors"), "cpu"
    )
    assert weights_sha256(model.state_dict()) == summary["weights_sha256"]
    out, back = (load_tokenizer(Path(folder, "tokenizer.json")) for folder in ("out", "back"))
    assert (back.begin_id, back.end_id) == (out.begin_id, 2) == (1, 2)  # the end mark is named in tokenizer_config.json
    assert back.encode("x = 1\t\u2581").tolist() == out.encode("x = 1\t\u2581").tolist()
    told = read_json(Path("back/imported.json"))
    assert (told["source"], told["architecture"]) == ("out", "Qwen3ForCausalLM")
    read = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    assert told["sha256"] == {name: sha256_file(Path("out") / name) for name in read}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "out"], "temporary files are left"
    assert "out holds" in exported.stdout
    assert "back holds out, a Qwen3ForCausalLM" in imported.stdout


def test_a_tokenizer_of_little_use_is_told_and_its_model_comes_all_the_same(sharded_run: Path, here: Cli) -> None:
    assert here("export", f"run={sharded_run}", "to=out", "format=hf").returncode == 0
    content = read_json(Path("out/tokenizer.json"))
    first, num_rows = content["added_tokens"][0], read_json(Path("out/config.json"))["vocab_size"]
    larger = content["added_tokens"] + [first | {"id": num_rows, "content": "<more>"}]
    write_json(Path("out/tokenizer.json"), content | {"added_tokens": larger})
    done = here("import", "from=out", "to=larger")
    assert f"has {num_rows + 1} tokens, and the model rows for {num_rows}: a text that needs one of" in done.stdout
    assert here("generate", "run=larger", "prompt=import", "max_new_tokens=3").returncode == 0
    write_json(Path("out/tokenizer.json"), content | {"post_processor": None})
    write_json(Path("out/tokenizer_config.json"), {"bos_token": "<bos>"})
    done = here("import", "from=out", "to=bare")
    assert "that tokenizer cannot be used here, only the weights: tokenizer.json frames no documents" in done.stdout
    assert sha256_file(Path("bare/model.safetensors")) == sha256_file(Path("larger/model.safetensors"))


def test_a_folder_is_complete_or_absent(
    sharded_run: Path, here: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "model.safetensors")

    monkeypatch.setattr("mulligan.export.hugging_face.write_hashed", full)
    done = here("export", f"run={sharded_run}", "to=out", "format=hf")
    assert done.returncode == 2
    assert "No space left on device" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_step_was_not_evaluated(sharded_run: Path, here: Cli) -> None:
    assert here("export", f"run={sharded_run}", "to=out", "format=hf", "step=4").returncode == 0
    assert "was not evaluated at this step" in Path("out/README.md").read_text()

"""The decoder: masks, cache, initialisation and options."""

from typing import Any

import pytest
import torch

from mulligan.model.config import ModelConfig
from mulligan.model.transformer import Transformer
from mulligan.model.weights import model_with_weights, weights_sha256

SHAPE: dict[str, Any] = {
    "vocab_size": 50, "max_length": 32, "width": 16, "num_layers": 2, "num_heads": 4, "feedforward_width": 24
}  # fmt: skip
FORMS: dict[str, dict[str, Any]] = {
    "llama": {"num_key_value_heads": 2, "qk_norm": True},
    "gpt2": {"norm": "layer", "positions": "learned", "feedforward": "gelu", "bias": True},
}


def built(seed: int = 0, **options: Any) -> Transformer:
    with torch.device("meta"):
        model = Transformer(ModelConfig(**(SHAPE | options)))
    return model.materialize("cpu", seed)


def tokens(*shape: int) -> torch.Tensor:
    return torch.randint(50, shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("form", FORMS)
def test_no_token_sees_the_future(form: str) -> None:
    model, sequence = built(**FORMS[form]), tokens(1, 12)
    changed = sequence.clone()
    changed[0, 8:] = (changed[0, 8:] + 1) % 50
    torch.testing.assert_close(model(sequence)[0, :8], model(changed)[0, :8])
    assert not torch.equal(model(sequence)[0, 8:], model(changed)[0, 8:])


def test_document_mask_equals_the_documents_apart() -> None:
    model, sequence = built(**FORMS["llama"]), tokens(1, 12)
    documents = torch.tensor([[0] * 5 + [1] * 7])
    together = model(sequence, document_BT=documents)
    torch.testing.assert_close(together[0, :5], model(sequence[:, :5])[0])
    # Rotary positions are relative, so the second document may start anywhere.
    torch.testing.assert_close(together[0, 5:], model(sequence[:, 5:])[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("pieces", [[12], [1] * 12, [5, 4, 3]])
def test_cache_gives_the_same_logits(form: str, pieces: list[int]) -> None:
    model, sequence = built(**FORMS[form]).eval(), tokens(2, 12)
    caches: list[list[torch.Tensor]] = [[] for _ in model.blocks]
    parts = [model(piece, caches=caches) for piece in sequence.split(pieces, dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), model(sequence), rtol=1e-4, atol=1e-5)


def test_weights_come_from_the_seed_alone() -> None:
    assert weights_sha256(built(0).state_dict()) == weights_sha256(built(0).state_dict())
    assert weights_sha256(built(0).state_dict()) != weights_sha256(built(1).state_dict())


def test_initial_deviation_shrinks_with_depth() -> None:
    deep, flat = built(width=64, num_layers=8), built(width=64, num_layers=8, init_by_depth=False)
    ratio = flat.blocks[0].feedforward.down.weight.std() / deep.blocks[0].feedforward.down.weight.std()
    torch.testing.assert_close(ratio, torch.tensor(4.0), rtol=1e-4, atol=0.0)
    torch.testing.assert_close(deep.blocks[0].attention.q.weight.std(), torch.tensor(0.02), rtol=0.05, atol=0.0)


def test_norms_begin_as_one_and_biases_as_nothing() -> None:
    weights = dict(built(**FORMS["gpt2"]).named_parameters())
    assert all(weight.eq(1.0).all() for name, weight in weights.items() if name.endswith("norm.weight"))
    biases = [weight for name, weight in weights.items() if name.endswith("bias")]
    assert biases
    assert all(bias.eq(0.0).all() for bias in biases)


def test_the_hash_is_of_types_and_shapes_too() -> None:
    states = [torch.zeros(2, 3), torch.zeros(3, 2), torch.zeros(2, 3, dtype=torch.int32)]  # the same bytes
    assert len({weights_sha256({"weight": weight}) for weight in states}) == 3


def test_tied_weights_are_one_tensor_after_materializing_and_loading() -> None:
    model = built()
    assert model.head.weight is model.embedding.weight
    copy = model_with_weights(model.config, model.state_dict(), "cpu")
    assert copy.head.weight is copy.embedding.weight
    assert weights_sha256(copy.state_dict()) == weights_sha256(model.state_dict())
    assert torch.equal(copy(tokens(1, 4)), model(tokens(1, 4)))


def test_softcap_bounds_the_logits() -> None:
    model = built(logit_softcap=0.01)
    assert model(tokens(1, 8)).abs().max() <= 0.01 < built()(tokens(1, 8)).abs().max()


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_checkpointed_activations_are_computed_again_to_the_same_bits(dropout: float) -> None:
    kept, gradients = [], []
    for checkpoints_activations in (False, True):
        model = built(dropout=dropout, num_layers=3)
        model.checkpoints_activations = checkpoints_activations
        sizes: list[int] = []

        def keep(tensor: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(tensor.numel())
            return tensor

        torch.manual_seed(1)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = model(tokens(2, 12), document_BT=tokens(2, 12) % 2).square().sum()
        loss.backward()
        kept.append(sum(sizes))
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert kept[1] < kept[0] / 3
    for plain, again in zip(*gradients, strict=True):
        assert plain is not None
        assert again is not None
        assert plain.equal(again)


def test_dropout_is_for_training_only() -> None:
    model = built(dropout=0.5)
    assert not torch.equal(model(tokens(1, 8)), model(tokens(1, 8)))
    model.eval()
    assert torch.equal(model(tokens(1, 8)), model(tokens(1, 8)))


def test_a_long_sequence_is_refused() -> None:
    with pytest.raises(ValueError, match="max_length=32"):
        built()(tokens(1, 33))

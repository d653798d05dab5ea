"""The objective: which form it takes, when it regularises, and what a document mask leaves out."""

import pytest
import torch

from mulligan.objective.next_token import IGNORE_INDEX, PLAIN_VOCABULARY, NextToken, targets_within_documents


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("vocab_size", [PLAIN_VOCABULARY, PLAIN_VOCABULARY + 1])
def test_both_forms_agree_and_regularize_in_training_only(vocab_size: int, softcap: float | None) -> None:
    torch.manual_seed(0)
    hidden, weight, targets = torch.randn(2, 5, 8), torch.randn(vocab_size, 8), torch.randint(vocab_size, (2, 5))
    objective = NextToken(z_loss=0.1, label_smoothing=0.1)
    trained = objective(hidden, weight, targets, softcap=softcap, regularized=True)
    bare = objective(hidden, weight, targets, softcap=softcap, regularized=False)
    assert bare.loss_sum == bare.cross_entropy_sum
    assert bare.z_sum == bare.smoothing_sum == 0.0
    torch.testing.assert_close(trained.cross_entropy_sum, bare.cross_entropy_sum)
    assert trained.loss_sum > bare.loss_sum
    logits = hidden.flatten(0, 1) @ weight.T
    capped = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    exact = torch.nn.functional.cross_entropy(capped, targets.flatten(), reduction="sum")
    torch.testing.assert_close(bare.cross_entropy_sum, exact)


@pytest.mark.parametrize(("vocab_size", "keeps"), [(PLAIN_VOCABULARY, True), (PLAIN_VOCABULARY + 1, False)])
def test_of_a_large_vocabulary_no_logits_are_kept(vocab_size: int, keeps: bool) -> None:
    sizes: list[int] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        sizes.append(tensor.numel())
        return tensor

    hidden, weight, targets = (
        torch.randn(2, 5, 8, requires_grad=True),
        torch.randn(vocab_size, 8),
        torch.ones(2, 5).long(),
    )
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        NextToken()(hidden, weight, targets, softcap=None, regularized=True)
    assert (10 * vocab_size in sizes) is keeps


def test_targets_stay_inside_documents() -> None:
    begin = 1
    inputs, targets = torch.tensor([[7, 8, begin, 5, 6, begin]]), torch.tensor([[8, begin, 5, 6, begin, 9]])
    targets, documents = targets_within_documents(inputs, targets, begin)
    assert targets.tolist() == [[8, IGNORE_INDEX, 5, 6, IGNORE_INDEX, 9]]
    assert documents.tolist() == [[0, 0, 1, 1, 1, 2]]


@pytest.mark.parametrize("options", [{"z_loss": -1e-4}, {"label_smoothing": 1.0}, {"label_smoothing": -0.1}])
def test_wrong_options_are_named(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        NextToken(**options)

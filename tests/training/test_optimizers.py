"""What decays, and what an optimizer may keep."""

import pytest
import torch
from hydra.errors import InstantiationException
from torch import nn

from mulligan.cli.compose import build
from mulligan.training.optimizers import AdamWRecipe
from mulligan.training.strategies import check_shapes_of_state
from tests.training.conftest import Compose
from tests.training.own_parts import OWN


def test_matrices_alone_decay() -> None:
    model = nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 2), nn.LayerNorm(2))
    optimizer = AdamWRecipe(lr=0.1, betas=[0.9, 0.95], weight_decay=0.5).make(model)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert {name: decay[id(p)] for name, p in model.named_parameters()} == {
        "0.weight": 0.5, "1.weight": 0.5, "1.bias": 0.0, "2.weight": 0.0, "2.bias": 0.0
    }  # fmt: skip


def test_one_update_is_that_of_the_paper() -> None:
    weight = nn.Linear(2, 2, bias=False)
    before, gradient = weight.weight.detach().double().clone(), torch.tensor([[1.0, -2.0], [0.5, 3.0]])
    optimizer = AdamWRecipe(lr=0.1, betas=[0.9, 0.95], eps=1e-8, weight_decay=0.5).make(weight)
    weight.weight.grad = gradient
    optimizer.step()
    # After bias correction the first moment is g and the second g squared.
    wanted = before * (1 - 0.1 * 0.5) - 0.1 * gradient.double() / (gradient.double().abs() + 1e-8)
    torch.testing.assert_close(weight.weight.detach().double(), wanted, rtol=1e-6, atol=1e-7)


def test_a_recipe_without_a_bound_of_the_norm_is_refused(composed: Compose) -> None:
    optimizer = {"_target_": f"{OWN}UnclippedRecipe", "lr": 0.1}
    with pytest.raises(InstantiationException, match="makes a UnclippedRecipe, which has no clip_norm: give it one"):
        build(composed() | {"optimizer": optimizer})


def test_a_state_that_no_part_of_a_checkpoint_would_hold_is_refused() -> None:
    """Adafactor keeps a row and a column of a matrix."""
    matrix = torch.nn.Parameter(torch.ones(4, 3))
    matrix.grad = torch.ones(4, 3)
    for kind, is_held in ((torch.optim.AdamW, True), (torch.optim.Adafactor, False)):
        optimizer = kind([matrix])
        optimizer.step()
        if is_held:
            check_shapes_of_state(optimizer)
            continue
        with pytest.raises(ValueError, match=r"keeps row_var of the shape \[4, 1\] for one of \[4, 3\]: under FSDP2"):
            check_shapes_of_state(optimizer)

"""Norms whose parameters are of another type than what they norm."""

import pytest
import torch

from mulligan.model.norm import make_norm


@pytest.mark.parametrize("kind", ["rms", "layer"])
@pytest.mark.parametrize("bias", [False, True])
def test_parameters_take_the_type_of_the_input(kind: str, bias: bool) -> None:
    """As under FSDP2, which sends a block's weights in bfloat16, while the stream stays float32."""
    norm, x_TD = make_norm(kind, 16, eps=1e-5, bias=bias), torch.randn(4, 16)
    for parameter in norm.parameters():
        torch.nn.init.uniform_(parameter)
        parameter.data = parameter.data.bfloat16().float()  # so that both hold the same numbers
    wanted_TD = norm(x_TD)
    found_TD = norm.bfloat16()(x_TD)
    assert found_TD.dtype == torch.float32
    assert found_TD.equal(wanted_TD)

"""Norms against their formulas, and with parameters of another type than what they norm."""

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


def test_eps_is_added_to_the_mean_square() -> None:
    x_TD = torch.randn(4, 16, dtype=torch.float64) * 0.5
    centred_TD = x_TD - x_TD.mean(1, keepdim=True)
    for kind, wanted_TD in {"rms": x_TD, "layer": centred_TD}.items():
        wanted_TD = wanted_TD / (wanted_TD.square().mean(1, keepdim=True) + 0.1).sqrt()
        torch.testing.assert_close(make_norm(kind, 16, eps=0.1, bias=True).double()(x_TD), wanted_TD)

"""One table of devices: found by the name that PyTorch gives."""

import pytest

from mulligan.planning.accelerators import ACCELERATORS, accelerator_of_device


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100_pcie"),
        ("NVIDIA H100 NVL", "h100_nvl"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA H200 NVL", "h200_nvl"),
        ("NVIDIA A100 80GB PCIe", "a100_pcie"),
        ("NVIDIA A100-PCIE-40GB", "a100_pcie_40gb"),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA A100-SXM4-40GB", "a100_40gb"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA L40", None),
        ("NVIDIA GB200", None),
    ],
)
def test_it_is_the_very_device(name: str, key: str | None) -> None:
    assert accelerator_of_device(name) == (None if key is None else ACCELERATORS[key])


def test_every_entry_is_found_by_its_words() -> None:
    for key, one in ACCELERATORS.items():
        assert accelerator_of_device(" ".join(one.words)) == one, key

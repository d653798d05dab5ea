"""Devices by name: the peak that MFU is measured against, the memory, and how fast they send."""

import re
from typing import NamedTuple


class Accelerator(NamedTuple):
    """``words`` are those of the device name that PyTorch gives, in any order; ``peak_flops`` is dense, in bf16, a
    second; ``memory_bytes`` is what the maker states, as is ``link_bandwidth``, in bytes a second and direction to all
    others of its host: NVLink's where a switch joins them all, else PCIe's.
    """

    words: frozenset[str]
    peak_flops: float
    memory_bytes: float
    link_bandwidth: float


def _nvidia(words: str, peak_flops: float, memory_bytes: float, link_bandwidth: float) -> Accelerator:
    return Accelerator(frozenset(words.split()), peak_flops, memory_bytes, link_bandwidth)


# From NVIDIA's data sheets. A name with more words comes before one with fewer of them.
ACCELERATORS = {
    "h100_pcie": _nvidia("H100 PCIe", 756e12, 80e9, 64e9),
    "h100_nvl": _nvidia("H100 NVL", 835e12, 94e9, 64e9),
    "h100": _nvidia("H100", 989e12, 80e9, 450e9),
    "h200_nvl": _nvidia("H200 NVL", 835e12, 141e9, 64e9),
    "h200": _nvidia("H200", 989e12, 141e9, 450e9),
    "b200": _nvidia("B200", 2250e12, 180e9, 900e9),
    "a100_pcie_40gb": _nvidia("A100 PCIE 40GB", 312e12, 40e9, 32e9),
    "a100_pcie": _nvidia("A100 PCIe", 312e12, 80e9, 32e9),
    "a100_40gb": _nvidia("A100 40GB", 312e12, 40e9, 300e9),
    "a100": _nvidia("A100", 312e12, 80e9, 300e9),
    "l40s": _nvidia("L40S", 362e12, 48e9, 32e9),
    "l4": _nvidia("L4", 121e12, 24e9, 32e9),
}


def accelerator_of_device(name: str) -> Accelerator | None:
    """That of the very device, or None where it is not in the table, or a part of one (MIG)."""
    words = set(re.split("[ -]", name))
    if "MIG" in words:
        return None
    return next((one for one in ACCELERATORS.values() if words.issuperset(one.words)), None)

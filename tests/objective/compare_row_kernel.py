"""The kernel's rows against those of the operators in float64: on a GPU, or in a process whose environment has
TRITON_INTERPRET=1, which Triton reads when it is loaded.
"""

from itertools import product

import torch

from mulligan.objective import row_kernel
from mulligan.objective.row_loss import FLOAT16_PEAK, RowLoss

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}
VOCABULARIES = (7, 1000, 5000)  # a part of a block, one, two


def compare(vocabulary: int, dtype: torch.dtype, z_loss: float, label_smoothing: float, softcap: float | None) -> None:
    generator = torch.Generator().manual_seed(0)
    logits_RV = 4.0 * torch.randn(6, vocabulary, generator=generator)
    logits_RV[1] += 500.0  # far from 0, where an exponential without its maximum is infinite
    logits_RV[2, 3] += 60.0  # all but certain, and right
    target_R1 = torch.randint(vocabulary, (6, 1), generator=generator)
    target_R1[2] = 3
    counted_R1 = torch.tensor([True, True, True, False, True, True]).unsqueeze(1)
    logits_RV = logits_RV.to(dtype)
    rows = RowLoss(z_loss, label_smoothing, softcap, -100)
    exact_RV = logits_RV.double()
    exact_factor_R1, exact_3 = rows.replace_by_gradient(exact_RV, exact_RV, target_R1, counted_R1)
    kernel_RV = logits_RV.to(DEVICE)
    factor_R1, terms_R3 = row_kernel.replace_by_gradient(
        kernel_RV, target_R1.to(DEVICE), counted_R1.to(DEVICE), *rows[:3], peak=FLOAT16_PEAK
    )
    torch.testing.assert_close(terms_R3.sum(0).double().cpu(), exact_3, rtol=1e-5, atol=1e-6)
    assert terms_R3[3].eq(0.0).all()
    assert factor_R1[3] == 0.0
    gradient_RV, exact_RV = (kernel_RV.double() * factor_R1).cpu(), exact_RV * exact_factor_R1
    for one, other in zip(gradient_RV, exact_RV, strict=True):
        assert (one - other).norm() <= TOLERANCES[dtype] * other.norm()
    assert dtype != torch.float16 or kernel_RV.abs().max() <= 1.01 * FLOAT16_PEAK


def has_no_number(logit: float, target: int) -> list[bool]:
    """Of two rows of five logits, one of them with that logit and that target, which have no loss."""
    logits_RV = torch.zeros(2, 5, device=DEVICE)
    logits_RV[0, 1] = logit
    targets_R1 = torch.tensor([[target], [0]], device=DEVICE)
    counted_R1 = torch.ones(2, 1, dtype=torch.bool, device=DEVICE)
    _, terms_R3 = row_kernel.replace_by_gradient(logits_RV, targets_R1, counted_R1, 0.0, 0.0, None, peak=FLOAT16_PEAK)
    return terms_R3[:, 0].isnan().tolist()


for options in product(VOCABULARIES, TOLERANCES, (0.0, 1e-3), (0.0, 0.1), (None, 5.0)):
    compare(*options)
assert has_no_number(logit=float("nan"), target=0) == [True, False]
assert has_no_number(logit=1.0, target=5) == [True, False]
assert has_no_number(logit=1.0, target=4) == [False, False]
print("alike")

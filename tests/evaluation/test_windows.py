"""Windows over several texts, beside what tests/evaluation/test_held_out.py says of one stream."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mulligan.evaluation.windows import score_texts
from tests.evaluation.conftest import make_model

LENGTHS = [2, 40, 1, 9, 17]


@pytest.mark.parametrize("batch_size", [1, 4, 100])
@pytest.mark.parametrize("masked", [{}, {"document_mask": True, "begin_id": 0}])  # 0 is what rows are padded with
def test_texts_that_share_a_batch_do_not_see_each_other(batch_size: int, masked: dict[str, Any]) -> None:
    network = make_model(init_std=0.3)
    texts = [np.random.default_rng(length).integers(3, 40, length).astype(np.uint16) for length in LENGTHS]
    options = {"sequence_length": 8, "stride": 3, "begin_id": 1} | masked
    sums = [score_texts(network, [text], batch_size=1, **options) for text in texts]
    total, count = score_texts(network, texts, batch_size=batch_size, **options)
    assert count == sum(length - 1 for length in LENGTHS) == sum(number for _, number in sums)
    assert total == pytest.approx(sum(one for one, _ in sums), rel=1e-6)


def test_with_a_stride_of_one_each_token_has_the_longest_context() -> None:
    network, text = make_model(init_std=0.3).eval(), np.random.default_rng(0).integers(3, 40, 30)
    total, _ = score_texts(network, [text], sequence_length=8, stride=1, batch_size=5, begin_id=1)
    wanted = 0.0
    for place in range(1, 30):
        with torch.no_grad():
            logits_V = network(torch.from_numpy(text[max(0, place - 8) : place])[None])[0, -1]
        wanted -= float(logits_V.log_softmax(0)[text[place]])
    assert total == pytest.approx(wanted, rel=1e-5)
    assert not network.training


@pytest.mark.parametrize(
    ("options", "dtype"), [({"dropout": 0.5}, None), ({"logit_softcap": 0.5}, None), ({}, torch.bfloat16)]
)
@torch.no_grad()
def test_losses_are_those_of_the_logits_it_gives_when_not_in_training(
    options: dict[str, Any], dtype: torch.dtype | None
) -> None:
    network, text = make_model(init_std=0.5, **options), torch.arange(3, 20)
    total, _ = score_texts(
        network, [text.numpy()], sequence_length=16, stride=16, batch_size=1, begin_id=1, autocast_dtype=dtype
    )
    assert network.training
    with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
        logits_TV = network.eval()(text[None, :-1])[0].float()
    assert total == pytest.approx(float(F.cross_entropy(logits_TV, text[1:], reduction="sum")), rel=1e-6)

"""Snapshots: what was copied comes back to the bit, within the ring and its budget."""

import os

import pytest
import torch

from mulligan.stability.snapshots import Snapshots

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


def state(device: str, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"weight": torch.float32, "half": torch.bfloat16}
    return {name: torch.randn(64, 32, generator=generator).to(device, dtype) for name, dtype in shapes.items()}


@pytest.mark.parametrize("device", DEVICES)
def test_a_state_comes_back_to_the_bit_after_it_was_changed(device: str) -> None:
    ring = Snapshots(every_n_steps=10, keep=2)
    live, wanted = state(device, 1), state(device, 1)
    ring.take(10, live, {"detector": [1.5]})
    ring.wait()
    for tensor in live.values():
        tensor.mul_(2.0)
    ring.take(20, live, {})
    snapshot = ring.newest(19)
    assert snapshot is not None
    assert (snapshot.step, snapshot.extra) == (10, {"detector": [1.5]})
    ring.restore(snapshot, live)
    assert all(live[name].equal(wanted[name]) for name in wanted)
    assert ring.steps == [10], "the state of the lineage given up is forgotten"


def test_the_ring_keeps_the_last_and_makes_no_new_buffers() -> None:
    ring = Snapshots(every_n_steps=1, keep=3)
    addresses = set()
    for step in range(9):
        ring.take(step, state("cpu", step), {})
        newest = ring.newest(step)
        assert newest is not None
        addresses.add(newest.tensors["weight"].data_ptr())
    assert ring.steps == [6, 7, 8]
    assert len(addresses) == 3
    assert ring.newest(5) is None
    for step in (6, 7, 8):
        kept = ring.newest(step)
        assert kept is not None
        assert kept.tensors["weight"].equal(state("cpu", step)["weight"])


def test_a_lent_state_stays_until_it_is_given_back_and_costs_one_more_at_most() -> None:
    ring = Snapshots(every_n_steps=1, keep=2)
    ring.take(0, state("cpu", 0), {})
    lent = ring.newest(0)
    assert lent is not None
    lent.is_lent = True
    addresses = set()
    for step in range(1, 9):
        ring.take(step, state("cpu", step), {})
        newest = ring.newest(step)
        assert newest is not None
        addresses.add(newest.tensors["weight"].data_ptr())
        assert lent.tensors["weight"].equal(state("cpu", 0)["weight"]) or not lent.is_lent
        lent.is_lent = step < 5
    assert len(addresses) == 3, "two of the ring, and the lent one since it was given back"


def test_a_state_given_up_leaves_its_buffers_and_none_of_its_tensors() -> None:
    ring = Snapshots(every_n_steps=1, keep=2)
    ring.take(1, state("cpu", 1), {})
    given_up = ring.newest(1)
    ring.forget_after(0)
    ring.take(1, {"weight": torch.ones(64, 32)}, {})
    again = ring.newest(1)
    assert given_up is not None
    assert again is not None
    assert list(again.tensors) == ["weight"]
    assert again.tensors["weight"] is given_up.tensors["weight"]


def test_the_budget_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Snapshots(keep=4, max_gigabytes=1.0).check_budget(2e8) == pytest.approx(0.8)
    with pytest.raises(ValueError, match=r"snapshots\.keep=4 states of .* GB are more than stability\.snapshots\.max_"):
        Snapshots(keep=4, max_gigabytes=0.6).check_budget(2e8)
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 1e6, "SC_PAGE_SIZE": 4e3}.__getitem__)  # 4 GB
    budget = Snapshots(keep=4, max_gigabytes=1.0)
    budget.check_budget(2e8, ranks_of_host=4)
    with pytest.raises(ValueError, match=r"each of 6 ranks are more than .* memory, 4\.0 GB: keep 3 of them"):
        budget.check_budget(2e8, ranks_of_host=6)


@pytest.mark.parametrize("options", [{"every_n_steps": 0}, {"keep": -1}, {"max_gigabytes": 0.0}])
def test_wrong_options_are_named(options: dict) -> None:
    with pytest.raises(ValueError, match=rf"stability\.snapshots\.{next(iter(options))}="):
        Snapshots(**options)

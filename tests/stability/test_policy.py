"""The policy climbs its rungs: deeper and wider when the spike comes back, then a lower rate, then the end."""

import pytest

from mulligan.stability.policy import Done, Halt, Policy, Rewind


def test_the_first_spike_goes_back_before_the_onset_and_covers_what_was_seen() -> None:
    decision = Policy(depth_steps=100, skip_steps=200).decide(1000, 1004, [])
    assert decision == Rewind(latest_target=900, skip_steps=200, level=0, rate_factor=1.0, rate_steps=0)
    late = Policy(depth_steps=100, skip_steps=200).decide(1000, 1500, [])
    assert isinstance(late, Rewind)
    assert late.latest_target + late.skip_steps >= 1500
    assert Policy(depth_steps=100).decide(30, 33, []) == Rewind(0, 200, 0, 1.0, 0)


def test_a_spike_that_comes_back_goes_further_then_cuts_the_rate_then_halts() -> None:
    policy = Policy(depth_steps=10, skip_steps=20, widen=2.0, cooldown_steps=50, cut_rate_at_level=2, halt_at_level=3)
    history: list[Done] = []
    decisions = []
    for onset in (100, 120, 140, 160):
        decision = policy.decide(onset, onset + 3, history)
        decisions.append(decision)
        if isinstance(decision, Rewind):
            history.append(Done(onset, onset + 3, decision.latest_target, decision.skip_steps, decision.level))
    rewinds = [decision for decision in decisions if isinstance(decision, Rewind)]
    assert [(one.level, one.skip_steps, one.rate_factor) for one in rewinds] == [
        (0, 20, 1.0),
        (1, 40, 1.0),
        (2, 80, 0.5),
    ]
    assert [one.latest_target for one in rewinds] == [90, 100, 100]
    assert decisions[3] == Halt("the spike came back 3 times: stability.policy.halt_at_level=3")


def test_a_spike_after_the_cooldown_is_a_new_one() -> None:
    decision = Policy(cooldown_steps=50).decide(500, 503, [Done(100, 103, 50, 200, 3)])
    assert isinstance(decision, Rewind)
    assert decision.level == 0


@pytest.mark.parametrize(
    ("options", "history", "reason"),
    [
        ({"rewind": False}, [], "rewind=false"),
        ({"max_rewinds": 1}, [Done(10, 12, 5, 9, 0)], "max_rewinds"),
        ({"max_lost_share": 0.1, "depth_steps": 10}, [Done(400, 600, 100, 9, 0)], "max_lost_share"),
    ],
)
def test_budgets_end_the_run(options: dict, history: list[Done], reason: str) -> None:
    decision = Policy(**options).decide(1000, 1003, history)
    assert isinstance(decision, Halt)
    assert reason in decision.reason


def test_early_in_a_run_two_spikes_are_not_too_many() -> None:
    assert isinstance(Policy().decide(150, 153, [Done(110, 113, 0, 200, 0)]), Rewind)


def test_few_bad_gradients_are_tolerated_many_are_not() -> None:
    policy = Policy(max_withheld=2, cooldown_steps=100)
    assert policy.tolerates(500, [])
    assert policy.tolerates(500, [450])
    assert not policy.tolerates(500, [450, 499])
    assert policy.tolerates(500, [300, 450])
    assert policy.tolerates(500, [500, 501, 502]), "a start from before came by again"
    assert not Policy(max_withheld=0, cooldown_steps=0).tolerates(5, [])
    assert not Policy(max_withheld=2, cooldown_steps=2).tolerates(5, [3, 4])


@pytest.mark.parametrize(
    "options",
    [
        {"depth_steps": 0}, {"skip_steps": 0}, {"widen": 0.5}, {"cooldown_steps": -1}, {"max_withheld": -1},
        {"cut_rate_at_level": -1}, {"rate_factor": 0.0}, {"rate_steps": 0}, {"halt_at_level": 0}, {"max_rewinds": -1},
        {"max_lost_share": 0.0}, {"cooldown_steps": 1, "max_withheld": 2},
    ],
)  # fmt: skip
def test_wrong_options_are_named(options: dict) -> None:
    with pytest.raises(ValueError, match=rf"stability\.policy\.{next(iter(options))}="):
        Policy(**options)

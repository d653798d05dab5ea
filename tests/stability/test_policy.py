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
    reason = "the spike came back 3 times: stability.policy.halt_at_level=3"
    assert decisions[3] == Halt(reason, latest_target=100), "what lies behind it led here"


def test_a_spike_after_the_cooldown_is_a_new_one() -> None:
    decision = Policy(cooldown_steps=50).decide(500, 503, [Done(100, 103, 50, 200, 3)])
    assert isinstance(decision, Rewind)
    assert decision.level == 0


def test_a_spike_within_the_cooldown_of_the_last_trigger_is_the_same_come_back() -> None:
    """Also one before the place of the last."""
    policy, done = Policy(cooldown_steps=200), Done(1000, 1100, 900, 200, level=1)
    levels = [policy.decide(onset, onset + 3, [done]).level for onset in (990, 1000, 1300, 1301)]
    assert levels == [2, 2, 2, 0]


@pytest.mark.parametrize(
    ("options", "history", "reason"),
    [
        ({"rewind": False}, [], "rewind=false"),
        ({"max_rewinds": 1}, [Done(10, 12, 5, 9, 0)], "max_rewinds"),
    ],
)
def test_budgets_end_the_run(options: dict, history: list[Done], reason: str) -> None:
    decision = Policy(**options).decide(1000, 1003, history)
    assert isinstance(decision, Halt)
    assert reason in decision.reason


def test_a_halted_run_keeps_the_state_before_a_spike_of_its_own() -> None:
    assert Policy(rewind=False).decide(1000, 1003, [Done(10, 12, 5, 9, 0)]).latest_target == 998


def test_too_many_lost_steps_end_the_run_with_those_about_to_be_lost() -> None:
    policy, history = Policy(max_lost_share=0.5), [Done(400, 600, 100, 9, 0)]
    assert policy.overdraws(4000, 4010, 2505, history) is None, "half of 4010"
    halt = policy.overdraws(4000, 4010, 2000, history)
    assert halt is not None
    assert (
        halt.reason
        == "back at step 2000 2510 steps would be lost, more than stability.policy.max_lost_share=0.5 of 4010"
    )
    assert policy.overdraws(20_000, 20_004, 0, []) is not None, "one spike is no reason to begin anew"
    assert policy.overdraws(1200, 1204, 0, []) is None, "early in a run it is"


def test_a_spike_behind_a_cut_of_the_rate_is_the_same_come_back() -> None:
    done = Done(1000, 1004, 800, 200, level=2, rate_until=1500)
    assert [Policy(cooldown_steps=200).decide(onset, onset + 3, [done]).level for onset in (1100, 1700, 1701)] == [
        3,
        3,
        0,
    ]


def test_few_bad_gradients_are_tolerated_many_are_not() -> None:
    policy = Policy(max_withheld=2, cooldown_steps=100)
    assert policy.tolerates(500, [])
    assert policy.tolerates(500, [450])
    assert not policy.tolerates(500, [450, 499])
    assert policy.tolerates(500, [300, 450])
    assert policy.tolerates(500, [450, 500, 501, 502]), "a start from before came by again"
    assert not Policy(max_withheld=0, cooldown_steps=0).tolerates(5, [])
    assert not Policy(max_withheld=2, cooldown_steps=2).tolerates(5, [3, 4])


def test_a_short_cooldown_is_wrong_only_where_updates_are_withheld() -> None:
    assert Policy(withhold=False, cooldown_steps=1, max_withheld=2).cooldown_steps == 1


@pytest.mark.parametrize("options", [{"skip_steps": 2**41}, {"widen": 1e6}, {"halt_at_level": 40}])
def test_more_steps_than_a_run_has_are_named(options: dict) -> None:
    name, value = next(iter(options.items()))
    with pytest.raises(ValueError, match=rf"^stability\.policy: .*{name}={value}[ ,].* are more steps than a run has"):
        Policy(**options)


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

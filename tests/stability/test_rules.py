"""The re-built rules do what theirs do, oddities included, and ours forgets a spike when it is over."""

import itertools
import math
import random
import statistics
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.fabric.utilities.spike import SpikeDetection as TheirSpikeDetection
from lightning.fabric.utilities.spike import TrainingSpikeException

from mulligan.stability.detector import Detector
from mulligan.stability.rules import KillLossSpike, Mulligan, Rule, SkipStep, SpikeDetection, ZClip, every_rule
from tests.stability.test_detector import clean_curve


def alarms(rule: Rule, losses: list[float], norms: list[float] | None = None) -> list[int]:
    """The positions of the alarms."""
    points = zip(losses, norms or itertools.repeat(1.0), strict=False)
    return [at for at, (loss, norm) in enumerate(points) if rule.observe(at, loss, norm)]


def flat(level: float, steps: int, seed: int = 0, noise: float = 0.05) -> list[float]:
    rng = random.Random(seed)
    return [level + rng.gauss(0.0, noise) for _ in range(steps)]


def test_skip_step_judges_from_half_a_window_on_and_by_its_deviations() -> None:
    calm = flat(3.0, 62)
    assert alarms(SkipStep(), [*calm, 9.0]) == []
    calm = flat(3.0, 63)
    limit = statistics.mean(calm) + 6.0 * statistics.stdev(calm)
    assert alarms(SkipStep(), [*calm, limit + 1e-6]) == [63]
    assert alarms(SkipStep(), [*calm, limit - 1e-6]) == []
    assert alarms(SkipStep(), [*calm, -9.0]) == [], "a fall is no spike"


def test_skip_step_takes_a_plateau_for_normal_after_four_steps() -> None:
    assert alarms(SkipStep(), [*flat(2.5, 500, noise=0.01), *flat(3.5, 300, noise=0.01)]) == [500, 501, 502, 503]


def test_skip_step_skips_129_updates_for_one_nan() -> None:
    assert alarms(SkipStep(), [*flat(2.5, 500), math.nan, *flat(2.5, 500)]) == list(range(500, 629))
    norms = [1.0 + 0.01 * (step % 3) for step in range(1000)]
    norms[500] = math.inf
    assert alarms(SkipStep(), flat(2.5, 1000), norms) == list(range(500, 629))


def test_skip_step_skips_for_a_norm_and_does_without_norms() -> None:
    norms = [1.0 + 0.01 * (step % 3) for step in range(200)]
    norms[150] = 2.0
    assert alarms(SkipStep(), flat(2.5, 200), norms) == [150]
    rule = SkipStep()
    assert not any(rule.observe(step, loss, None) for step, loss in enumerate(flat(2.5, 200)))


@pytest.mark.parametrize("make", [SkipStep, SpikeDetection, KillLossSpike])
def test_a_rise_from_2_5_to_4_5_nats_is_seen_by_one_of_the_others_alone(make: type[Rule]) -> None:
    found = alarms(make(), [*flat(2.5, 500), *flat(4.5, 200)])
    assert bool(found) == (make is SkipStep)


def test_spike_detection_alarms_as_the_installed_one_does(tmp_path: Path) -> None:
    rng = random.Random(0)
    losses = [rng.lognormvariate(0.0, 0.8) for _ in range(2000)]
    for at in (17, 18, 400):
        losses[at] = math.nan
    losses[900] = math.inf
    strategy = SimpleNamespace(
        root_device=torch.device("cpu"), barrier=lambda: None, reduce_boolean_decision=lambda decision, **_: decision
    )
    fabric = SimpleNamespace(strategy=strategy, global_rank=0)
    theirs, expected = TheirSpikeDetection(exclude_batches_path=tmp_path / "skip.json"), []
    for at, loss in enumerate(losses):
        try:
            theirs.on_train_batch_end(fabric, torch.tensor(loss, dtype=torch.float64), None, at)
        except TrainingSpikeException:
            expected.append(at)
    assert len(expected) > 50
    assert alarms(SpikeDetection(), losses) == expected


def test_spike_detection_knows_an_absolute_tolerance() -> None:
    assert alarms(SpikeDetection(), [0.1, 0.1, 0.5]) == [2]
    assert alarms(SpikeDetection(atol=1.0), [0.1, 0.1, 0.5]) == []


def test_kill_loss_spike_waits_for_five_in_a_row_above_twice_the_mean() -> None:
    assert alarms(KillLossSpike(), [*[2.0] * 100, *[4.5] * 4, 2.0, *[4.5] * 4]) == []
    assert alarms(KillLossSpike(), [*[2.0] * 100, *[4.5] * 6]) == [104, 105]
    assert alarms(KillLossSpike(), [*[2.0] * 99, *[4.5] * 5]) == [], "the window was not full"


def test_kill_loss_spike_calls_half_a_window_above_the_cap_high() -> None:
    assert alarms(KillLossSpike(), [*[9.0] * 149, *[11.0] * 52]) == [199, 200]
    assert alarms(KillLossSpike(), [*[11.0] * 60, *[9.0] * 300]) == [], "it was over before two windows were"


def test_kill_loss_spike_is_blind_for_a_window_after_one_nan() -> None:
    assert alarms(KillLossSpike(), [*[2.0] * 100, math.nan, *[9.0] * 50]) == []


def test_kill_loss_spike_forgets_what_has_left_its_window() -> None:
    calm = flat(2.0, 150)
    for odd in (math.nan, math.inf, 1e30):
        assert alarms(KillLossSpike(), [*calm, odd, *calm, *[4.5] * 6]) == [305, 306], odd


def test_kill_loss_spike_of_a_long_run_does_not_add_its_window_up_at_each_step() -> None:
    """100,000 steps with a window of 50,000: 2.5 billion additions, minutes."""
    begun = time.process_time()
    assert alarms(KillLossSpike(window=50_000), flat(2.0, 100_000)) == []
    assert time.process_time() - begun < 5.0


def test_zclip_clips_by_the_decaying_mean_and_variance_of_clipped_norms() -> None:
    first = [1.0, 1.2] * 13
    rule = ZClip(warmup_steps=26)
    assert alarms(rule, [3.0] * 26, first) == []
    # mean 1.1 and deviation 0.1: at 1.6 the score is 5, the norm is clipped to 1.1 + 2.5 * 0.1 / 2 and so enters
    assert rule.observe(26, 3.0, 1.6)
    mean = 0.97 * 1.1 + 0.03 * 1.225
    deviation = math.sqrt(0.97 * 0.01 + 0.03 * (1.225 - mean) ** 2)
    assert not rule.observe(27, 3.0, mean + 2.499 * deviation)
    again = ZClip(warmup_steps=26)
    alarms(again, [3.0] * 27, [*first, 1.6])
    assert again.observe(27, 3.0, mean + 2.501 * deviation)


def test_zclip_is_blind_for_ever_after_one_nan() -> None:
    assert alarms(ZClip(), [3.0] * 500, [*[1.0, 1.1] * 50, math.nan, *[50.0] * 399]) == []


def test_ours_is_after_each_alarm_as_it_was_before_the_rise() -> None:
    clean = list(clean_curve(2000, 1))
    spiked = [*clean[:1000], *(loss + 1.0 for loss in clean[1000:1300]), *clean[1300:]]
    assert alarms(Mulligan(Detector()), spiked) == list(range(1002, 1300, 3))
    spiked[1310] += 1.0
    assert alarms(Mulligan(Detector()), spiked)[-1] == 1299, "one outlier is no alarm, also after a spike"
    spiked[1305] = math.nan
    assert alarms(Mulligan(Detector()), spiked)[-1] == 1305


def test_ours_does_without_norms() -> None:
    rule = Mulligan(Detector())
    assert next(step for step in range(200) if rule.observe(step, 2.5 if step < 150 else 3.5, None)) == 152


def test_the_window_of_kill_loss_spike_follows_the_length_of_the_run() -> None:
    windows = [every_rule(Detector(), num_steps=steps)["llm-foundry KillLossSpike"] for steps in (100, 100_000)]
    assert [rule.window for rule in windows if isinstance(rule, KillLossSpike)] == [100, 5000]

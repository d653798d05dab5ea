"""The numbers at the head of the page are those of the files."""

import math

import pytest

from mulligan.report.headline import Yardstick, evaluation_nats, held_out_bits, origin_of, state_of, tiles, yardsticks
from mulligan.report.run_files import RunFiles
from tests.report.conftest import CLOSING, REWIND, MakeRun, logged


def shown(run: RunFiles) -> dict[str, str]:
    return {tile.label: tile.value for tile in tiles(run)}


def test_a_finished_run(healed: RunFiles) -> None:
    assert state_of(healed) == ("finished", "all 12 steps")
    assert shown(healed) == {
        "perplexity": "8.000",
        "tokens": "384",
        "parameters": "1,234",
        "interventions": "1",
        "goodput": "80.0%",
        "tokens per second": "5,000",
    }
    assert yardsticks(healed) == [
        Yardstick("this model", 1.25, 0.5), Yardstick("xz -9e", 1.5, 0.6), Yardstick("gzip -9", 2.5, 1.0)
    ]  # fmt: skip
    assert evaluation_nats(healed) == pytest.approx(3.0 * math.log(2.0))


def test_under_way_the_last_validation_counts(made_run: MakeRun) -> None:
    validated = {"attempt": 2, "step": 2, "val_bits_per_byte": 2.0, "val_cross_entropy": 1.5, "val_perplexity": 4.5}
    run = made_run([logged(1, 1, 4.0), logged(2, 2, 3.0, mfu=0.25), validated])
    assert state_of(run) == ("stopped", "at step 2 of 12")
    assert state_of(run._replace(is_at_work=True)) == ("under way", "at step 2 of 12")
    assert yardsticks(run) == [Yardstick("last validation", 2.0, 1.0)]
    assert evaluation_nats(run) == 1.5
    assert shown(run)["perplexity"] == "4.500"
    assert tiles(run)[-1].note == "MFU 25.0%"


def test_a_validation_that_was_given_up_does_not_count(made_run: MakeRun) -> None:
    rows = [logged(step, step, 4.0) for step in range(1, 11)]
    validated = [{"attempt": at, "step": at, "val_bits_per_byte": bits} for at, bits in ((8, 2.0), (10, 7.0))]
    run = made_run([*rows, *validated], ledger=[("rewind", REWIND)])
    assert yardsticks(run) == [Yardstick("last validation", 2.0, 1.0)]


def test_what_is_not_there_is_a_dash_and_what_is_not_finite_says_so(made_run: MakeRun) -> None:
    run = made_run()
    assert yardsticks(run) == []
    assert {shown(run)[label] for label in ("perplexity", "goodput", "tokens per second")} == {"-"}
    diverged = made_run(summary=CLOSING | {"val_perplexity": math.nan, "val_bits_per_byte": math.nan})
    assert shown(diverged)["perplexity"] == "not finite"
    assert [one.name for one in yardsticks(diverged)] == ["xz -9e", "gzip -9"]
    assert math.isnan(held_out_bits(diverged) or 0.0)


def test_halted(made_run: MakeRun) -> None:
    run = made_run([logged(step, step, 4.0) for step in range(1, 11)], ledger=[("halt", REWIND)])
    assert state_of(run) == ("halted", "at step 8 of 12")
    assert state_of(run._replace(is_at_work=True)) == ("under way", "at step 8 of 12")
    assert state_of(run._replace(summary=CLOSING)) == ("finished", "all 8 steps")


def test_where_a_run_came_from(healed: RunFiles) -> None:
    assert origin_of(healed) == ""
    start = {"time": "2026-11-27T04:05:06+00:00", "world_size": 1, "machine": {"processor": "Xeon", "gpus": []}}
    assert origin_of(healed._replace(provenance=[start])) == (
        "Begun 2026-11-27 04:05 UTC; 1 rank, on a host with Xeon."
    )
    later = start | {"time": "2026-11-28", "world_size": 16, "machine": {"processor": "Xeon", "gpus": ["H100"] * 8}}
    assert origin_of(healed._replace(provenance=[start, later])) == (
        "Begun 2026-11-27 04:05 UTC; started 2 times; 16 ranks, on a host with 8 x H100."
    )

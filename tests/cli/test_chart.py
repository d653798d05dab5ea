"""Curves as blocks."""

from mulligan.cli.chart import axis, bars


def test_columns_grow_with_their_values() -> None:
    assert bars([1.0, 2.0, 3.0, None, float("inf")], rows=2) == [
        "        3 ┤ ▁█!!",
        "        1 ┤▁██  ",
    ]  # fmt: skip


def test_an_even_curve_is_full_and_an_absent_one_has_no_numbers() -> None:
    assert [line[-2:] for line in bars([5.0, 5.0], rows=3)] == ["██"] * 3
    assert bars([None], rows=2)[0].endswith("nan ┤!")


def test_the_axis_marks_steps() -> None:
    assert axis([7, 8, 9], {9: "t", 3: "o"}) == "          └──t"

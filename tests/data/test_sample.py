"""The tokenizer's sample holds some of every source and part."""

from collections.abc import Iterator

from mulligan.data.sample import taken_in_turns


def parts(name: str, count: int) -> list[Iterator[str]]:
    """Of a hundred texts each."""
    return [iter([f"{name} {part} {text}" for text in range(100)]) for part in range(count)]


def test_all_sources_and_parts_have_their_turns_however_large() -> None:
    sample = list(taken_in_turns([parts("web", 4), [iter(["code 0 0", "code 0 1"])]], 1000))
    assert 1000 <= sum(map(len, sample)) < 1000 + 10
    assert {tuple(text.split()[:2]) for text in sample} == {("web", part) for part in "0123"} | {("code", "0")}
    assert len(set(sample)) == len(sample)


def test_a_source_that_is_short_of_text_leaves_its_share_to_the_others() -> None:
    sample = list(taken_in_turns([parts("web", 2), [iter(["code 0 0"])]], 10**9))
    assert len(sample) == len(set(sample)) == 201


def test_a_part_of_less_than_a_turn_goes_whole_before_the_next() -> None:
    small = [iter(["aa", "ab"]), iter(["ba", "bb"])]
    assert list(taken_in_turns([small], 1000)) == ["aa", "ab", "ba", "bb"]

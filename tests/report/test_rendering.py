"""A figure becomes a PNG and an SVG that a page can hold."""

import re

import pytest
from matplotlib.figure import Figure

from mulligan.report.palette import COLORS, KEPT
from mulligan.report.rendering import Picture, render


def draw(figure: Figure) -> None:
    axes = figure.subplots()
    axes.plot([1, 2], [3, 4], "o-", color=KEPT, label="kept")
    axes.legend()


@pytest.fixture(scope="module")
def picture() -> Picture:
    return render("name", 4.0, 2.0, draw)


def test_the_page_gives_the_colours_and_the_type(picture: Picture) -> None:
    assert picture.png.startswith(b"\x89PNG")
    assert picture.svg.startswith("<svg")
    assert "stroke: var(--kept)" in picture.svg
    assert not [color for color in COLORS.values() if color.light in picture.svg]
    assert re.search(r"<text[^>]*>kept</text>", picture.svg), "letters are letters"


def test_nothing_clashes_with_another_picture_or_changes_with_the_time(picture: Picture) -> None:
    other = render("other", 4.0, 2.0, draw)
    ids = [set(re.findall(r'id="([^"]+)"', one.svg)) for one in (picture, other)]
    assert ids[0]
    assert not ids[0] & ids[1]
    assert render("name", 4.0, 2.0, draw) == picture

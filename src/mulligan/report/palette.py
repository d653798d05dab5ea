"""The colours of every picture, and what a page that is read in the dark makes of them.

Blue, red and amber stay apart for eyes that see no red or no green; lines differ in their dashes as well.
"""

from typing import NamedTuple


class Color(NamedTuple):
    light: str
    dark: str


COLORS = {
    "ink": Color("#1b2430", "#e6eaf0"),
    "muted": Color("#5a6675", "#98a4b3"),
    "grid": Color("#dfe4ea", "#2f3944"),
    "kept": Color("#1f5f99", "#6db1ec"),
    "given-up": Color("#c8433f", "#f2837c"),
    "withheld": Color("#d98b1f", "#ecab4a"),
    "band": Color("#b7cadb", "#3d566e"),
}
INK, MUTED, GRID, KEPT, GIVEN_UP, WITHHELD, BAND = (color.light for color in COLORS.values())

"""A figure drawn once as a PNG and as SVG for a page, whose style sheet gives it its colours and its type."""

import io
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure

from mulligan.report.palette import COLORS, GRID, INK, MUTED

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # letters stay letters: the page's own type, which can be searched
    "font.size": 8.0,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 7.5,
    "axes.edgecolor": GRID,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "path.simplify_threshold": 0.3,  # of a pixel: what a line of many thousand points may be off by
}
PNG_DPI = 144
_VARIABLES = {color.light: f"var(--{name})" for name, color in COLORS.items()}


class Picture(NamedTuple):
    name: str
    svg: str
    png: bytes


def render(name: str, width: float, height: float, draw: Callable[[Figure], None]) -> Picture:
    """``width`` and ``height`` in inches; the SVG may be put into a page as it is."""
    with mpl.rc_context(STYLE | {"svg.hashsalt": name}):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        figure.get_layout_engine().execute(figure)  # type: ignore[union-attr]  # "constrained" is one
        figure.set_layout_engine("none")  # once: both files show the same
        drawn, png = io.StringIO(), io.BytesIO()
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
        figure.savefig(png, format="png", dpi=PNG_DPI, facecolor="white")
    return Picture(name, _for_a_page(drawn.getvalue()), png.getvalue())


def _for_a_page(svg: str) -> str:
    """Without what only a file of its own needs, and with names in place of colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # several pictures would share them
    svg = re.sub(r' (?:width|height)="[\d.]+pt"', "", svg, count=2)
    return re.sub("|".join(_VARIABLES), lambda found: _VARIABLES[found[0]], svg)

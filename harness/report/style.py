"""How figures are drawn and saved: one palette, byte-stable SVG, no state left behind. matplotlib's home, with figures.

Colours: Okabe and Ito 2008, legible to colour-blind readers; marker and line style repeat what the colour says, so a
grey print loses nothing. Text stays text, with no date and fixed ids: equal numbers give equal bytes.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#E69F00", "#7F7F7F")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", ":", "-.")
WRONG, RIGHT, SHADE, GRID = "#D55E00", "#0072B2", "#F3D9C8", "#DDDDDD"

_SETTINGS = {
    "svg.hashsalt": "harness",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "xtick.bottom": False,
    "ytick.left": False,
    "savefig.dpi": 80,
}


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure ready for the page: file stem, title, one-line caption, text alternative, SVG bytes, size in px."""

    name: str
    title: str
    caption: str
    alt: str
    svg: bytes
    width: int
    height: int


def key(i: int) -> dict[str, Any]:
    """Colour, marker and line style of the i-th series."""
    return {"color": COLOURS[i % 8], "marker": MARKERS[i % 8], "linestyle": LINES[i % 4]}


def draw(rows: int, columns: int, size: tuple[float, float], paint: Callable[[Any, Any], None], **axes: Any) -> bytes:
    """SVG of `paint(figure, axes (rows, columns))` at `size` inches, under the settings above and no others."""
    import matplotlib
    from matplotlib.figure import Figure

    from harness.report.svg import smaller

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        figure = Figure(figsize=size, layout="constrained")
        paint(figure, figure.subplots(rows, columns, squeeze=False, **axes))
        out = io.BytesIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return smaller(out.getvalue().decode("utf-8")).encode("utf-8")

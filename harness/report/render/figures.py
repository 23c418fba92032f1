"""How figures are drawn and saved: one palette, byte-stable SVG, no state left behind. matplotlib's home, with figures.

An objective's colour, marker and line come from `harness.palette`; its betas are shades of that colour. Text stays
text, with no date and fixed ids: equal numbers give equal bytes.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from harness.metrics.statistics import Estimate
from harness.palette import LINES, MARKERS, Look
from harness.report.render.svg import TIP, smaller
from harness.report.render.text import ascii_visible
from harness.storage.atomic import write_atomic

Item = TypeVar("Item")
LEGEND = 3.6  # inches that a legend needs below a single panel
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
    """A figure ready for the page: file stem, title, one-line caption, text alternative, SVG bytes, size in px.

    `tags` as of a table.
    """

    name: str
    title: str
    caption: str
    alt: str
    svg: bytes
    width: int
    height: int
    tags: str = ""


def write_pictures(folder: Path, pictures: Sequence[Picture]) -> None:
    """The figures as SVG files; files of an earlier report that could draw more go."""
    folder.mkdir(exist_ok=True, parents=True)
    for old in folder.glob("*.svg"):
        if old.stem not in {picture.name for picture in pictures}:
            old.unlink()
    for picture in pictures:
        write_atomic(folder / f"{picture.name}.svg", picture.svg)


def line_style(look: Look) -> dict[str, Any]:
    """Colour, marker and line style of an objective, as matplotlib's keywords."""
    return {"color": look.colour, "marker": look.marker, "linestyle": look.line}


def shades(look: Look, count: int) -> list[dict[str, Any]]:
    """One key per beta of an objective, ascending: paler to full colour, each with a marker and a line of its own."""
    place = MARKERS.index(look.marker)
    return [
        {
            "color": _mixed(look.colour, 0.55 * (1 - i / (count - 1)) if count > 1 else 0.0),
            "marker": MARKERS[(place + i) % len(MARKERS)],
            "linestyle": LINES[(count - 1 - i) % len(LINES)],
        }
        for i in range(count)
    ]


def _mixed(colour: str, white: float) -> str:
    """The colour with a share of white."""
    channels = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(c + (255 - c) * white):02x}" for c in channels)


def picture(
    name: str, title: str, caption: str, alt: str, shape: tuple[int, int], size: tuple[float, float],
    paint: Callable[[Any, Any], None], **axes: Any,
) -> Picture:  # fmt: skip
    """A figure of `shape` (rows, columns) panels and `size` inches: `paint(figure, axes)` draws it."""
    svg = draw(*shape, size, paint, **axes)
    return Picture(name, title, caption, alt, svg, round(size[0] * 96), round(size[1] * 96))


def small_multiples(
    name: str, title: str, caption: str, alt: str, items: Sequence[Item], paint: Callable[[Any, Item], None],
    panel: tuple[float, float], margin: tuple[float, float], columns: int = 4, xlabel: str = "", ylabel: str = "",
    legend_columns: int = 0, **axes: Any,
) -> Picture:  # fmt: skip
    """A figure with one panel of `panel` inches per item, drawn by `paint(panel, item)`; rows share their label on the
    left, columns theirs below, and with `legend_columns` all panels one legend below them."""
    rows, wide = shape_of(len(items), columns)

    def paint_all(figure: Any, grid: Any) -> None:
        for each, item in zip(panels(grid, len(items)), items, strict=True):
            paint(each, item)
        for row in grid if ylabel else ():
            row[0].set_ylabel(ylabel)
        for each in grid[-1] if xlabel else ():
            each.set_xlabel(xlabel)
        if legend_columns:
            shared_legend(figure, grid, "outside lower center", legend_columns)

    least = LEGEND if legend_columns else 0.0
    size = max(panel[0] * wide + margin[0], least), panel[1] * rows + margin[1]
    return picture(name, title, caption, alt, (rows, wide), size, paint_all, **axes)


def shared_legend(
    figure: Any, grid: Any, place: str, columns: int = 1, order: Callable[[str], Any] | None = None
) -> None:
    """One legend for all panels: each label once, in the order met or by `order`."""
    handles = {label: h for panel in grid.flat for h, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    labels = sorted(handles, key=order) if order else list(handles)
    figure.legend([handles[label] for label in labels], labels, loc=place, ncols=columns, fontsize=8)


def error_bars(panel: Any, x: Sequence[float], y: Sequence[Estimate], **style: Any) -> None:
    """Means with their intervals; no bar where there is no interval."""
    panel.errorbar(x, [one.mean for one in y], yerr=whiskers(y), **style)


def tip(text: str) -> str:
    """The id (`gid`) of a mark that says `text` when a pointer rests on it, and to a screen reader."""
    return TIP + ascii_visible(text.replace("\u2212", "-"))


def band(panel: Any, x: Sequence[float], y: Sequence[Estimate], colour: str) -> None:
    """The intervals as a pale band; nothing where there is none."""
    bounded = [(at, one.low, one.high) for at, one in zip(x, y, strict=True) if math.isfinite(one.low)]
    if bounded:
        panel.fill_between(*zip(*bounded, strict=True), color=colour, alpha=0.15, linewidth=0)


def small_text(panel: Any, text: str, x: float, y: float) -> None:
    """A small note beside a mark."""
    panel.annotate(text, (x, y), xytext=(5, 3), textcoords="offset points", fontsize=7, color="#444444")


def legend(panel: Any, **place: Any) -> None:
    """A legend where the panel holds any line: an objective without a finished run leaves its panel empty."""
    if panel.get_legend_handles_labels()[0]:
        panel.legend(fontsize=8, **place)


def shape_of(count: int, columns: int = 4) -> tuple[int, int]:
    """(rows, columns) for so many panels, at most `columns` side by side: wider figures shrink beyond reading.

    One column fewer where that leaves fewer places empty.
    """
    wide = min(count, columns)
    if count > columns > 2 and -count % (columns - 1) < -count % columns:
        wide = columns - 1
    return -(-count // wide), wide


def panels(axes: Any, count: int) -> list[Any]:
    """The first `count` panels in reading order; the rest of the grid is switched off."""
    flat = list(axes.flat)
    for panel in flat[count:]:
        panel.set_axis_off()
    return flat[:count]


def whiskers(estimates: Sequence[Estimate]) -> tuple[list[float], list[float]]:
    """How far the intervals reach below and above their means, as error bars take it; 0 where that is unknown."""
    below, above = [one.mean - one.low for one in estimates], [one.high - one.mean for one in estimates]
    return [x if math.isfinite(x) else 0.0 for x in below], [x if math.isfinite(x) else 0.0 for x in above]


def log_steps(panel: Any, steps: Sequence[int]) -> None:
    """Checkpoints are log-spaced and include step 0: a symmetric log axis with few, plain ticks."""
    positive = [step for step in steps if step > 0]
    if not positive:
        return
    panel.set_xscale("symlog", linthresh=positive[0])
    ticks = sorted({0, positive[0], positive[len(positive) // 2], positive[-1]})
    panel.set_xticks(ticks, [str(tick) for tick in ticks])
    panel.set_xticks([], minor=True)


def draw(rows: int, columns: int, size: tuple[float, float], paint: Callable[[Any, Any], None], **axes: Any) -> bytes:
    """SVG of `paint(figure, axes (rows, columns))` at `size` inches, under the settings above and no others."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        figure = Figure(figsize=size, layout="constrained")
        paint(figure, figure.subplots(rows, columns, squeeze=False, **axes))
        out = io.BytesIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return smaller(out.getvalue().decode("utf-8")).encode("utf-8")

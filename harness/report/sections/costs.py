"""What it costs, and what one gets for it: time, tokens, FLOPs and memory per run, and quality against FLOPs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from harness.report.data.cells import RANKING, Cell, measured
from harness.report.data.report_data import ReportData
from harness.report.render.blocks import Content, Field, Table, present
from harness.report.render.figures import Picture, error_bars, line_style, picture, shared_legend, small_text
from harness.report.render.text import DASH, ascii_visible, number, plain, visible
from harness.report.sections.row import Section


def costs(data: ReportData) -> Content | None:
    """Cost table by objective; where costs differ enough to matter, quality against FLOPs."""
    cells = [cell for cell in data.headline.cells if cost(cell, "flops") is not None]
    if not cells:
        return None
    spread = [value for cell in cells if (value := cost(cell, "flops"))]
    differs = len(spread) > 1 and max(spread) > 1.2 * min(spread)
    return Content(
        "What does it cost?",
        "Means per finished run. Runs train in packs that share the machine, so seconds are a run's share of its pack's"
        " time and peak memory is the whole process's. The reference is trained once per seed and not counted;"
        " FLOPs of RLHF include its reward model and sampling.",
        present(_table(data, cells), _picture(data, cells) if differs else None),
    )


def cost(cell: Cell, name: str) -> float | None:
    """Mean of a cost column over finished runs, FLOPs with those of the reward model; None where none states it."""
    done = [run.costs for run in cell.runs if run.done and run.costs.get(name) is not None]
    shared = "reward_flops" if name == "flops" else ""
    return _mean([float(costs[name]) + float(costs.get(shared) or 0.0) for costs in done])


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _cost_of(cells: Sequence[Cell], objective: str, name: str) -> float | None:
    """Mean of a cost over the cells of an objective."""
    return _mean([v for c in cells if c.first.objective == objective and (v := cost(c, name)) is not None])


def _table(data: ReportData, cells: Sequence[Cell]) -> Table:
    unit = _cost_of(cells, data.baseline, "flops")
    rows = []
    for name in dict.fromkeys(cell.first.objective for cell in cells):
        seconds, tokens, flops, memory = (
            _cost_of(cells, name, column) for column in ("seconds", "tokens", "flops", "peak_memory")
        )
        rows.append(
            (
                Field(visible(name), mark=data.looks[name].colour),
                Field(quantity_of(seconds, "s")),
                Field(quantity_of(tokens, "")),
                Field(quantity_of(flops, "")),
                Field(f"{flops / unit:.2f}\u00d7" if unit and flops else DASH),
                Field(DASH if memory is None else f"{memory / 2**20:.0f} MiB"),
            )
        )
    header = ("Objective", "time", "tokens", "FLOPs", f"FLOPs to {visible(data.baseline)}'s", "peak memory")
    return Table(
        f"Cost per run, {data.headline.title}", header, tuple(rows), f"costs.csv has every run.{_saving(cells)}"
    )


def _saving(cells: Sequence[Cell]) -> str:
    """What dpo saves over ppo, beside what is said of it; empty without both."""
    spent = [(_cost_of(cells, "dpo", name), _cost_of(cells, "ppo", name)) for name in ("seconds", "flops")]
    shares = [1 - a / b for a, b in spent if a is not None and b]
    if len(shares) < 2:
        return ""
    return f" dpo saves {shares[0]:.0%} of ppo's time and {shares[1]:.0%} of its FLOPs; the literature reports 60-70 %."


def quantity_of(value: float | None, unit: str) -> str:
    """`1.3 s`, `41.0k`, `14.2G`: three significant digits with a decimal prefix."""
    if value is None:
        return DASH
    for size, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{number(value / size, 1)}{prefix}" + (f" {unit}" if unit else "")
    return f"{value:.3g}" + (f" {unit}" if unit else "")


def _picture(data: ReportData, cells: Sequence[Cell]) -> Picture | None:
    labels = {RANKING: "ranking accuracy (held out)", "gold_reward": f"{data.sweep.reward} of samples"}
    shown = [(name, label) for name, label in labels.items() if measured(cells, name)]
    if not shown:
        return None
    flops = {cell: value for cell in cells if (value := cost(cell, "flops"))}

    def paint(figure: Any, axes: Any) -> None:
        for panel, (measure, label) in zip(axes[0], shown, strict=True):
            for name in dict.fromkeys(cell.first.objective for cell in cells):
                marks = [c for c in measured(cells, measure) if c.first.objective == name]
                x, y = [flops.get(cell, math.nan) for cell in marks], [cell.estimate(measure) for cell in marks]
                style = line_style(data.looks[name]) | {"linestyle": "none", "markersize": 6}
                error_bars(panel, x, y, elinewidth=0.8, label=ascii_visible(name), **style)
                for cell, at, one in zip(marks, x, y, strict=True):
                    small_text(panel, plain(cell.first.beta), at, one.mean)
            panel.set_xscale("log")
            ticks = _ticks(list(flops.values()))
            panel.set_xticks(ticks, [quantity_of(tick, "") for tick in ticks])
            panel.set_xticks([], minor=True)
            panel.set_xlabel("training FLOPs per run (log)")
            panel.set_ylabel(label)
        shared_legend(figure, axes, "outside right upper")

    return picture(
        "compute",
        "Quality at equal compute",
        f"Condition: {data.headline.title}. One mark per objective and beta (its number), with 95 % intervals over"
        " seeds. Compare the height of marks at equal FLOPs.",
        f"Scatter of ranking accuracy and {data.sweep.reward} against training FLOPs.",
        (1, len(shown)),
        (3.6 * len(shown) + 1.4, 3.2),
        paint,
    )


def _ticks(values: Sequence[float]) -> list[float]:
    """The cheapest and every value well above the one before: a factor of 5 has no decades to name."""
    kept: list[float] = []
    for value in sorted(set(values)):
        if not kept or value > 1.5 * kept[-1]:
            kept.append(value)
    return kept


ROWS = (Section("costs", "Cost", costs),)

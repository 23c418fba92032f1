"""What it costs, and what one gets for it: time, tokens, FLOPs and memory a run, and quality against FLOPs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from harness.report.data.cells import Cell
from harness.report.data.context import Material
from harness.report.render.blocks import Field, Section, Table, given
from harness.report.render.figures import Picture, drawn, picture, whiskers
from harness.report.render.text import DASH, ascii_visible, number, plain, visible

MEASURES = (("ranking_accuracy", "ranking accuracy (held out)"), ("gold_reward", "gold reward of samples"))


def costs(m: Material) -> Section | None:
    """Cost table by objective; where costs differ enough to matter, quality against FLOPs."""
    cells = [cell for cell in m.headline.cells if cost(cell, "flops") is not None]
    if not cells:
        return None
    spread = [value for cell in cells if (value := cost(cell, "flops"))]
    differs = len(spread) > 1 and max(spread) > 1.2 * min(spread)
    return Section(
        "What does it cost?",
        "Means per finished run. Runs train in packs that share the machine, so seconds are a run's share of its pack's"
        " time and peak memory is the whole process's. The reference is trained once per seed and not counted;"
        " FLOPs of RLHF hold those of its reward model and of sampling.",
        given(_table(m, cells), _picture(m, cells) if differs else None),
    )


def cost(cell: Cell, name: str) -> float | None:
    """Mean of a cost column over finished runs, FLOPs with those of the reward model; None where none states it."""
    done = [run.costs for run in cell.runs if run.status == "done" and run.costs.get(name) is not None]
    shared = "reward_flops" if name == "flops" else ""
    values = [float(found[name]) + float(found.get(shared) or 0.0) for found in done]
    return math.fsum(values) / len(values) if values else None


def _table(m: Material, cells: Sequence[Cell]) -> Table:
    base = [value for c in cells if c.first.objective == m.baseline and (value := cost(c, "flops"))]
    unit = math.fsum(base) / len(base) if base else None
    rows = []
    for name in m.headline.by_objective:
        own = [cell for cell in cells if cell.first.objective == name]
        if own:
            found = {column: _mean(own, column) for column in ("seconds", "tokens", "flops", "peak_memory")}
            ratio = found["flops"] / unit if unit and found["flops"] else None
            rows.append(
                (
                    Field(visible(name), mark=m.looks[name].colour),
                    Field(quantity_of(found["seconds"], "s")),
                    Field(quantity_of(found["tokens"], "")),
                    Field(quantity_of(found["flops"], "")),
                    Field(DASH if ratio is None else f"{ratio:.2f}\u00d7"),
                    Field(DASH if found["peak_memory"] is None else f"{found['peak_memory'] / 2**20:.0f} MiB"),
                )
            )
    header = ("Objective", "time", "tokens", "FLOPs", f"FLOPs to {visible(m.baseline)}'s", "peak memory")
    return Table(f"Cost of a run, {m.headline.title}", header, tuple(rows), f"Each run: costs.csv.{_saving(cells)}")


def _saving(cells: Sequence[Cell]) -> str:
    """What dpo saves over ppo, beside what is told of it; empty without both."""
    one, other = ([c for c in cells if c.first.objective == name] for name in ("dpo", "ppo"))
    spent = [(_mean(one, name), _mean(other, name)) for name in ("seconds", "flops")]
    shares = [1 - a / b for a, b in spent if a is not None and b]
    if len(shares) < 2:
        return ""
    return (
        f" dpo saves {shares[0]:.0%} of ppo's time and {shares[1]:.0%} of its FLOPs; the literature tells of 60-70 %."
    )


def _mean(cells: Sequence[Cell], name: str) -> float | None:
    values = [value for cell in cells if (value := cost(cell, name)) is not None]
    return math.fsum(values) / len(values) if values else None


def quantity_of(value: float | None, unit: str) -> str:
    """`1.3 s`, `41.0k`, `14.2G`: three significant digits with a decimal prefix."""
    if value is None:
        return DASH
    for size, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{number(value / size, 1)}{prefix}" + (f" {unit}" if unit else "")
    return f"{value:.3g}" + (f" {unit}" if unit else "")


def _picture(m: Material, cells: Sequence[Cell]) -> Picture | None:
    shown = [(name, label) for name, label in MEASURES if any(cell.estimate(name).n for cell in cells)]
    if not shown:
        return None
    names = dict.fromkeys(cell.first.objective for cell in cells)

    def paint(figure: Any, axes: Any) -> None:
        for panel, (measure, label) in zip(axes[0], shown, strict=True):
            for name in names:
                own = [c for c in cells if c.first.objective == name and c.estimate(measure).n]
                x = [cost(cell, "flops") or math.nan for cell in own]
                found = [cell.estimate(measure) for cell in own]
                ends = whiskers(found)
                style = drawn(m.looks[name]) | {"linestyle": "none", "markersize": 6, "label": ascii_visible(name)}
                panel.errorbar(x, [e.mean for e in found], yerr=ends, elinewidth=0.8, **style)
                for cell, at, one in zip(own, x, found, strict=True):
                    place = {"xytext": (5, 3), "textcoords": "offset points", "fontsize": 7, "color": "#444444"}
                    panel.annotate(plain(cell.first.beta), (at, one.mean), **place)
            panel.set_xscale("log")
            ticks = _ticks([value for cell in cells if (value := cost(cell, "flops"))])
            panel.set_xticks(ticks, [quantity_of(tick, "") for tick in ticks])
            panel.set_xticks([], minor=True)
            panel.set_xlabel("training FLOPs a run (log)")
            panel.set_ylabel(label)
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper", fontsize=8)

    return picture(
        "compute",
        "Quality at equal compute",
        f"Condition: {m.headline.title}. One mark per objective and beta (its number), with 95 % intervals over seeds."
        " Compare marks at the same place across, or higher marks further left.",
        "Scatter of ranking accuracy and gold reward against training FLOPs.",
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

"""Which beta, and which assumed flip rate: ranking accuracy against beta, by rate, and by assumed `eps`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from harness.metrics.statistics import wilson
from harness.report.data.cells import Cell, measured
from harness.report.data.conditions import Condition, Family, noise
from harness.report.data.report_data import ReportData
from harness.report.data.run_facts import AUDITED
from harness.report.data.sweep import UNFINISHED
from harness.report.render.blocks import Content, Field, Table
from harness.report.render.figures import Picture, error_bars, line_style, small_multiples
from harness.report.render.text import (
    DASH,
    ascii_visible,
    interval,
    number,
    percent,
    percents,
    plain,
    points,
    shown,
    visible,
)
from harness.report.sections.row import Section

BEST = "\u2605"
PAID = ("kl", "gold_reward")  # what a setting costs and is worth, beside the map
MIN_BETAS = 4  # betas that make a curve; fewer stand in the heat maps
OPTIMUM = ("dpo", "ppo", "rloo")  # their optimum under finite labels is the RLHF one
LONG = 40  # rows shown; longer tables stand behind the fold
TALL = 12  # rows shown of tables with a single condition: beyond that they are a column of numbers, not a map
WIDE = 8  # columns; a family with more corruptions than this has them in rows


def betas(data: ReportData) -> Content | None:
    """A panel per clean condition in which some objective has `MIN_BETAS` betas."""
    clean = [c for c in data.conditions if c.clean and c in {f.clean for f in data.families} and _lines(c)]
    return Content(
        "Which beta?",
        "Each objective has its own scale of beta: compare shapes, not heights at one beta. The dotted line is what the"
        " optimum of DPO and RLHF would rank right, 1 - P(delta_ref + gap / beta < 0); the vertical line marks where"
        " that is one half. With hard labels there is no finite optimum, so nothing is predicted.",
        (_picture(data, clean[:4]),),
    ) if clean else None  # fmt: skip


def _lines(condition: Condition) -> dict[str, dict[float, Cell]]:
    """Cells by beta, ascending, of the objectives with enough of them."""
    lines = {}
    for name, cells in condition.by_objective.items():
        by_beta = {c.first.beta: c for c in reversed(measured(cells)) if c.first.beta}
        if len(by_beta) >= MIN_BETAS:
            lines[name] = dict(sorted(by_beta.items()))
    return lines


def _picture(data: ReportData, conditions: Sequence[Condition]) -> Picture:
    crossings = {c.title: crossing(*_predicted(c)) for c in conditions}

    def paint(panel: Any, condition: Condition) -> None:
        lines = _lines(condition)
        for name, by_beta in lines.items():
            values = [cell.ranking for cell in by_beta.values()]
            error_bars(panel, list(by_beta), values, capsize=2, label=name, **line_style(data.looks[name]))
        x, predicted = _predicted(condition)
        if x:
            panel.plot(x, predicted, color="#333333", linestyle=":", linewidth=1.8, label="predicted optimum")
        at = crossings[condition.title]
        if at is not None:
            panel.axvline(at, color="#333333", linewidth=0.8)
            panel.annotate(f" {at:.2g}", (at, 0.02), fontsize=8)
        panel.axhline(0.5, color="#888888", linewidth=0.8)
        panel.set_xscale("log")
        ticks = sorted({beta for by_beta in lines.values() for beta in by_beta})
        panel.set_xticks(ticks, [plain(tick) for tick in ticks], fontsize=7.5)
        panel.set_xticks([], minor=True)
        panel.set_ylim(-0.03, 1.05)
        panel.set_title(ascii_visible(condition.title), fontsize=9)
        panel.set_xlabel("beta (log)")

    marks = [f"{title}: beta {number(at, 2)}" for title, at in crossings.items() if at is not None]
    crossed = f" Predicted crossing of one half: {'; '.join(marks)}." if marks else ""
    return small_multiples(
        "betas",
        "Ranking accuracy against beta",
        f"Clean held-out pairs ranked right, with 95 % intervals over seeds; grey: chance.{crossed}",
        "Ranking accuracy against beta on a log axis, a line per objective.",
        conditions,
        paint,
        (4.3, 3.0),
        (0.3, 0.4),
        columns=2,
        ylabel="ranking accuracy",
        legend_columns=4,
        sharey=True,
    )


def _predicted(condition: Condition) -> tuple[list[float], list[float]]:
    """Betas and the idealised ranking accuracy at each, of the objectives whose optimum it is; none for hard labels."""
    if condition.first.labels != "bradley_terry":
        return [], []
    by_beta: dict[float, float] = {}
    for name in OPTIMUM:
        for cell in condition.by_objective.get(name, ()):
            value = cell.fact_estimate("theory.idealised")
            if value.n and cell.first.beta:
                by_beta.setdefault(cell.first.beta, value.mean)
    return sorted(by_beta), [by_beta[beta] for beta in sorted(by_beta)]


def crossing(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Where a falling curve, straight in log x between its points, first reaches one half; None where it does not."""
    for (a, ya), (b, yb) in zip(zip(x, y, strict=True), list(zip(x, y, strict=True))[1:], strict=False):
        if ya > 0.5 >= yb:
            return math.exp(math.log(a) + (math.log(b) - math.log(a)) * (ya - 0.5) / (ya - yb))
    return None


def heat(data: ReportData) -> Content | None:
    """A table per setting: objective and beta down, corruption across (or the other way round where that is wider)."""
    tables = [_heat_map(data, family) for family in (data.family, *(f for f in data.families if f is not data.family))]
    long = TALL if all(len(family.conditions) == 1 for family in data.families) else LONG
    open_ = 1 if len(tables[0].rows) <= long else 0
    return Content(
        "Which setting, at which rate?",
        f"Clean held-out pairs ranked right, %, mean over seeds; {BEST} best of its column. Blue: above one half"
        " (chance); orange: below. Intervals: point at a number, or cells.csv.",
        tuple(tables[:open_]),
        tuple(tables[open_:]),
        "The other settings" if open_ else "All objectives and betas",
    )


def _heat_map(data: ReportData, family: Family) -> Table:
    conditions = family.conditions
    arms = [[family.cell(arm, c) for c in conditions] for name in family.objectives for arm in family.arms(name)]
    arms.sort(key=lambda cells: -_height(cells))
    first = [next(cell for cell in cells if cell is not None) for cells in arms]
    best = [max((_mean(cells[i]) for cells in arms), default=-math.inf) for i in range(len(conditions))]
    marked = [[_heat(cell, best[i]) for i, cell in enumerate(cells)] for cells in arms]
    caption = family.title or "All objectives and betas"
    tags = [data.tags(condition).split(" ") for condition in conditions]
    world, labels = tags[0][0], tuple(own for _, own in tags)
    if len(conditions) > WIDE >= len(arms):
        columns = zip(*marked, strict=True)
        rows = [(Field(c.damage), *column) for c, column in zip(conditions, columns, strict=True)]
        names = ("Corruption", *(cell.named for cell in first))
        return Table(caption, names, tuple(rows), look="heat", tags=world, row_tags=labels)
    rows = []
    titles = dict(zip(PAID, ("KL", data.sweep.reward), strict=True))
    paid = {name: title for name, title in titles.items() if any(cell.estimate(name).n for cell in first)}
    for cell, shares in zip(first, marked, strict=True):
        name, beta = cell.first.objective, cell.first.beta
        text = "" if beta is None else f"\u03b2\u00a0{plain(beta)}"
        right = data.reward_model(cell)
        learnt = "" if right is None else f"reward model {percent(right.mean)}"
        head = Field(visible(name), ", ".join(filter(None, [text, cell.extra, learnt])), mark=data.looks[name].colour)
        rows.append((head, *shares, *(_paid(cell, one) for one in paid)))
    more = tuple(f"{title}, {noise(conditions[0])}" for title in paid.values())
    column_tags = ("", *labels, *[labels[0]] * len(more))
    header = ("Objective", *map(noise, conditions), *more)
    return Table(caption, header, tuple(rows), look="heat", tags=world, column_tags=column_tags)


def _mean(cell: Cell | None) -> float:
    return cell.ranking.mean if cell is not None and cell.ranking.n else -math.inf


def _height(cells: Sequence[Cell | None]) -> float:
    """A sort key: the mean over the conditions, without an outcome last."""
    known = [mean for cell in cells if math.isfinite(mean := _mean(cell))]
    return math.fsum(known) / len(known) if known else -math.inf


def _paid(cell: Cell, name: str) -> Field:
    value = cell.estimate(name)
    return Field(number(value.mean, 2), tip=shown(value)) if value.n else Field(DASH)


def _heat(cell: Cell | None, best: float) -> Field:
    if cell is None:
        return Field(DASH)
    value, state = cell.ranking, ""
    if cell.done < cell.planned:
        states = [run.status for run in cell.runs]
        lost = [f"{states.count(status)} {status}" for status in UNFINISHED if status in states]
        what = "incomplete: " if cell.waiting else ""
        state = f"{what}{cell.done} of {cell.planned} seeds done ({', '.join(lost)})"
    if not value.n:
        return Field(DASH, state)
    star = f"\u00a0{BEST}" if value.mean == best else ""
    return Field(points(value.mean) + star, state, shade(value.mean), tip=f"{percents(value)}, n = {value.n}")


def shade(share: float) -> str:
    """White at one half, towards blue at 1 and orange at 0: dark text stays legible on every step."""
    end = (0x86, 0xBB, 0xE0) if share >= 0.5 else (0xF2, 0xB1, 0x7C)
    weight = min(abs(share - 0.5) * 2, 1.0) ** 1.2
    return "#" + "".join(f"{round(255 + (channel - 255) * weight):02x}" for channel in end)


def misspecified(data: ReportData) -> Content | None:
    """Ranking accuracy by assumed eps, a row a condition, beside the flip rate that auditing 50 pairs estimates.

    None unless some objective was swept over `eps`.
    """
    by_condition = {c.title: {_column(cell): cell for cell in c.cells} for c in data.conditions}
    every = {column for cells in by_condition.values() for column in cells}
    columns = sorted(every, key=lambda column: (column[2] is not None, repr(column)))
    if len({eps for _, _, eps in columns if eps is not None}) < 2:
        return None
    rows = []
    for condition in data.conditions:
        cells = [by_condition[condition.title].get(column) for column in columns]
        accuracies = [Field(DASH) if cell is None else Field(shown(cell.ranking), _assumed(cell)) for cell in cells]
        rows.append((Field(condition.title), _audit(condition), *accuracies))
    header = tuple(f"{visible(name)}" + (f", eps {plain(eps)}" if eps is not None else "") for name, _, eps in columns)
    table = Table(
        "Assumed against true flip rate: held-out pairs ranked right",
        ("Condition", f"flip rate by auditing {AUDITED} pairs", *header),
        tuple(rows),
        f"The estimate is the share of wrong labels among {AUDITED} training pairs chosen by hash (first seed), with"
        " its 95 % Wilson interval: the estimate that checking so many labels by hand gives before training. An assumed"
        " rate is right, too low or too high against the rate that was flipped.",
    )
    lead = "The flip rate that cdpo and robust_dpo assume (eps), against the rate that the labels really have."
    return Content("What does a wrong guess of the flip rate cost?", lead, (table,))


def _column(cell: Cell) -> tuple[str, float, float | None]:
    """Objective, beta and assumed flip rate."""
    eps = cell.first.settings().get("hp.eps")
    return cell.first.objective, cell.first.beta or 0.0, None if eps is None else float(eps)


def _assumed(cell: Cell) -> str:
    """Whether the assumed flip rate is the true one of uniform flips, or which way it is wrong."""
    _, _, eps = _column(cell)
    if eps is None or cell.rate is None or cell.first.corruption not in ("none", "uniform_flip"):
        return ""
    return "right eps" if eps == cell.rate else "too low" if eps < cell.rate else "too high"


def _audit(condition: Condition) -> Field:
    facts = [facts for _, facts in condition.cells[0].recorded]
    if not facts or facts[0].audited is None:
        return Field(DASH)
    wrong, count = facts[0].audited
    bounds = wilson(wrong, count)
    return Field(number(wrong / count, 2), interval(bounds.low, bounds.high, 2))


ROWS = (
    Section("heat", "Every setting", heat),
    Section("betas", "Beta", betas),
    Section("misspecified", "Assumed flip rate", misspecified),
)

"""The frontier: ranking accuracy (and the reward of answers) against the KL paid for it, a curve per objective."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from harness.metrics.frontier import KLS, Setting
from harness.metrics.statistics import Estimate, t_interval
from harness.report.data.cells import RANKING, Cell
from harness.report.data.contrasts import AT_BEST, Contrast
from harness.report.data.dominance import Dominance
from harness.report.data.frontier import QUALITIES, Arena, at_kl, edge_text
from harness.report.data.report_data import ReportData
from harness.report.data.run_facts import REWARD_MODEL
from harness.report.render.blocks import Content, Field, Lines, Table, fields, present
from harness.report.render.figures import Picture, line_style, picture, shared_legend, small_text, whiskers
from harness.report.render.text import DASH, ascii_visible, percents, plain, quantity, shown, visible
from harness.report.sections.row import Section

DRAWN = 4  # arenas of the headline's setting that get a picture; all have a table
RANKED = "held-out pairs ranked right"


def frontier(data: ReportData) -> Content | None:
    """The headline's arena first, the others behind a fold; None where no objective but one was swept."""
    arenas = [data.arena, *(arena for arena in data.arenas if arena is not data.arena)]
    drawn = [arena for arena in arenas if arena.conditions[0].first.setting == data.headline.first.setting][:DRAWN]
    blocks = [
        tuple(
            replace(block, tags=data.tags(arena.first))
            for block in (_picture(data, arena) if arena in drawn else None, _table(data, arena))
            if block is not None
        )
        for arena in arenas
    ]
    if not any(blocks):
        return None
    edges = _edges(data)
    return Content(
        "What does each objective reach for the KL it pays?",
        "Equal betas are different scales; a nat of KL to the reference is the same for every objective. Objectives are"
        " compared at a KL that both reach in the same seed, and each at its best setting. Nothing is extrapolated, and"
        " where a best beta lies at the end of its grid there is no best: a wider grid may find a better one.",
        (*blocks[0], *present(edges)),
        tuple(block for several in blocks[1:] for block in several),
        "The other conditions",
    )


def _edges(data: ReportData) -> Lines | None:
    """`extend dpo below beta 0.5 (clean labels; uniform_flip 0.2)`."""
    where: dict[str, list[str]] = {}
    for arena in data.arenas:
        for name in arena.objectives:
            edge = arena.edge(name) if name != REWARD_MODEL else None
            if edge is not None:
                where.setdefault(edge_text(name, edge), []).append(arena.title)
    every = len(data.arenas)
    lines = [
        text + ("" if len(titles) == every else f" (with {'; with '.join(titles)})") for text, titles in where.items()
    ]
    return Lines(tuple(lines), "Grids that end at their best beta, or have one beta") if lines else None


def _curve(arena: Arena, name: str, measure: str) -> list[tuple[Setting, Cell, Estimate, Estimate]]:
    """Settings with their KL and quality over seeds, KL ascending, of those that have both."""
    points = []
    for cell in arena.of(name):
        kl = t_interval(list(cell.finished("kl").values()))
        quality = cell.estimate(measure)
        if kl.n and quality.n and math.isfinite(quality.mean) and kl.mean > 0:
            points.append((arena.setting(cell), cell, kl, quality))
    return sorted(points, key=lambda point: (point[2].mean, point[0]))


def _picture(data: ReportData, arena: Arena) -> Picture | None:
    shown_here = [m for m in QUALITIES if any(_curve(arena, name, m) for name in arena.objectives)]
    if not shown_here:
        return None

    def paint(figure: Any, axes: Any) -> None:
        for panel, measure in zip(axes[0], shown_here, strict=True):
            _panel(panel, data, arena, measure)
        shared_legend(figure, axes, "outside right upper")

    ceiling = " Dotted: what a vote over the training labels ranks right." if arena.ceiling else ""
    return picture(
        f"frontier-{data.arenas.index(arena) + 1}",
        _finding(data, arena),
        f"{arena.title}. One mark per setting (a beta at the ends of each line), means over seeds with 95 % intervals"
        " of both; lines join the betas of one objective at the same other settings. Dashed: the untrained reference,"
        f" at KL 0.{ceiling} Higher and further left is better.",
        f"{_finding(data, arena)}. Quality against KL to the reference on a log axis, a curve per objective.",
        (1, len(shown_here)),
        (4.6 * len(shown_here) + 1.4, 3.7),
        paint,
    )


def _panel(panel: Any, data: ReportData, arena: Arena, measure: str) -> None:
    for name in arena.objectives:
        points = _curve(arena, name, measure)
        style = line_style(data.looks[name])
        by_rest: dict[Setting, list[tuple[Setting, Cell, Estimate, Estimate]]] = {}
        for point in points:
            by_rest.setdefault(point[0][1:], []).append(point)
        for line in by_rest.values():
            x, y = [point[2] for point in line], [point[3] for point in line]
            panel.errorbar(
                [one.mean for one in x], [one.mean for one in y], xerr=_within(x), yerr=whiskers(y),
                elinewidth=0.7, label=ascii_visible(name), **style,
            )  # fmt: skip
            for _, cell, kl, quality in {line[0][0]: line[0], line[-1][0]: line[-1]}.values():  # its ends
                small_text(panel, plain(cell.first.beta), kl.mean, quality.mean)
    if measure == RANKING:
        for values, dashes in ((arena.reference, "--"), (arena.ceiling, ":")):
            if values:
                panel.axhline(
                    math.fsum(values.values()) / len(values), color="#888888", linewidth=1.0, linestyle=dashes
                )
    panel.set_xscale("log")
    low, high = panel.get_xlim()
    ticks = [kl for kl in KLS if low <= kl <= high and f"{kl:e}"[0] in "125" and f"{kl:e}"[2] == "0"]
    panel.set_xticks(ticks, [plain(tick) for tick in ticks])
    panel.set_xticks([], minor=True)
    panel.set_xlabel("KL to the reference, nats (log)")
    panel.set_ylabel(RANKED if measure == RANKING else f"{data.sweep.reward} of samples")


def _within(x: Sequence[Estimate]) -> tuple[list[float], list[float]]:
    """Error bars on a log axis: none reaches to 0."""
    below, above = whiskers(x)
    return [min(b, one.mean * 0.9) for b, one in zip(below, x, strict=True)], above


def _finding(data: ReportData, arena: Arena) -> str:
    """The widest dominance as a title; what is drawn where none is shown."""
    over = [d for d in data.dominances if d.arena is arena and d.everywhere and d.whole]
    best = max(over, key=lambda d: (d.everywhere == "better", abs(d.average.mean)), default=None)
    if best is None or best.whole is None:
        return "Ranking accuracy against the KL paid for it"
    low, high = best.whole
    at = f"at KL {at_kl(low)}" if low == high else f"at every KL from {at_kl(low)} to {at_kl(high)}"
    return f"{visible(best.objective)} ranks {best.everywhere} than {visible(data.baseline)} {at}"


def _table(data: ReportData, arena: Arena) -> Table | None:
    """A row per objective: its best setting, against the baseline at matched KL, and each at its best."""
    names = [name for name in arena.objectives if name != REWARD_MODEL]
    if len(names) < 2:
        return None
    here = {(c.objective, c.on): c for c in data.contrasts if c.arena is arena}
    over = {d.objective: d for d in data.dominances if d.arena is arena}
    rows = tuple(_row(data, arena, name, here, over.get(name)) for name in names)
    base = visible(data.baseline)
    header = ("Objective", "Best setting", "ranked right there", f"less {base}, same KL", "over all KLs compared",
              f"less {base}, each at its best")  # fmt: skip
    note = (
        "Differences in ranking accuracy, paired by seed, with intervals corrected for all comparisons of the page."
        " Every KL that is compared: matched.csv; every point: frontier.csv."
    )
    return Table(f"Same KL, and each at its best: {arena.title}", header, rows, note, "stack")


def _row(
    data: ReportData, arena: Arena, name: str, here: dict[tuple[str, str], Contrast], over: Dominance | None
) -> tuple[Field, ...]:
    edge, cell = arena.edge(name), arena.cell(name, arena.frontier(name).best_setting)
    right = None if cell is None else data.reward_model(cell)
    learnt = "" if right is None else f"reward model right on {percents(right)}"
    beside = ", ".join(filter(None, ["" if cell is None else cell.extra, learnt]))
    head = Field(visible(name), beside, mark=data.looks[name].colour)
    if cell is None:
        return (head, *fields("no finished run", *[DASH] * 4))
    text = arena.setting_text(name)
    if edge is None or edge.side == "only":
        best = (Field(text or "no beta", "only one beta tried" if edge else ""), Field(shown(cell.ranking), _kl(cell)))
    else:
        best = (Field("no best yet", edge_text(name, edge)), Field(DASH, f"{text}: {shown(cell.ranking)}"))
    if name == data.baseline:
        return (head, *best, *fields(DASH, DASH, DASH))
    at_kl, at_best = here.get((name, "kl")), here.get((name, AT_BEST))
    return (head, *best, _contrast(at_kl), _over(over), _contrast(at_best))


def _kl(cell: Cell) -> str:
    kl = cell.estimate("kl")
    return f"KL {shown(kl)}" if kl.n and math.isfinite(kl.mean) else ""


def _contrast(c: Contrast | None) -> Field:
    if c is None:
        return Field(DASH)
    if not c.made:
        return Field(c.word, c.note)
    where = f"at KL {at_kl(c.at)}" if c.at is not None else ""
    chosen = f"on other seeds {shown(Estimate(1, c.elsewhere, math.nan, math.nan))}" if c.elsewhere is not None else ""
    return Field(shown(c.corrected), "; ".join(filter(None, [c.word, where, chosen, c.note])))


def _over(d: Dominance | None) -> Field:
    if d is None or d.whole is None:
        return Field(DASH)
    low, high = d.whole
    span = f"{quantity(len(d.rows), 'KL')} from {at_kl(low)} to {at_kl(high)}" if low < high else f"KL {at_kl(low)}"
    if d.everywhere:
        return Field(f"{d.everywhere} at every one", span)
    parts = [f"{one.word} from {at_kl(one.low)} to {at_kl(one.high)}" for one in d.stretches]
    return Field("; ".join(parts) or "no difference shown at all of them", span)


ROWS = (Section("frontier", "Frontier", frontier),)

"""`write_comparison`: page, Markdown, JSON and CSV of sweeps side by side, from sweep folders and published ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.identity import content_hash
from harness.metrics.statistics import Verdict, wording
from harness.palette import looks
from harness.report.compare.cards import cards
from harness.report.compare.differences import Differences, Order, compare_levels
from harness.report.compare.levels import Level, Match, align, read_levels, size_text
from harness.report.compare.sentences import MEASURE, answer, spoken, titles
from harness.report.data.cells import CELL_COLUMNS, RANKING, baseline, cell_columns
from harness.report.data.tables import csv_bytes
from harness.report.render.blocks import Content, Field, Lines, Table, fields, present, stated
from harness.report.render.figures import (
    Picture,
    error_bars,
    legend,
    line_style,
    picture,
    shades,
    shared_legend,
    small_multiples,
)
from harness.report.render.text import ascii_visible, quantity, shown, visible
from harness.report.sections.row import Page, Section, make_sections, write_page
from harness.storage.atomic import write_atomic, write_json
from harness.storage.output import check_own

JSON = "comparison.json"
FILES = ("index.html", "report.md", JSON, "differences.csv", "order.csv", "slopes.csv")
MOST_PANELS = 12
OPEN = ("order", "cells", "size")
WORDS = {
    "holds": "holds",
    "reversed": "reversed",
    "changed": "differs in size",
    "open": "not shown everywhere",
    "none": "shown nowhere",
}


def write_comparison(folders: Sequence[Path], out: Path) -> Differences:
    """Compare sweeps and write `index.html`, `report.md`, `comparison.json`, three CSV tables and figures into `out`.

    The bytes depend on the folders' files only. Raises InputError where there is nothing to compare, and where `out`
    holds a page of something else.
    """
    check_own(out, (JSON,))
    levels = read_levels(folders)
    found = compare_levels(align(levels), baseline(levels[0].sweep))
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / JSON, plain(found))
    write_atomic(out / "differences.csv", differences_csv(found))
    write_atomic(out / "order.csv", order_csv(found))
    write_atomic(out / "slopes.csv", slopes_csv(found))
    write_page(out, build_page(found))
    return found


def build_page(found: Differences) -> Page[Differences]:
    """All texts and figures of the page."""
    levels, matches = found.alignment.levels, found.alignment.matches
    questions = list(dict.fromkeys(visible(level.sweep.question) for level in levels if level.sweep.question))
    return Page(
        kind="comparison",
        name=", ".join(level.name for level in levels),
        question=questions[0] if len(questions) == 1 else "Does it hold in the other sweep?",
        answer=answer(found),
        cards=cards(found),
        heroes=_scatter(found),
        open=OPEN,
        folded="In full sentences",
        status=f"{quantity(len(matches), 'matching cell')}; {'; '.join(_status(level) for level in levels)}.",
        sections=make_sections(SECTIONS, found),
        texts="none",
    )


def _status(level: Level) -> str:
    size = "" if level.parameters is None else f" ({size_text(level.parameters)} parameters)"
    return f"{level.name}{size}: {level.sweep.status_line}, {quantity(len(level.cells), 'cell')}"


# --- sections ---


def order(found: Differences) -> Content | None:
    """Every objective against the baseline, level by level."""
    if not found.orders:
        return None
    names, base = [level.name for level in found.alignment.levels], visible(found.baseline)
    called = spoken(found)
    rows = tuple(
        (
            Field(one.cell.first.named, called[one.cell.first.first.condition]),
            Field(one.base.first.named),
            *(_judged(one.by_level.get(i)) for i in range(len(names))),
            *(_judged(one.changes.get(i)) for i in found.alignment.others),
            Field(WORDS[one.word]),
        )
        for one in found.orders
    )
    changes = (f"{name} minus {names[0]}" for name in names[1:])
    return Content(
        f"Does the order against {base} hold?",
        f"Ranking accuracy minus that of {base} under the same condition, each at the setting that ranks most pairs"
        " right over all sweeps together. It holds where every sweep shows the same side, and is reversed where"
        " two show opposite sides.",
        (Table("Differences in each sweep", ("Cell", "minus", *names, *changes, "order"), rows, look="stack"),),
    )


def cells(found: Differences) -> Content:
    """Every matching cell: its value in each level, and the difference."""
    tables = [table for measure in MEASURE if (table := _cell_table(found, measure)) is not None]
    return Content(
        "What is different, cell by cell?",
        f"Means over seeds, and the other sweep minus {found.alignment.levels[0].name}, interval corrected for"
        f" {quantity(found.family, 'comparison')}.",
        tuple(tables[:2]),
        tuple(tables[2:]),
        "Further measures",
    )


def _cell_table(found: Differences, measure: str) -> Table | None:
    names, called = [level.name for level in found.alignment.levels], spoken(found)
    by_match: dict[int, dict[int, Any]] = {}
    for one in found.cells:
        if one.measure == measure:
            by_match.setdefault(id(one.match), {})[one.other] = one
    rows = [
        (
            Field(match.first.named, called[match.first.first.condition]),
            *(_mean(match, i, measure) for i in range(len(names))),
            *(_difference(by_match[id(match)].get(i)) for i in found.alignment.others),
        )
        for match in found.alignment.matches
        if id(match) in by_match
    ]
    head = ("Cell", *names, *(f"{name} minus {names[0]}" for name in names[1:]))
    return Table(MEASURE[measure].capitalize(), head, tuple(rows), look="stack") if rows else None


def _mean(match: Match, level: int, measure: str) -> Field:
    return Field(shown(match.cells[level].estimate(measure))) if level in match.cells else Field("\u2013")


def _difference(one: Any) -> Field:
    if one is None:
        return Field("\u2013")
    field = _judged(one.verdict)
    return Field(field.main, f"{field.sub}; {one.verdict.plain.n} seeds{'' if one.paired else ', not paired'}")


def _judged(verdict: Verdict | None) -> Field:
    return Field("\u2013") if verdict is None else Field(shown(verdict.corrected), wording(verdict.word, verdict.mde))


def _scatter(found: Differences) -> tuple[Picture, ...]:
    """Each other level against the first, a mark per matching cell; nothing where no measure has both."""
    measures = [m for m in (RANKING, "undesirable_zone") if any(one.measure == m for one in found.cells)]
    if not measures:
        return ()
    levels = found.alignment.levels
    panels = [(measure, other) for measure in measures for other in found.alignment.others]
    styles = looks(match.first.first.objective for match in found.alignment.matches)

    def paint(figure: Any, axes: Any) -> None:
        for panel, (measure, other) in zip(axes.flat, panels, strict=True):
            panel.plot([0, 1], [0, 1], color="#777777", linewidth=0.8, linestyle=":")
            for one in found.cells:
                if (one.measure, one.other) == (measure, other):
                    name = one.match.first.first.objective
                    x, y = (one.match.cells[i].estimate(measure).mean for i in (0, other))
                    style = line_style(styles[name]) | {"linestyle": "none", "markersize": 6}
                    fill = {} if one.shown else {"markerfacecolor": "none"}
                    panel.plot([x], [y], label=ascii_visible(name), **style, **fill)
            panel.set_title(MEASURE[measure], fontsize=9)
            panel.set_xlabel(ascii_visible(levels[0].name))
            panel.set_ylabel(ascii_visible(levels[other].name))
        shared_legend(figure, axes, "outside right upper")

    title = f"{len(found.shown)} of {quantity(len(found.cells), 'difference')} between the sweeps are shown"
    figure = picture(
        "side-by-side", title,
        "A mark per matching cell, means over seeds; on the dotted line both are equal. Filled marks: a difference is"
        " shown.",
        f"{title}. Scatter of the cells' means in one sweep against the other, by objective.",
        (1, len(panels)), (3.4 * len(panels) + 1.3, 3.4), paint,
    )  # fmt: skip
    return (figure,)


def sizes(found: Differences) -> Content | None:
    """Model size as an axis: slope per decade of parameters, cell by cell."""
    if not found.slopes:
        return None
    called, levels = spoken(found), found.alignment.levels
    tables = []
    for measure in MEASURE:
        rows = tuple(
            (
                Field(one.match.first.named, called[one.match.first.first.condition]),
                _judged(one.verdict),
                Field(shown(one.verdict.plain), f"{one.verdict.plain.n} seeds{'' if one.paired else ', not paired'}"),
            )
            for one in found.slopes
            if one.measure == measure
        )
        head = ("Cell", "per decade of parameters", "without correction")
        if rows:
            tables.append(Table(f"Slope of {MEASURE[measure]}", head, rows, look="stack"))
    known = ", ".join(f"{level.name} {level.parameters:,}" for level in levels)
    return Content(
        "What does model size change?",
        f"Parameters: {known}. The slope is what ten times as many parameters would change if the measure were"
        " straight in their logarithm; nothing outside the sizes that were trained is tested.",
        present(_size_picture(found), tables[:2]),
        tuple(tables[2:]),
        "Slopes of further measures",
    )


def _size_picture(found: Differences) -> Any:
    called, levels = spoken(found), found.alignment.levels
    ranked = [one.match for one in found.slopes if one.measure == RANKING]
    conditions: dict[str, list[Match]] = {}
    for match in ranked:
        conditions.setdefault(match.first.first.condition, []).append(match)
    if not conditions:
        return None
    styles = looks(match.first.first.objective for match in ranked)
    items = list(conditions.items())[:MOST_PANELS]
    ticks = sorted({level.parameters for level in levels if level.parameters})

    def paint(panel: Any, item: tuple[str, list[Match]]) -> None:
        for name in dict.fromkeys(match.first.first.objective for match in item[1]):
            own = [match for match in item[1] if match.first.first.objective == name]
            for match, look in zip(own, shades(styles[name], len(own)), strict=True):
                at = sorted(match.cells, key=lambda i: levels[i].parameters or 0)
                values = [match.cells[i].estimate(RANKING) for i in at]
                sizes_at = [float(levels[i].parameters or 0) for i in at]
                error_bars(panel, sizes_at, values, label=ascii_visible(match.first.named), capsize=2, **look)
        panel.set_xscale("log")
        panel.set_xticks(ticks, [size_text(tick) for tick in ticks])
        panel.set_xticks([], minor=True)
        panel.set_title(ascii_visible(called[item[0]]), fontsize=8.5)
        legend(panel)

    more = f" {len(items)} of {len(conditions)} conditions." if len(items) < len(conditions) else ""
    return small_multiples(
        "size", "Ranking accuracy over model size",
        f"A line per matching cell, means over seeds with 95 % intervals.{more}",
        "Lines of ranking accuracy over the number of parameters, by cell.",
        items, paint, (3.6, 2.8), (0.5, 0.4), columns=3, xlabel="parameters", ylabel="ranking accuracy", sharey=True,
    )  # fmt: skip


def axes(found: Differences) -> Content:
    """Which values of each axis all levels have, and which only one."""
    alignment = found.alignment
    rows = []
    for axis in alignment.axes:
        values = alignment.values(axis)
        common = [v for v in values[0] if all(v in other for other in values[1:])]
        alone = [", ".join(visible(v) for v in own if v not in common) or "\u2013" for own in values]
        rows.append(fields(axis, ", ".join(map(visible, common)) or "\u2013", *alone))
    names = [level.name for level in alignment.levels]
    unmatched = [
        f"{level.name}: {sum(i in match.cells for match in alignment.matches)} of {quantity(len(level.cells), 'cell')}"
        " have a counterpart."
        for i, level in enumerate(alignment.levels)
    ]
    seeds = [f"{level.name}: seeds {', '.join(map(str, level.sweep.seeds))}." for level in alignment.levels]
    table = Table("Axes", ("Axis", "in common", *(f"further in {name}" for name in names)), tuple(rows))
    return Content(
        "Which cells match?", "Cells match where all axes agree.", present(table if rows else None,
        Lines((*unmatched, *seeds))),
    )  # fmt: skip


def settings(found: Differences) -> Content:
    """What differs in spec, code and data."""
    alignment, names = found.alignment, [level.name for level in found.alignment.levels]
    spec = tuple(
        fields(name, *(visible(value) if (value := level.constant(name)) is not None else "several"
                       for level in alignment.levels))
        for name in alignment.differing
    )  # fmt: skip
    stated = [_stated(level) for level in alignment.levels]
    every = sorted(set().union(*stated))
    recorded = tuple(
        fields(name, *(visible(", ".join(sorted(one.get(name, ()))) or "not stated") for one in stated))
        for name in every
        if len({tuple(sorted(one.get(name, ()))) for one in stated}) > 1
    )
    tables = [
        Table(f"Different {what}", ("", *names), rows)
        for what, rows in (("in the spec", spec), ("in code and machine", recorded))
        if rows
    ]
    lines = tuple(_data_line(found, i) for i in alignment.others)
    return Content("What else is different?", "", present(tables, Lines(lines, "Data and references")))


def _stated(level: Level) -> dict[str, set[str]]:
    """Values of code and machine that the runs of a level state."""
    out: dict[str, set[str]] = {}
    for run in level.sweep.runs:
        code, machine = run.provenance.get("code") or {}, run.provenance.get("machine") or {}
        flat = {
            **(code.get("versions") or {}),
            "commit": code.get("commit"),
            "local changes": code.get("dirty"),
            **machine,
        }
        for name, value in flat.items():
            if value not in (None, ""):
                out.setdefault(name, set()).add(str(value))
    return out


def _data_line(found: Differences, other: int) -> str:
    """How many pairs of runs of one cell and seed have the same training set, reference and run key."""
    counts = {"training set": 0, "reference": 0, "run key": 0}
    total = 0
    for match in found.alignment.matches:
        if other not in match.cells:
            continue
        by_seed = [{run.seed: run for run in match.cells[i].runs} for i in (0, other)]
        for seed in sorted(by_seed[0].keys() & by_seed[1].keys()):
            first, second = by_seed[0][seed], by_seed[1][seed]
            total += 1
            counts["run key"] += first.key == second.key
            for name, part in (("training set", "data"), ("reference", "reference")):
                digests = [(run.provenance.get(part) or {}).get("sha256") for run in (first, second)]
                counts[name] += digests[0] is not None and digests[0] == digests[1]
    level = found.alignment.levels[other].name
    if not total:
        return f"{level}: no seed in common with {found.alignment.levels[0].name}, so nothing is paired."
    same = ", ".join(f"{count} the same {name}" for name, count in counts.items())
    return f"{level}: of {quantity(total, 'pair')} of runs with one cell and seed, {same}."


def methods(found: Differences) -> Content:
    """How to read the numbers."""
    keys = sorted(run.key for level in found.alignment.levels for run in level.sweep.runs)
    lines = (
        "Seeds that both sweeps have are compared with each other (Student's t over their differences) where at least 6"
        " are common, or all of the sweep with fewer; otherwise all seeds, as independent samples (Welch).",
        f"Corrected intervals hold for all {quantity(found.family, 'comparison')} of this page at once (Bonferroni):"
        " matching cells x measures x sweeps, changes of the order, and slopes beyond two sizes; those of the order"
        f" within a sweep for {quantity(found.family_within, 'comparison')}. Verdicts are the report's:"
        " at least 6 seeds, and for shares at least one point.",
        "Diverged and failed runs count as the measure's worst value.",
        "A setting that is constant in each sweep and differs between them does not keep cells from matching: a"
        " difference between sweeps is one between everything that is listed as different, together.",
        f"Digest of the run keys: {content_hash(keys)[:16]}.",
    )
    return Content("How to read the numbers", "", (Lines(lines),))


SECTIONS = (
    Section("order", "Order", order),
    Section("cells", "Cells", cells),
    Section("size", "Model size", sizes),
    Section("axes", "Axes", axes),
    Section("settings", "What differs", settings),
    Section("methods", "Methods", methods),
)


# --- tables ---


@dataclass(frozen=True)
class TrackedCell:
    """A matching cell of one sweep as a tracking server gets it."""

    name: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[str, float]


def tracked_cells(found: Differences) -> list[TrackedCell]:
    """Every matching cell of every sweep: its axes and model size as params, its means as metrics."""
    called, out = titles(found), []
    for match in found.alignment.matches:
        for i, cell in match.cells.items():
            level, first = found.alignment.levels[i], cell.first
            values = {
                "harness.sweep": level.name, "objective.name": first.objective, "objective.beta": first.beta,
                "corruption.kind": first.corruption, "corruption.rate": cell.rate, "world.misaligned": first.misaligned,
                "condition": called[match.first.first.condition], "model.parameters": level.parameters,
                "model.log10_parameters": level.parameters and round(math.log10(level.parameters), 4),
            }  # fmt: skip
            means = {f"final/{name}": cell.estimate(name).mean for name in MEASURE}
            out.append(
                TrackedCell(
                    f"{level.name}: {cell.named}, {called[match.first.first.condition]}",
                    {"harness.sweep": level.name, "harness.objective": first.objective},
                    {name: str(value) for name, value in values.items() if value is not None},
                    {name: mean for name, mean in means.items() if math.isfinite(mean)},
                )
            )
    return out


def _interval(verdict: Verdict | None, prefix: str = "") -> dict[str, Any]:
    if verdict is None:
        return {}
    one, alone = verdict.corrected, verdict.plain
    return {
        "n": alone.n, "low": one.low, "high": one.high, "verdict": verdict.word, "low_plain": alone.low,
        "high_plain": alone.high, "mde": verdict.mde,
    } | {prefix or "difference": alone.mean}  # fmt: skip


def _columns(found: Differences, match: Match) -> dict[str, Any]:
    first = match.first
    return cell_columns(first, ()) | {"condition": titles(found)[first.first.condition], "cell": first.named}


TESTED = ("n", "difference", "low", "high", "verdict", "paired", "low_plain", "high_plain", "mde", "family")


def differences_csv(found: Differences) -> bytes:
    """A row per matching cell, measure and other sweep: both means, and the difference with its intervals."""
    levels = found.alignment.levels
    rows = [
        _columns(found, one.match)
        | _interval(one.verdict)
        | {
            "measure": one.measure, "first": levels[0].name, "other": levels[one.other].name,
            "mean_first": one.match.first.estimate(one.measure).mean,
            "mean_other": one.match.cells[one.other].estimate(one.measure).mean,
            "paired": one.paired, "family": found.family,
        }
        for one in found.cells
    ]  # fmt: skip
    head = (*CELL_COLUMNS, "cell", "condition", "measure", "first", "other", "mean_first", "mean_other")
    return csv_bytes((*head, *TESTED), rows)


def order_csv(found: Differences) -> bytes:
    """A row per objective's cell and sweep: its difference to the baseline there, and the order over all sweeps."""
    rows = [
        _columns(found, one.cell)
        | _interval(verdict)
        | {"minus": one.base.first.named, "sweep": found.alignment.levels[i].name, "order": one.word}
        for one in found.orders
        for i, verdict in one.by_level.items()
    ]
    head = (*CELL_COLUMNS, "cell", "condition", "minus", "sweep", "order")
    return csv_bytes((*head, "n", "difference", "low", "high", "verdict", "low_plain", "high_plain", "mde"), rows)


def slopes_csv(found: Differences) -> bytes:
    """A row per matching cell and measure: the slope per decade of parameters."""
    rows = [
        _columns(found, one.match)
        | _interval(one.verdict, "slope")
        | {"measure": one.measure, "paired": one.paired, "family": found.family}
        for one in found.slopes
    ]
    head = (*CELL_COLUMNS, "cell", "condition", "measure")
    return csv_bytes((*head, "n", "slope", *TESTED[2:]), rows)


def plain(found: Differences) -> dict[str, Any]:
    """The content of `comparison.json`."""
    levels, called = found.alignment.levels, titles(found)

    def cell(match: Match) -> dict[str, Any]:
        return {"cell": match.first.named, "condition": called[match.first.first.condition]}

    return {
        "answer": [sentence.replace("\u00a0", " ") for sentence in answer(found)],
        "cards": stated(cards(found)),
        "baseline": found.baseline,
        "family": found.family,
        "sweeps": [
            {"name": one.name, "parameters": one.parameters, "runs": len(one.sweep.runs), "cells": len(one.cells)}
            for one in levels
        ],
        "matching_cells": len(found.alignment.matches),
        "axes": {axis: [list(values) for values in found.alignment.values(axis)] for axis in found.alignment.axes},
        "differing": {name: [level.constant(name) for level in levels] for name in found.alignment.differing},
        "differences": [
            cell(one.match)
            | {"measure": one.measure, "sweep": levels[one.other].name, "paired": one.paired}
            | _stated_verdict(one.verdict)
            for one in found.cells
        ],
        "order": [_plain_order(one, levels) | cell(one.cell) for one in found.orders],
        "slopes": [
            cell(one.match) | {"measure": one.measure, "paired": one.paired} | _stated_verdict(one.verdict)
            for one in found.slopes
        ],
    }  # fmt: skip


def _plain_order(one: Order, levels: Sequence[Level]) -> dict[str, Any]:
    def named(verdicts: Mapping[int, Verdict]) -> dict[str, Any]:
        return {levels[i].name: _stated_verdict(verdict) for i, verdict in verdicts.items()}

    return {
        "minus": one.base.first.named,
        "order": one.word,
        "by_sweep": named(one.by_level),
        "changes": named(one.changes),
    }


def _stated_verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        "n": verdict.plain.n, "verdict": verdict.word, "estimate": _finite(verdict.plain.mean),
        **{f"{name}{end}": _finite(value) for end, one in (("", verdict.corrected), ("_plain", verdict.plain))
           for name, value in (("low", one.low), ("high", one.high))},
    }  # fmt: skip


def _finite(value: float) -> float | None:
    return value if abs(value) < float("inf") else None

"""The sections of the page in reading order; each module holds the functions and rows of its sections."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from harness.plugins import Registry, short
from harness.report.data.report_data import ReportData
from harness.report.render.blocks import Content, Lines
from harness.report.render.text import visible
from harness.report.sections import (
    behaviour,
    benchmarks,
    cases,
    claims,
    cleaning,
    costs,
    damage,
    dataset,
    densities,
    displacement,
    frontier,
    gold,
    hyperparameters,
    judge,
    levels,
    pairs,
    plane,
    prediction,
    provenance,
    quality,
    regret,
    rounds,
    slices,
    statistics,
    survival,
    theory,
    trajectories,
    verdict_table,
)
from harness.report.sections.row import Section

ORDER = (
    cases, hyperparameters, verdict_table, frontier, levels, dataset, damage, cleaning, survival, trajectories, plane,
    displacement, densities, pairs, slices, behaviour, quality, gold, judge, benchmarks, claims, theory, prediction,
    regret, rounds, costs, statistics, provenance,
)  # fmt: skip
SECTIONS: Registry[Section[ReportData]] = Registry("sections", Section, (row for part in ORDER for row in part.ROWS))


def page_sections() -> tuple[Section[ReportData], ...]:
    """All rows, those of plug-ins last. A plug-in that raises shows its error in the section's place."""
    plugins = (replace(row, make=partial(_attempt, row)) for row in SECTIONS.found.rows.values())
    return (*SECTIONS.built_in.values(), *plugins)


def _attempt(row: Section[ReportData], data: ReportData) -> Content | None:
    try:
        return row.make(data)
    except Exception as error:  # a mistake of a plug-in costs its section, not the page
        plugin = short(SECTIONS.plugin(row.name))
        text = f"plug-in {plugin} could not draw this section: {type(error).__name__}: {error}"
        return Content(visible(row.short), "", (Lines((visible(text),)),))

"""The sections of the page in reading order; each module holds the functions and rows of its sections."""

from __future__ import annotations

from harness.report.data.report_data import ReportData
from harness.report.render.blocks import Content
from harness.report.sections import (
    behaviour,
    benchmarks,
    claims,
    costs,
    damage,
    dataset,
    densities,
    displacement,
    hyperparameters,
    pairs,
    plane,
    provenance,
    quality,
    regret,
    statistics,
    survival,
    theory,
    trajectories,
    verdict,
)
from harness.report.sections.row import Section

ORDER = (
    verdict, dataset, damage, survival, hyperparameters, trajectories, plane, displacement, densities, pairs, behaviour,
    quality, benchmarks, claims, theory, regret, costs, statistics, provenance,
)  # fmt: skip
SECTIONS: tuple[Section, ...] = tuple(row for module in ORDER for row in module.ROWS)


def sections(data: ReportData) -> tuple[tuple[Section, Content], ...]:
    """The sections that the sweep has data for, in the order of the page."""
    made = [(row, row.make(data)) for row in SECTIONS]
    return tuple((row, content) for row, content in made if content is not None)

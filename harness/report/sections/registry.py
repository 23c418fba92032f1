"""The sections of the page in reading order; each module holds the functions and rows of its sections."""

from __future__ import annotations

from harness.report.data.report_data import ReportData
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
SECTIONS: tuple[Section[ReportData], ...] = tuple(row for module in ORDER for row in module.ROWS)

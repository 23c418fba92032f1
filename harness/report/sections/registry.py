"""The sections of the page in reading order: a new one is one function and one row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.plugins import Registry, short
from harness.report.data.context import Material
from harness.report.render.blocks import Lines, Section
from harness.report.render.text import visible
from harness.report.sections.behaviour import behaviour
from harness.report.sections.benchmarks import benchmarks
from harness.report.sections.betas import betas
from harness.report.sections.claims import claims
from harness.report.sections.costs import costs
from harness.report.sections.damage import damage
from harness.report.sections.data import data
from harness.report.sections.densities import densities
from harness.report.sections.displacement import displacement
from harness.report.sections.heat import heat
from harness.report.sections.methods import limits, statistics
from harness.report.sections.misspecified import misspecified
from harness.report.sections.pairs import pairs
from harness.report.sections.plane import plane
from harness.report.sections.provenance import provenance
from harness.report.sections.quality import quality
from harness.report.sections.regret import regret
from harness.report.sections.replicas import replicas
from harness.report.sections.survival import survival
from harness.report.sections.theory import theory
from harness.report.sections.trajectories import trajectories
from harness.report.sections.verdicts import verdicts
from harness.report.sections.worst import worst


@dataclass(frozen=True, slots=True)
class Row:
    """`name` is the section's anchor, `short` its name in the table of contents; `make` gives None without data."""

    name: str
    short: str
    make: Callable[[Material], Section | None]


SECTIONS: tuple[Row, ...] = (
    Row("verdict", "Verdict", verdicts),
    Row("data", "Data", data),
    Row("damage", "Damage", damage),
    Row("survival", "Survival", survival),
    Row("betas", "Beta", betas),
    Row("heat", "Beta x rate", heat),
    Row("misspecified", "Assumed flip rate", misspecified),
    Row("trajectories", "Loss and ranking", trajectories),
    Row("plane", "Plane and zones", plane),
    Row("displacement", "Displacement", displacement),
    Row("densities", "Memorised noise", densities),
    Row("pairs", "Pairs", pairs),
    Row("worst", "Worst pairs", worst),
    Row("behaviour", "Answers", behaviour),
    Row("quality", "Quality", quality),
    Row("benchmarks", "Benchmarks", benchmarks),
    Row("claims", "Claims", claims),
    Row("theory", "Theory", theory),
    Row("regret", "Selection", regret),
    Row("costs", "Cost", costs),
    Row("statistics", "Statistics", statistics),
    Row("replicas", "A/A check", replicas),
    Row("limits", "Limits", limits),
    Row("provenance", "Provenance", provenance),
)


ALL_SECTIONS: Registry[Row] = Registry("sections", Row, SECTIONS)


def sections(m: Material) -> tuple[tuple[Row, Section], ...]:
    """The sections that the sweep has data for, in the order of the page; those of plug-ins stand last."""
    made = [(row, _made(row, m)) for row in ALL_SECTIONS.values()]
    return tuple((row, section) for row, section in made if section is not None)


def _made(row: Row, m: Material) -> Section | None:
    plugin = short(ALL_SECTIONS.plugin(row.name))
    if not plugin:
        return row.make(m)
    try:
        return row.make(m)
    except Exception as error:  # a mistake of a plug-in costs its section, not the page
        text = f"plug-in {plugin} could not draw this section: {type(error).__name__}: {error}"
        return Section(visible(row.short), "", (Lines((visible(text),)),))

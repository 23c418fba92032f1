"""The sections of the page in reading order: a new one is one function and one row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.report.behaviour import behaviour
from harness.report.benchmarks import benchmarks
from harness.report.betas import betas
from harness.report.blocks import Section
from harness.report.claims import claims
from harness.report.costs import costs
from harness.report.damage import damage
from harness.report.data import data
from harness.report.densities import densities
from harness.report.displacement import displacement
from harness.report.heat import heat
from harness.report.material import Material
from harness.report.methods import limits, statistics
from harness.report.misspecified import misspecified
from harness.report.pairs import pairs
from harness.report.plane import plane
from harness.report.provenance import provenance
from harness.report.quality import quality
from harness.report.regret import regret
from harness.report.replicas import replicas
from harness.report.survival import survival
from harness.report.theory import theory
from harness.report.trajectories import trajectories
from harness.report.verdicts import verdicts
from harness.report.worst import worst


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


def sections(m: Material) -> tuple[tuple[Row, Section], ...]:
    """The sections that the sweep has data for, in the order of the page."""
    made = [(row, row.make(m)) for row in SECTIONS]
    return tuple((row, section) for row, section in made if section is not None)

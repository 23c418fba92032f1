"""Claims of the literature, each with the cells of this sweep that test it: a claim is a row of a table.

A claim's function gives `Evidence`, or None where this sweep has no cells that test it. Which cells those are is fixed
by the design (highest beta, dial, rate), never chosen by their result. All claims tested make one family: intervals are
corrected for their number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.metrics.statistics import MIN_SEEDS, Estimate, bonferroni_interval, t_interval
from harness.report.data import evidence as found_by
from harness.report.data.context import Material
from harness.report.data.evidence import Evidence
from harness.report.render.blocks import Field, Lines, Section, Table, given
from harness.report.render.text import quantity, shown

HOLDS, FAILS, OPEN, INTERVAL = "holds here", "does not hold here", "not shown", "interval only"


@dataclass(frozen=True)
class Claim:
    """`test` finds the evidence; `needs` says what a sweep must contain for that."""

    name: str
    source: str
    needs: str
    test: Callable[[Material], Evidence | None]


def claims(m: Material) -> Section:
    """The claims that this sweep tests, with verdicts; below, those it cannot test and what they would need."""
    found = [(claim, claim.test(m)) for claim in CLAIMS]
    tested = [(claim, evidence) for claim, evidence in found if evidence is not None and evidence.values]
    untested = [claim for claim, evidence in found if evidence is None or not evidence.values]
    rows = tuple(_row(claim, evidence, len(tested)) for claim, evidence in tested)
    header = ("Claim", "Verdict", "Measured", "Cells")
    note = (
        f"Family of {len(rows)}: intervals corrected (Bonferroni) from {MIN_SEEDS} seeds on; below that plain intervals"
        " and no verdicts. Cells are fixed by the design, never chosen by their result. \u201cHolds here\u201d is about"
        " this world, these settings and this budget."
    )
    rest = Lines(tuple(f"{claim.name} ({claim.source}): needs {claim.needs}." for claim in untested))
    return Section(
        "Claims tested",
        "" if rows else "This sweep has no cells that test a claim of the list.",
        given(Table("Claims of the literature", header, rows, note, "stack") if rows else None),
        given(rest if untested else None),
        f"{quantity(len(untested), 'claim')} that this sweep cannot test",
    )


def _row(claim: Claim, evidence: Evidence, family: int) -> tuple[Field, ...]:
    interval, word = judged(evidence, family)
    return (
        Field(claim.name, claim.source),
        Field(word),
        Field(shown(interval), f"{evidence.what}; {quantity(interval.n, 'seed')}"),
        Field(evidence.cells),
    )


def judged(evidence: Evidence, family: int) -> tuple[Estimate, str]:
    """The interval, corrected from 6 seeds on, and the verdict's word."""
    values = list(evidence.values.values())
    if len(values) < MIN_SEEDS:
        return t_interval(values), INTERVAL
    found = bonferroni_interval(values, family)
    if found.low > 0 and found.mean >= evidence.margin:
        return found, HOLDS
    return found, FAILS if found.high < 0 else OPEN


DIAL = "dpo with a misaligned reference and clean labels"
FLIPS = "{} and dpo under uniform flips"
CONSTRAINED, RANKINGS = "arXiv 2605.20834", "arXiv 2405.19534"


def _better(name: str, source: str) -> Claim:
    return Claim(f"{name} ranks better than DPO under flips", source, FLIPS.format(name), found_by.robust(name))


CLAIMS: tuple[Claim, ...] = (
    Claim(
        "DPO's loss falls while it goes on preferring the rejected response",
        CONSTRAINED, DIAL, found_by.satisfied_too_early,
    ),
    Claim("Reward accuracy hides wrong rankings", RANKINGS, DIAL, found_by.reward_hides_ranking),
    Claim(
        "The larger beta, the larger DPO's undesirable zone",
        CONSTRAINED, f"{DIAL} at two betas", found_by.grows_with_beta,
    ),
    Claim(
        "On clean labels DPO's ranking accuracy drops below the reference's",
        "often told of DPO", DIAL, found_by.accuracy_drops,
    ),
    Claim(
        "With wrong labels DPO's ranking accuracy drops below the reference's while its loss falls",
        "arXiv 2404.09824", "dpo under corruption", found_by.accuracy_drops_under_noise,
    ),
    Claim("DPO lowers the chosen log-prob", "arXiv 2410.08847", "dpo on clean labels", found_by.chosen_falls),
    Claim(
        "Constrained preference optimization ranks right where DPO does not",
        CONSTRAINED, f"cpo_smooth and {DIAL}", found_by.constrained_keeps,
    ),
    Claim(
        "RLHF keeps its fidelity where DPO does not",
        CONSTRAINED, f"ppo or rloo beside {DIAL}", found_by.rlhf_keeps,
    ),
    Claim(
        "Constrained objectives lose more to flipped labels than DPO",
        "follows from their target: wrong labels are enforced harder", FLIPS.format("cpo_smooth"),
        found_by.constrained_enforces_noise,
    ),
    Claim(
        "Constrained objectives move further from the reference than DPO (KL)",
        "follows from their target", "cpo_smooth, dpo and samples", found_by.constrained_pays_kl,
    ),
    _better("robust_dpo", "arXiv 2403.00409"),
    _better("cdpo", "ericmitchell.ai/cdpo.pdf"),
    _better("ipo", "arXiv 2310.12036"),
    _better("dr_dpo", "arXiv 2407.07880"),
    _better("ropo", "arXiv 2404.04102"),
    _better("sympo", "arXiv 2505.24709"),
    Claim(
        "With Bradley-Terry labels DPO's failure is its own optimum",
        RANKINGS, "dpo with Bradley-Terry labels and known gold margins", found_by.optimum_predicts,
    ),
    Claim(
        "With hard labels DPO's failure is a stall that more steps soften",
        "follows from the loss: no finite minimiser", "dpo with a misaligned reference at two numbers of steps",
        found_by.stalls_within_budget,
    ),
)  # fmt: skip

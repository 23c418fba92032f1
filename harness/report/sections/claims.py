"""Claims of the literature, each with the cells of this sweep that test it: a claim is a function and its row.

A claim's function gives `Evidence`, or None where this sweep has no cells that test it. Which cells those are is fixed
by the design (highest beta, dial, rate), never chosen by their result. All claims tested make one family: intervals are
corrected for their number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from harness.metrics.statistics import (
    MIN_SEEDS,
    SHARE_MARGIN,
    Estimate,
    bonferroni_interval,
    paired_differences,
    t_interval,
)
from harness.report.data.cells import RANKING, Cell, measured
from harness.report.data.conditions import Condition, Family
from harness.report.data.report_data import ReportData
from harness.report.render.blocks import Content, Field, Lines, Table, present
from harness.report.render.text import plain, quantity, shown
from harness.report.sections.row import Section

HOLDS, FAILS, OPEN, INTERVAL = "holds here", "does not hold here", "not shown", "interval only"
CONSTRAINED = "cpo_smooth"
DIAL = "dpo with a misaligned reference and clean labels"
FLIPS = "{} and dpo under uniform flips"
CPO_PAPER, RANKINGS = "arXiv 2605.20834", "arXiv 2405.19534"
# Objectives that are said to stand flips better than dpo.
ROBUST = {
    "robust_dpo": "arXiv 2403.00409",
    "cdpo": "ericmitchell.ai/cdpo.pdf",
    "ipo": "arXiv 2310.12036",
    "dr_dpo": "arXiv 2407.07880",
    "ropo": "arXiv 2404.04102",
    "sympo": "arXiv 2505.24709",
}


@dataclass(frozen=True)
class Evidence:
    """What the named cells say: `values` by seed of a quantity (named by `what`) that the claim puts above 0.

    The claim holds where the corrected interval lies above 0 and the mean reaches the margin (one point for shares),
    and fails where the interval lies below 0.
    """

    cells: str
    what: str
    values: Mapping[int, float]
    margin: float = 0.0


Test = Callable[[ReportData], Evidence | None]


@dataclass(frozen=True)
class Claim:
    """`test` finds the evidence; `needs` says what a sweep must contain for that."""

    name: str
    source: str
    needs: str
    test: Test


CLAIMS: list[Claim] = []  # in the order of the functions below


def claims(data: ReportData) -> Content:
    """The claims that this sweep tests, with verdicts; below, those it cannot test and what they would need."""
    evidence = [(claim, claim.test(data)) for claim in CLAIMS]
    tested = [(claim, one) for claim, one in evidence if one is not None and one.values]
    untested = [claim for claim, one in evidence if one is None or not one.values]
    rows = tuple(_row(claim, one, len(tested)) for claim, one in tested)
    header = ("Claim", "Verdict", "Measured", "Cells")
    note = (
        f"Family of {len(rows)}: intervals corrected (Bonferroni) from {MIN_SEEDS} seeds on; below that plain intervals"
        " and no verdicts. Cells are fixed by the design, never chosen by their result. \u201cHolds here\u201d is about"
        " this world, these settings and this budget."
    )
    rest = Lines(tuple(f"{claim.name} ({claim.source}): needs {claim.needs}." for claim in untested))
    return Content(
        "Claims tested",
        "" if rows else "This sweep has no cells that test a claim of the list.",
        present(Table("Claims of the literature", header, rows, note, "stack") if rows else None),
        present(rest if untested else None),
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
    interval = bonferroni_interval(values, family)
    if interval.low > 0 and interval.mean >= evidence.margin:
        return interval, HOLDS
    return interval, FAILS if interval.high < 0 else OPEN


def _minus(one: Mapping[int, float], other: Mapping[int, float]) -> dict[int, float]:
    """Differences of two series over their common seeds."""
    seeds = sorted(one.keys() & other.keys())
    return dict(zip(seeds, paired_differences(one, other).tolist(), strict=True))


def _beyond(values: Mapping[int, float], amount: float) -> dict[int, float]:
    return {seed: value - amount for seed, value in values.items()}


def _clean_conditions(data: ReportData) -> list[Condition]:
    return [family.clean for family in data.families if family.clean is not None]


def _clean(data: ReportData, misaligned: bool = False) -> Condition | None:
    """Clean hard labels (or real data) at the highest dial; with `misaligned` only where the reference is wrong."""
    clean = [c for c in _clean_conditions(data) if c.first.labels != "bradley_terry"]
    condition = max(clean, key=lambda c: c.first.misaligned or 0.0, default=None)
    dial = None if condition is None else condition.first.misaligned
    return None if misaligned and dial is not None and dial <= 0 else condition


def _noisiest(conditions: Iterable[Condition], kind: str = "") -> Condition | None:
    """The highest rate of a kind of corruption, of any where none is named."""
    noisy = (c for c in conditions if not c.clean and kind in ("", c.first.corruption))
    return max(noisy, key=lambda condition: condition.rate, default=None)


def _best_aligned(families: Sequence[Family]) -> Family | None:
    return min(families, key=lambda family: family.conditions[0].first.misaligned or 0.0, default=None)


def _top(condition: Condition | None, name: str) -> Cell | None:
    """The cell of an objective at its highest beta with any outcome."""
    cells = () if condition is None else condition.by_objective.get(name, ())
    return max(measured(cells), key=lambda cell: cell.first.beta or 0.0, default=None)


def _place(cell: Cell) -> str:
    first = cell.first
    dial = "" if first.misaligned is None else f", misaligned {plain(first.misaligned)}"
    damage = "clean" if first.corruption == "none" else f"{first.corruption_text}"
    return f"{cell.named}{dial}, {damage}"


def _versus(condition: Condition | None, name: str) -> Evidence | None:
    """An objective minus dpo, both at their highest beta."""
    one, other = _top(condition, name), _top(condition, "dpo")
    if one is None or other is None:
        return None
    what = f"ranking accuracy minus that of {other.named}"
    return Evidence(_place(one), what, _minus(one.values(RANKING), other.values(RANKING)), SHARE_MARGIN)


def _drop(cell: Cell | None) -> Evidence | None:
    if cell is None:
        return None
    values = _minus(cell.reference, cell.values(RANKING))
    return Evidence(_place(cell), "the reference's ranking accuracy minus the policy's", values, SHARE_MARGIN)


def claim(name: str, source: str, needs: str) -> Callable[[Test], Test]:
    """Adds a function to the claims; `needs` says what a sweep must contain for it."""

    def add(test: Test) -> Test:
        CLAIMS.append(Claim(name, source, needs, test))
        return test

    return add


@claim("DPO's loss falls while it goes on preferring the rejected response", CPO_PAPER, DIAL)
def converges_early(data: ReportData) -> Evidence | None:
    """Loss fell while wrong, beyond 5 % of pairs."""
    cell = _top(_clean(data, misaligned=True), "dpo")
    if cell is None:
        return None
    values = _beyond(cell.fact_values("fell_while_wrong"), 0.05)
    return Evidence(_place(cell), "share of pairs whose loss fell while they are ranked wrong, minus .05", values)


@claim("Reward accuracy hides wrong rankings", RANKINGS, DIAL)
def reward_hides_ranking(data: ReportData) -> Evidence | None:
    """Reward accuracy minus ranking accuracy beyond .05."""
    cell = _top(_clean(data, misaligned=True), "dpo")
    if cell is None:
        return None
    values = _beyond(_minus(cell.values("reward_accuracy"), cell.values(RANKING)), 0.05)
    return Evidence(_place(cell), "reward accuracy minus ranking accuracy, minus .05", values)


@claim("The larger beta, the larger DPO's undesirable zone", CPO_PAPER, f"{DIAL} at two betas")
def grows_with_beta(data: ReportData) -> Evidence | None:
    """Undesirable zone at the highest beta minus at the lowest."""
    condition = _clean(data, misaligned=True)
    cells = [] if condition is None else measured(condition.by_objective.get("dpo", ()))
    cells = sorted(cells, key=lambda cell: cell.first.beta or 0.0)
    if len({cell.first.beta for cell in cells}) < 2:
        return None
    low, high = cells[0], cells[-1]
    what = f"undesirable zone at beta {plain(high.first.beta)} minus at {plain(low.first.beta)}"
    values = _minus(high.values("undesirable_zone"), low.values("undesirable_zone"))
    return Evidence(_place(high), what, values, SHARE_MARGIN)


@claim("On clean labels DPO's ranking accuracy drops below the reference's", "often told of DPO", DIAL)
def accuracy_drops(data: ReportData) -> Evidence | None:
    """Reference accuracy minus ranking accuracy after training on clean labels."""
    return _drop(_top(_clean(data, misaligned=True), "dpo"))


@claim(
    "With wrong labels DPO's ranking accuracy drops below the reference's while its loss falls",
    "arXiv 2404.09824", "dpo under corruption",
)  # fmt: skip
def accuracy_drops_under_noise(data: ReportData) -> Evidence | None:
    """The same at the highest corruption rate, with the best aligned reference."""
    family = _best_aligned([f for f in data.families if f.kinds])
    return _drop(_top(_noisiest(family.conditions), "dpo")) if family else None


@claim("DPO lowers the chosen log-prob", "arXiv 2410.08847", "dpo on clean labels")
def chosen_falls(data: ReportData) -> Evidence | None:
    """Minus the chosen displacement."""
    cell = _top(_clean(data), "dpo")
    if cell is None:
        return None
    values = {seed: -value for seed, value in cell.finished("chosen_displacement").items()}
    return Evidence(_place(cell), "fall of the chosen log-prob, nats", values)


@claim("Constrained preference optimization ranks right where DPO does not", CPO_PAPER, f"cpo_smooth and {DIAL}")
def constrained_keeps(data: ReportData) -> Evidence | None:
    """Constrained minus dpo, both at their highest beta, clean labels, highest dial."""
    return _versus(_clean(data, misaligned=True), CONSTRAINED)


@claim("RLHF keeps its fidelity where DPO does not", CPO_PAPER, f"ppo or rloo beside {DIAL}")
def rlhf_keeps(data: ReportData) -> Evidence | None:
    """RLHF minus dpo, both at their highest beta."""
    names = {name for family in data.families for name in family.objectives}
    name = next((name for name in ("ppo", "rloo", "grpo", "reinforce") if name in names), None)
    return _versus(_clean(data, misaligned=True), name) if name else None


@claim(
    "Constrained objectives lose more to flipped labels than DPO",
    "follows from their target: wrong labels are enforced harder", FLIPS.format(CONSTRAINED),
)  # fmt: skip
def constrained_enforces_noise(data: ReportData) -> Evidence | None:
    """What flips cost the constrained objective minus what they cost dpo, at the highest betas, best reference."""
    family = _best_aligned(
        [f for f in data.families if f.clean is not None and _noisiest(f.conditions, "uniform_flip")]
    )
    if family is None:
        return None
    worst = _noisiest(family.conditions, "uniform_flip")
    cells = [_top(condition, name) for name in (CONSTRAINED, "dpo") for condition in (family.clean, worst)]
    known = [cell for cell in cells if cell is not None]
    if len(known) < len(cells):
        return None
    clean, noisy, dpo_clean, dpo_noisy = (cell.values(RANKING) for cell in known)
    values = _minus(_minus(clean, noisy), _minus(dpo_clean, dpo_noisy))
    return Evidence(_place(known[1]), "ranking accuracy lost to flips, minus what dpo loses", values, SHARE_MARGIN)


@claim(
    "Constrained objectives move further from the reference than DPO (KL)",
    "follows from their target", "cpo_smooth, dpo and samples",
)  # fmt: skip
def constrained_pays_kl(data: ReportData) -> Evidence | None:
    """KL of the constrained objective minus dpo's, both at their highest beta, highest dial."""
    one, other = _top(_clean(data), CONSTRAINED), _top(_clean(data), "dpo")
    if one is None or other is None:
        return None
    return Evidence(_place(one), f"KL (nats) minus that of {other.named}", _minus(one.values("kl"), other.values("kl")))


def robust(name: str, data: ReportData) -> Evidence | None:
    """An objective minus dpo at the highest rate of uniform flips, each at its highest beta."""
    clean = _clean(data)
    family = next((f for f in data.families if clean is not None and f.clean is clean), None)
    return _versus(_noisiest(family.conditions, "uniform_flip"), name) if family else None


for _name, _source in ROBUST.items():
    claim(f"{_name} ranks better than DPO under flips", _source, FLIPS.format(_name))(partial(robust, _name))


@claim(
    "With Bradley-Terry labels DPO's failure is its own optimum",
    RANKINGS, "dpo with Bradley-Terry labels and known gold margins",
)  # fmt: skip
def optimum_predicts(data: ReportData) -> Evidence | None:
    """Bradley-Terry labels: .1 minus |measured - predicted violated share|."""
    clean = [c for c in _clean_conditions(data) if c.first.labels == "bradley_terry"]
    cell = _top(clean[0], "dpo") if clean else None
    if cell is None:
        return None
    distance = _minus(cell.fact_values("theory.wrong"), cell.fact_values("theory.violated"))
    values = {seed: 0.1 - abs(value) for seed, value in distance.items()}
    what = ".1 minus the distance of measured and predicted share ranked wrong"
    return Evidence(f"{_place(cell)}, Bradley-Terry labels", what, values)


@claim(
    "With hard labels DPO's failure is a stall that more steps soften",
    "follows from the loss: no finite minimiser", "dpo with a misaligned reference at two numbers of steps",
)  # fmt: skip
def stalls_within_budget(data: ReportData) -> Evidence | None:
    """Hard labels: ranking accuracy of dpo at the most steps minus at the fewest, everything else equal."""
    by_setting: dict[str, dict[int, Cell]] = {}
    for condition in _clean_conditions(data):
        if condition.first.labels == "hard" and (condition.first.misaligned or 0) > 0:
            for cell in measured(condition.by_objective.get("dpo", ())):
                rest = {**cell.first.config, "seed": 0, "training": {**cell.first.config["training"], "steps": 0}}
                by_setting.setdefault(repr(sorted(rest.items())), {})[cell.first.planned_steps] = cell
    several = [cells for cells in by_setting.values() if len(cells) > 1]
    if not several:
        return None
    cells = max(several, key=lambda one: one[max(one)].first.beta or 0.0)
    most, fewest = cells[max(cells)], cells[min(cells)]
    what = f"ranking accuracy after {max(cells)} steps minus after {min(cells)}"
    return Evidence(_place(most), what, _minus(most.values(RANKING), fewest.values(RANKING)), SHARE_MARGIN)


ROWS = (Section("claims", "Claims", claims),)

"""Claims of the literature, each with the runs of this sweep that test it: a claim is a function and its row.

A claim's function gives `Evidence`, or None where this sweep has no runs that test it. What is tested is fixed by the
design, never chosen by its result: a claim about one objective at its lowest and at its highest beta, a comparison of
two at the lowest and at the highest KL that every seed of both reaches. Where the two ends disagree the verdict is
"sensitive to beta". The rule is that of every comparison of the report; all ends tested make one family. A paper is
cited only where its published configuration was run (loss, eps, normalisation; beta is the axis).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from harness.metrics.frontier import Comparison, Frontier, matched
from harness.metrics.statistics import (
    INCOMPLETE,
    INTERVAL_ONLY,
    MIN_SEEDS,
    SHARE_MARGIN,
    Estimate,
    judge,
    paired_differences,
)
from harness.report.data.cells import RANKING, Cell, measured
from harness.report.data.conditions import Condition, Family, dial
from harness.report.data.frontier import Arena, at_kl
from harness.report.data.report_data import ReportData
from harness.report.render.blocks import Content, Field, Lines, Table, present
from harness.report.render.text import plain, quantity, shown
from harness.report.sections.row import Section

Item = TypeVar("Item")
HOLDS, FAILS, OPEN, SENSITIVE = "holds here", "does not hold here", "not shown", "sensitive to beta"
WORDS = {"better": HOLDS, "worse": FAILS}  # of a quantity that a claim puts above 0
CONSTRAINED = "cpo_smooth"
DIAL = "dpo with a misaligned reference and clean labels"
FLIPS = "{} and dpo under uniform flips"
AT_KL = "at a KL that every seed of both reaches"
CPO_PAPER, RANKINGS = "arXiv 2605.20834", "arXiv 2405.19534"
UNPUBLISHED = "no published configuration was run, so this judges no paper"
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
class End:
    """One end of what is tested (`where`: `beta 0.5`, `KL 2`): by seed a quantity that the claim puts above 0.

    `among`: settings that it was chosen among (`harness/metrics/frontier.py`).
    """

    where: str
    values: Mapping[int, float]
    among: int = 1


@dataclass(frozen=True)
class Evidence:
    """What `cells` say of the quantity named by `what` at one end or two.

    At an end the claim holds where the corrected interval lies above 0 and the mean reaches the margin (one point for
    shares), and fails where it lies below 0. `beside` is what a reader must know of it.
    """

    cells: Sequence[Cell]
    what: str
    ends: Sequence[End]
    margin: float = 0.0
    beside: str = ""

    @property
    def published(self) -> bool:
        """Whether every run behind it is a published configuration."""
        return all(run.published for cell in self.cells for run in cell.runs)

    @property
    def place(self) -> str:
        """`dpo; reference wrong on 75 % of topics, clean`."""
        first = self.cells[0].first
        world = "" if first.misaligned is None else f"{dial(first.misaligned)}, "
        names = dict.fromkeys(cell.first.objective for cell in self.cells)
        return f"{', '.join(names)}; {world}{'clean' if first.corruption == 'none' else first.corruption_text}"


Test = Callable[[ReportData], Evidence | None]


@dataclass(frozen=True)
class Claim:
    """`test` finds the evidence; `needs` says what a sweep must contain for that."""

    name: str
    source: str
    needs: str
    test: Test

    @property
    def paper(self) -> bool:
        """Whether the source is an article, which only its own configuration can put to the test."""
        return self.source.startswith("arXiv") or self.source.endswith(".pdf")


CLAIMS: list[Claim] = []  # in the order of the functions below


def claims(data: ReportData) -> Content:
    """The claims that this sweep tests, with verdicts; below, those it cannot test and what they would need."""
    evidence = [(claim, claim.test(data)) for claim in CLAIMS]
    tested = [(claim, one) for claim, one in evidence if one is not None and _has_values(one)]
    untested = [claim for claim, one in evidence if one is None or not _has_values(one)]
    family = sum(len(one.ends) for _, one in tested)
    rows = tuple(_row(claim, one, family) for claim, one in tested)
    header = ("Claim", "Verdict", "Measured", "Runs")
    note = (
        "Tested at the lowest and the highest beta, comparisons of two objectives at the lowest and the highest KL that"
        f" every seed of both reaches: {quantity(family, 'test')}, intervals corrected for all (Bonferroni), verdicts"
        f" from {MIN_SEEDS} seeds on. Where the two ends disagree: \u201c{SENSITIVE}\u201d. \u201cHolds here\u201d is"
        " about this world, these settings and this budget. A paper is cited where its published configuration ran."
    )
    rest = Lines(tuple(f"{claim.name} ({claim.source}): needs {claim.needs}." for claim in untested))
    return Content(
        "Claims tested",
        "" if rows else "This sweep has no runs that test a claim of the list.",
        present(Table("Claims of the literature", header, rows, note, "stack") if rows else None),
        present(rest if untested else None),
        f"{quantity(len(untested), 'claim')} that this sweep cannot test",
    )


def _has_values(evidence: Evidence) -> bool:
    return bool(evidence.ends) and all(end.values for end in evidence.ends)


def _row(claim: Claim, evidence: Evidence, family: int) -> tuple[Field, ...]:
    intervals, word = judged(evidence, family)
    named = (f"{end.where}: {shown(one)}" for end, one in zip(evidence.ends, intervals, strict=True))
    return (
        Field(claim.name, claim.source if evidence.published or not claim.paper else UNPUBLISHED),
        Field(word),
        Field("; ".join(named), f"{evidence.what}; {quantity(intervals[0].n, 'seed')}"),
        Field(evidence.place, evidence.beside),
    )


def judged(evidence: Evidence, family: int) -> tuple[list[Estimate], str]:
    """The corrected intervals of the ends, and the verdict's word; `family`: tests of the whole page."""
    planned = max(cell.planned for cell in evidence.cells)
    verdicts = [
        judge(end.values, family=family * end.among, planned=planned, margin=evidence.margin) for end in evidence.ends
    ]
    words = {one.word for one in verdicts}
    undecided = next((word for word in (INTERVAL_ONLY, INCOMPLETE) if word in words), None)
    word = undecided or (SENSITIVE if len(words) > 1 else WORDS.get(words.pop(), OPEN))
    return [one.corrected for one in verdicts], word


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


def _ends(condition: Condition | None, name: str) -> list[Cell]:
    """An objective's cells at its lowest and its highest beta with any outcome; one where it has one."""
    cells = [] if condition is None else measured(condition.by_objective.get(name, ()))
    by_beta = {cell.first.beta: cell for cell in reversed(cells)}
    return _first_and_last([by_beta[beta] for beta in sorted(by_beta, key=lambda beta: beta or 0.0)])


def _first_and_last(items: Sequence[Item]) -> list[Item]:
    return [items[0], items[-1]] if len(items) > 1 else list(items)


def _over_betas(
    cells: Sequence[Cell], what: str, values: Callable[[Cell], Mapping[int, float]], margin: float = 0.0
) -> Evidence | None:
    ends = [End(f"beta {plain(cell.first.beta)}", values(cell)) for cell in cells]
    return Evidence(cells, what, ends, margin) if cells else None


def _arena(data: ReportData, condition: Condition | None) -> Arena | None:
    return next((arena for arena in data.arenas if condition in arena.conditions), None)


def _frontier(arena: Arena, name: str) -> tuple[Frontier, list[Cell]]:
    """An objective's frontier over its published configurations, over all where none was run."""
    cells = [cell for cell in arena.of(name) if cell.first.published] or list(arena.of(name))
    return arena.frontier_of(cells), cells


def _at_kls(arena: Arena | None, name: str) -> tuple[list[Comparison], list[Cell]]:
    """An objective minus dpo at the KLs that every seed of both reaches, and the cells of both."""
    if arena is None or not {name, "dpo"} <= set(arena.objectives):
        return [], []
    (one, cells), (other, more) = _frontier(arena, name), _frontier(arena, "dpo")
    return [c for c in matched(one, other) if len(c.a) == c.seeds], cells + more


def _versus(arena: Arena | None, name: str) -> Evidence | None:
    """An objective minus dpo at the lowest and the highest matched KL."""
    whole, cells = _at_kls(arena, name)
    if not whole:
        return None
    ends = [End(f"KL {at_kl(c.at)}", c.differences, c.among) for c in _first_and_last(whole)]
    return Evidence(cells, "ranking accuracy minus that of dpo at the same KL", ends, SHARE_MARGIN)


def _drop(cells: Sequence[Cell]) -> Evidence | None:
    what = "the reference's ranking accuracy minus the policy's"
    return _over_betas(cells, what, lambda cell: _minus(cell.reference, cell.values(RANKING)), SHARE_MARGIN)


def claim(name: str, source: str, needs: str) -> Callable[[Test], Test]:
    """Adds a function to the claims; `needs` says what a sweep must contain for it."""

    def add(test: Test) -> Test:
        CLAIMS.append(Claim(name, source, needs, test))
        return test

    return add


@claim("DPO's loss falls while it goes on preferring the rejected response", CPO_PAPER, DIAL)
def converges_early(data: ReportData) -> Evidence | None:
    """Loss fell while wrong, beyond 5 % of pairs."""
    what = "share of pairs whose loss fell while they are ranked wrong, minus .05"
    cells = _ends(_clean(data, misaligned=True), "dpo")
    return _over_betas(cells, what, lambda cell: _beyond(cell.fact_values("fell_while_wrong"), 0.05))


@claim("Reward accuracy hides wrong rankings", RANKINGS, DIAL)
def reward_hides_ranking(data: ReportData) -> Evidence | None:
    """Reward accuracy minus ranking accuracy beyond .05."""

    def values(cell: Cell) -> dict[int, float]:
        return _beyond(_minus(cell.values("reward_accuracy"), cell.values(RANKING)), 0.05)

    cells = _ends(_clean(data, misaligned=True), "dpo")
    return _over_betas(cells, "reward accuracy minus ranking accuracy, minus .05", values)


@claim("The larger beta, the larger DPO's undesirable zone", CPO_PAPER, f"{DIAL} at two betas")
def grows_with_beta(data: ReportData) -> Evidence | None:
    """Undesirable zone at the highest beta minus at the lowest."""
    cells = _ends(_clean(data, misaligned=True), "dpo")
    if len(cells) < 2:
        return None
    low, high = cells
    values = _minus(high.values("undesirable_zone"), low.values("undesirable_zone"))
    where = f"beta {plain(high.first.beta)} minus beta {plain(low.first.beta)}"
    return Evidence(
        cells, "undesirable zone at the highest beta minus at the lowest", [End(where, values)], SHARE_MARGIN
    )


@claim("On clean labels DPO's ranking accuracy drops below the reference's", "often told of DPO", DIAL)
def accuracy_drops(data: ReportData) -> Evidence | None:
    """Reference accuracy minus ranking accuracy after training on clean labels."""
    return _drop(_ends(_clean(data, misaligned=True), "dpo"))


@claim(
    "With wrong labels DPO's ranking accuracy drops below the reference's while its loss falls",
    "arXiv 2404.09824", "dpo under corruption",
)  # fmt: skip
def accuracy_drops_under_noise(data: ReportData) -> Evidence | None:
    """The same at the highest corruption rate, with the best aligned reference."""
    family = _best_aligned([f for f in data.families if f.kinds])
    return _drop(_ends(_noisiest(family.conditions), "dpo")) if family else None


@claim("DPO lowers the chosen log-prob", "arXiv 2410.08847", "dpo on clean labels")
def chosen_falls(data: ReportData) -> Evidence | None:
    """Minus the chosen displacement."""

    def values(cell: Cell) -> dict[int, float]:
        return {seed: -value for seed, value in cell.finished("chosen_displacement").items()}

    return _over_betas(_ends(_clean(data), "dpo"), "fall of the chosen log-prob, nats", values)


@claim(
    "Constrained preference optimization ranks right where DPO does not",
    CPO_PAPER, f"cpo_smooth and {DIAL}, {AT_KL}",
)  # fmt: skip
def constrained_keeps(data: ReportData) -> Evidence | None:
    """Constrained minus dpo at matched KL, clean labels, highest dial."""
    return _versus(_arena(data, _clean(data, misaligned=True)), CONSTRAINED)


@claim("RLHF keeps its fidelity where DPO does not", CPO_PAPER, f"ppo or rloo beside {DIAL}, {AT_KL}")
def rlhf_keeps(data: ReportData) -> Evidence | None:
    """RLHF minus dpo at matched KL."""
    names = {name for family in data.families for name in family.objectives}
    name = next((name for name in ("ppo", "rloo", "grpo", "reinforce") if name in names), None)
    condition = _clean(data, misaligned=True)
    evidence = _versus(_arena(data, condition), name) if name else None
    if evidence is None or condition is None or name is None:
        return None
    right = data.reward_model(condition.by_objective[name][0])
    beside = f"its reward model scores the better response higher in {shown(right)} of clean pairs" if right else ""
    return replace(evidence, beside=beside)


@claim(
    "Constrained objectives lose more to flipped labels than DPO",
    "follows from their target: wrong labels are enforced harder", f"{FLIPS.format(CONSTRAINED)} and clean, {AT_KL}",
)  # fmt: skip
def constrained_enforces_noise(data: ReportData) -> Evidence | None:
    """What flips cost the constrained objective minus what they cost dpo, at the same KL, best reference."""
    family = _best_aligned(
        [f for f in data.families if f.clean is not None and _noisiest(f.conditions, "uniform_flip")]
    )
    if family is None:
        return None
    clean, _ = _at_kls(_arena(data, family.clean), CONSTRAINED)
    noisy, cells = _at_kls(_arena(data, _noisiest(family.conditions, "uniform_flip")), CONSTRAINED)
    on_clean = {one.at: one for one in clean}
    both = [(on_clean[one.at], one) for one in noisy if one.at in on_clean]
    ends = [
        End(f"KL {at_kl(b.at)}", _minus(a.differences, b.differences), max(a.among, b.among))
        for a, b in _first_and_last(both)
    ]
    what = "ranking accuracy lost to flips, minus what dpo loses at the same KL"
    return Evidence(cells, what, ends, SHARE_MARGIN) if ends else None


@claim(
    "Constrained objectives move further from the reference than DPO (KL)",
    "follows from their target", "cpo_smooth on sums (the scale of dpo's beta) and dpo at equal betas, and samples",
)  # fmt: skip
def constrained_pays_kl(data: ReportData) -> Evidence | None:
    """KL of the constrained objective minus dpo's at the same beta, where the scales are one: both on sums."""
    condition = _clean(data)
    sides = [] if condition is None else [measured(condition.by_objective.get(n, ())) for n in (CONSTRAINED, "dpo")]
    if not all(sides) or condition is None:
        return None
    ours = {c.first.beta: c for c in reversed(sides[0]) if c.first.hyperparameters.get("reduction") == "sum"}
    theirs = {c.first.beta: c for c in reversed(sides[1])}
    betas = _first_and_last(sorted(beta for beta in ours.keys() & theirs.keys() if beta is not None))
    ends = [End(f"beta {plain(beta)}", _minus(ours[beta].values("kl"), theirs[beta].values("kl"))) for beta in betas]
    cells = [side[beta] for beta in betas for side in (ours, theirs)]
    return Evidence(cells, "KL (nats) minus that of dpo at the same beta", ends) if ends else None


def robust(name: str, data: ReportData) -> Evidence | None:
    """An objective minus dpo at matched KL under the highest rate of uniform flips."""
    clean = _clean(data)
    family = next((f for f in data.families if clean is not None and f.clean is clean), None)
    return _versus(_arena(data, _noisiest(family.conditions, "uniform_flip")), name) if family else None


for _name, _source in ROBUST.items():
    claim(f"{_name} ranks better than DPO under flips", _source, f"{FLIPS.format(_name)}, {AT_KL}")(
        partial(robust, _name)
    )


@claim(
    "With Bradley-Terry labels DPO's failure is its own optimum",
    RANKINGS, "dpo with Bradley-Terry labels and known gold margins",
)  # fmt: skip
def optimum_predicts(data: ReportData) -> Evidence | None:
    """Bradley-Terry labels: .1 minus |measured - predicted violated share|."""
    clean = [c for c in _clean_conditions(data) if c.first.labels == "bradley_terry"]

    def values(cell: Cell) -> dict[int, float]:
        distance = _minus(cell.fact_values("theory.wrong"), cell.fact_values("theory.violated"))
        return {seed: 0.1 - abs(value) for seed, value in distance.items()}

    what = ".1 minus the distance of measured and predicted share ranked wrong, Bradley-Terry labels"
    return _over_betas(_ends(clean[0], "dpo"), what, values) if clean else None


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
    ordered = _first_and_last(sorted(several, key=lambda cells: cells[max(cells)].first.beta or 0.0))
    ends = [
        End(
            f"beta {plain(cells[max(cells)].first.beta)}, {max(cells)} steps minus {min(cells)}",
            _minus(cells[max(cells)].values(RANKING), cells[min(cells)].values(RANKING)),
        )
        for cells in ordered
    ]
    what = "ranking accuracy after the most steps minus after the fewest"
    return Evidence([c for cells in ordered for c in cells.values()], what, ends, SHARE_MARGIN) if ends else None


ROWS = (Section("claims", "Claims", claims),)

"""The verdict table: per kind of corruption a row an objective, everything a decision needs on one line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from harness.metrics.robustness import Breakdown
from harness.metrics.statistics import lost_rate
from harness.report.data.cells import Cell
from harness.report.data.context import Material, measured
from harness.report.data.divergence_counts import NAMES, signs
from harness.report.data.families import Family
from harness.report.data.samples import faults_of
from harness.report.data.sweep import STATUSES
from harness.report.render.blocks import Field, Section, Table, fields
from harness.report.render.text import DASH, number, plain, shown, visible
from harness.report.sections.answer import spread
from harness.report.sections.costs import cost, quantity_of
from harness.report.sections.robustness import BARS, MEASURE, Path, against_reference, best_path, paths

RLHF = ("ppo", "rloo", "grpo", "reinforce", "best_of_n", "online_dpo")
FAMILY_NAMES = {
    "dpo": "DPO",
    "cpo_smooth": "Constrained preference optimization",
    **dict.fromkeys(RLHF, "RLHF"),
}
MANY_KINDS = 4
BETA_MATTERS = 0.1  # ranking accuracy between the best and the worst beta
SOME = 4  # kinds named in one field
FIRST = 12  # rows; a sweep of more objectives has the rest behind the fold
KL_FAR = 2.0  # nats a response
HEADER = (
    *("Objective", "Breakdown: beats the reference up to", "Best beta", "Alignment fidelity: ranked right"),
    *("Loss behaviour at its worst beta", "Stability", "Cost a run", "Flags"),
)


def verdicts(m: Material) -> Section:
    """The headline's setting first; the other settings behind a fold."""
    whole = _tables(m, m.family)
    shown_tables = [replace(table, rows=table.rows[:FIRST]) for table in whole]
    rest = [
        replace(table, caption=f"{table.caption}: the other objectives", rows=table.rows[FIRST:])
        for table in whole
        if len(table.rows) > FIRST
    ]
    others = [table for family in m.families if family is not m.family for table in _tables(m, family)]
    return Section(
        "Verdict",
        "Best beta: the largest area under its survival curve, an oracle's choice. Breakdown: the rate at which it"
        " falls to the untrained reference, with a confidence set for all rates at once. Worst beta: the lowest under"
        " clean labels. \u201cFell while wrong\u201d: pairs whose own loss ended below where it began although the"
        " policy ranks them wrong. D1: premature convergence; D2: reversal; D3: memorised noise. Best first.",
        tuple(shown_tables),
        (*rest, *others),
        "The other objectives and settings" if rest else "The other settings",
    )


def _tables(m: Material, family: Family) -> list[Table]:
    where = f", {family.title}" if family.title else ""
    if 0 < len(family.kinds) < MANY_KINDS:
        return [_table(m, family, kind, f"Under {visible(kind)}{where}") for kind in family.kinds]
    what = f"Under {len(family.kinds)} kinds of corruption" if family.kinds else "On clean labels"
    return [_table(m, family, None, f"{what}{where}")]


def _table(m: Material, family: Family, kind: str | None, caption: str) -> Table:
    rows = [_row(m, family, kind, name) for name in _ranked(family, kind)]
    if not set(family.objectives) & set(RLHF) and family is m.family:
        rows.append((Field("RLHF", ", ".join(RLHF[:3]) + ", \u2026"), *fields("not in this sweep", *[DASH] * 6)))
    header, kept = list(HEADER), [tuple(row) for row in rows]
    if not family.kinds:
        del header[1]
        kept = [(row[0], *row[2:]) for row in kept]
    return Table(caption, tuple(header), tuple(kept), look="stack")


def _ranked(family: Family, kind: str | None) -> list[str]:
    """Objectives by the height of their best beta, the best first; those without any outcome last."""
    best = {name: best_path(found).height for name in family.objectives if (found := paths(family, kind, name))}
    return sorted(family.objectives, key=lambda name: (-best.get(name, -1.0), name))


def _row(m: Material, family: Family, kind: str | None, name: str) -> tuple[Field, ...]:
    long = FAMILY_NAMES.get(name, "")
    head = Field(long or visible(name), visible(name) if long else "", mark=m.looks[name].colour)
    found = paths(family, kind, name)
    cells = [cell for c in family.conditions for cell in c.by_objective.get(name, ())]
    if not found:
        states = sorted({run.status for cell in cells for run in cell.runs})
        return (head, *fields(f"no finished run ({', '.join(states)})", *[DASH] * 6))
    best = best_path(found)
    clean = measured(family.clean.by_objective.get(name, ())) if family.clean else []
    worst = min(clean or [p.first for p in found], key=lambda cell: cell.estimate(MEASURE).mean)
    return (
        head,
        _breakdown(best, kind),
        Field(plain(best.first.first.beta), best.first.extra),
        _fidelity(best, worst),
        _loss(m, worst, [cell for path in found for _, cell in path.points]),
        _stability(cells, worst),
        Field(quantity_of(cost(best.first, "seconds"), "s"), quantity_of(cost(best.first, "flops"), "FLOPs")),
        Field("; ".join(_flags(m, best, cells)) or DASH),
    )


def _breakdown(best: Path, kind: str | None) -> Field:
    if kind is None:
        beaten = [c.damage for c, cell in best.points if against_reference(cell).low > 0]
        lost = [c.damage for c, cell in best.points if not against_reference(cell).low > 0]
        cut = ", \u2026" if len(lost) > SOME else ""
        return Field(
            f"{len(beaten)} of {len(best.points)} conditions", f"not {', '.join(lost[:SOME])}{cut}" if lost else ""
        )
    reference, chance = (_rate(best.breakdown(bar), best.points[-1][0].rate) for bar in BARS)
    return Field(reference, f"above chance: {chance}; area {number(best.area.mean)}")


def _rate(found: Breakdown | None, last: float) -> str:
    """`0.31 [0.22, 0.4]`: the breakdown point with its confidence set; `beyond 0.4` where nothing breaks it."""
    if found is None:
        return DASH
    low = "none" if math.isnan(found.low) else f"{found.low:.2g}"
    if found.beats_all:
        shown_to = "not shown" if math.isnan(found.low) else f"shown up to {low}"
        sure = "" if found.low >= last else f" ({shown_to})" if found.n > 1 else " (one seed)"
        return f"beyond {last:.2g}{sure}"
    if found.beats_none:
        return "never"
    high = f"beyond {last:.2g}" if math.isnan(found.high) else f"{found.high:.2g}"
    return f"{found.rate:.2g}" + (f" [{low}, {high}]" if found.n > 1 else "")


def _fidelity(best: Path, worst: Cell) -> Field:
    first, last = best.points[0], min(best.points, key=lambda point: point[1].estimate(MEASURE).mean)
    beside = f"{last[0].damage}: {shown(last[1].estimate(MEASURE))}" if last is not first else ""
    if worst.first.arm != best.arm:
        low = f"worst, {_knob(worst)}: {number(worst.estimate(MEASURE).mean)}"
        beside = "; ".join(filter(None, [beside, low]))
    return Field(shown(first[1].estimate(MEASURE)), beside)


def _loss(m: Material, worst: Cell, cells: Sequence[Cell]) -> Field:
    """Divergence types, each where most seeds show it, and how many pairs are wrong although their loss fell."""
    wrong = worst.fact_estimate("fell_while_wrong")
    ends = [worst.described(f"train_loss_{end}") for end in ("first", "last")]
    told = f"{shown(wrong)} fell while wrong" if wrong.n else "no loss of given pairs"
    loss = f"loss {number(ends[0].mean)} \u2192 {number(ends[1].mean)}" if ends[0].n else ""
    return Field("; ".join([*_types(m, cells), told]), ": ".join(filter(None, [_knob(worst), loss])))


def _knob(cell: Cell) -> str:
    """`beta 5`, or what else tells the objective's arms apart."""
    beta = "" if cell.first.beta is None else f"beta {plain(cell.first.beta)}"
    return ", ".join(filter(None, [beta, cell.extra]))


def _types(m: Material, cells: Sequence[Cell]) -> list[str]:
    found = []
    for kind in NAMES:
        counts = [(signs(cell, m.types).get(kind, 0), -i) for i, cell in enumerate(cells)]
        count, place = max(counts, default=(0, 0))
        if count:
            cell = cells[-place]
            where = "clean" if cell.first.corruption == "none" else visible(cell.first.corruption_text)
            told = ", ".join(filter(None, [_knob(cell), where]))
            found.append(f"{kind} in {count}/{len(cell.recorded)} ({told})")
    return found


def _stability(cells: Sequence[Cell], worst: Cell) -> Field:
    sd = spread(worst)
    told = f"sd over seeds {number(sd)}" if math.isfinite(sd) else "one seed: no spread"
    states = [run.status for cell in cells for run in cell.runs]
    lost = [f"{states.count(word)} {word}" for word in STATUSES[1:] if word in states]
    rate = lost_rate(dict(enumerate(states)))
    sure = f" (lost: {shown(rate)})" if rate.mean > 0 else ""
    return Field(told, f"{', '.join(lost)} of {len(states)} runs{sure}" if lost else f"all {len(states)} runs finished")


def _flags(m: Material, best: Path, cells: Sequence[Cell]) -> list[str]:
    """What should make a reader hesitate before picking this row."""
    found = []
    clean = [cell for cell in measured(cells) if cell.first.condition == best.first.first.condition]
    by_beta = [cell.estimate(MEASURE).mean for cell in clean]
    if by_beta and max(by_beta) - min(by_beta) >= BETA_MATTERS:
        found.append(f"beta matters: {number(max(by_beta) - min(by_beta), 2)} between best and worst")
    chosen = best.first.described("chosen_displacement")
    if chosen.n and chosen.mean < -1:
        found.append(f"chosen falls by {number(-chosen.mean, 1)} nats")
    found += faults_of(m.samples, best.first)
    kl = best.first.estimate("kl")
    if kl.n and kl.mean >= KL_FAR:
        found.append(f"KL {number(kl.mean, 1)} nats")
    return found

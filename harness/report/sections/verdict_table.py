"""The verdict table: one table per kind of corruption, a row per objective at one beta, with what a decision needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from harness.metrics.robustness import Breakdown, breakdown_text
from harness.metrics.statistics import lost_rate
from harness.report.data.cells import Cell, measured
from harness.report.data.conditions import Family, noise
from harness.report.data.curves import Curve, against_reference, best_curve, curves
from harness.report.data.report_data import ReportData
from harness.report.data.run_facts import DIVERGENCES
from harness.report.data.samples import faults_of
from harness.report.data.sweep import UNFINISHED
from harness.report.render.blocks import Content, Field, Table, fields
from harness.report.render.text import DASH, number, percent, percents, plain, shown, visible
from harness.report.sections.costs import cost, quantity_of
from harness.report.sections.row import Section

RLHF = ("ppo", "rloo", "grpo", "reinforce", "best_of_n", "online_dpo")
FULL_NAMES = {"dpo": "DPO", "cpo_smooth": "Constrained preference optimization", **dict.fromkeys(RLHF, "RLHF")}
MANY_KINDS = 4  # from so many kinds on they share one table
MAX_NAMED = 4  # kinds named in one field
MAX_ROWS = 12  # a sweep of more objectives has the rest behind the fold
BETA_MATTERS = 0.1  # ranking accuracy between the best and the worst beta
KL_FAR = 2.0  # nats per response
HEADER = (
    *(
        "Objective",
        "Breakdown: falls to the reference",
        "Beta of this row",
        "Alignment fidelity: ranked right",
    ),
    *("Loss behaviour", "Stability", "Cost per run", "Flags"),
)


def verdict(data: ReportData) -> Content:
    """The headline's setting and its first kind of corruption; the other kinds and settings behind a fold."""
    tables = _tables(data, data.family)
    rest = [
        replace(table, caption=f"{table.caption}: the other objectives", rows=table.rows[MAX_ROWS:])
        for table in tables
        if len(table.rows) > MAX_ROWS
    ]
    others = [table for family in data.families if family is not data.family for table in _tables(data, family)]
    return Content(
        "Verdict",
        "Best first; every field of a row is at the beta that it names, that with the highest average over the rates on"
        " clean held-out pairs that no user has. Where that beta ends its grid, a wider grid may find a better"
        " one. Breakdown: the tested rates between which ranking accuracy falls to the untrained reference's, as far as"
        " that is shown at 95 %. \u201cFell while wrong\u201d: pairs whose loss fell although the policy still ranks"
        " them wrong. Satisfied too early: the loss is near its minimum while pairs are still misranked; reversed:"
        " it falls while fewer pairs are ranked right; memorised noise: wrong labels are ranked as they say.",
        tuple(replace(table, rows=table.rows[:MAX_ROWS]) for table in tables[:1]),
        (*rest, *tables[1:], *others),
        "The other objectives and settings" if rest else "The other settings",
    )


def _tables(data: ReportData, family: Family) -> list[Table]:
    where = f", {family.title}" if family.title else ""
    if 0 < len(family.kinds) < MANY_KINDS:
        return [_table(data, family, kind, f"Under {visible(kind)}{where}") for kind in family.kinds]
    what = f"Under {len(family.kinds)} kinds of corruption" if family.kinds else "On clean labels"
    return [_table(data, family, None, f"{what}{where}")]


def _table(data: ReportData, family: Family, kind: str | None, caption: str) -> Table:
    by_name = {name: curves(family, kind, name) for name in family.objectives}
    height = {name: best_curve(own).height if own else -1.0 for name, own in by_name.items()}
    ranked = sorted(family.objectives, key=lambda name: (-height[name], name))  # without any outcome: last
    rows = [_row(data, family, kind, name, by_name[name]) for name in ranked]
    columns = [i for i in range(len(HEADER)) if family.kinds or i != 1]
    return Table(
        caption,
        tuple(HEADER[i] for i in columns),
        tuple(tuple(row[i] for i in columns) for row in rows),
        look="stack",
        tags=data.tags(family.conditions[0]).split(" ")[0],
    )


def _row(
    data: ReportData, family: Family, kind: str | None, name: str, candidates: Sequence[Curve]
) -> tuple[Field, ...]:
    full = FULL_NAMES.get(name, "")
    head = Field(full or visible(name), visible(name) if full else "", mark=data.looks[name].colour)
    cells = [cell for c in family.conditions for cell in c.by_objective.get(name, ())]
    if not candidates:
        states = sorted({run.status for cell in cells for run in cell.runs})
        return (head, *fields(f"no finished run ({', '.join(states)})", *[DASH] * 6))
    best = best_curve(candidates)
    arm = [cell for _, cell in best.points]
    return (
        head,
        _breakdown(best, kind),
        Field(plain(best.first.first.beta), "; ".join(filter(None, [best.first.extra, _grid_end(candidates, best)]))),
        _fidelity(best),
        _loss(data, arm),
        _stability(arm),
        Field(quantity_of(cost(best.first, "seconds"), "s"), quantity_of(cost(best.first, "flops"), "FLOPs")),
        Field("; ".join(_flags(data, best, cells)) or DASH),
    )


def _grid_end(candidates: Sequence[Curve], best: Curve) -> str:
    """Whether the row's beta ends the grid of its objective, or is the only one."""
    betas = sorted({curve.first.first.beta for curve in candidates if curve.first.first.beta is not None})
    if not betas or best.first.first.beta not in (betas[0], betas[-1]):
        return ""
    if len(betas) == 1:
        return "only one tried"
    return "the lowest tried" if best.first.first.beta == betas[0] else "the highest tried"


def _breakdown(best: Curve, kind: str | None) -> Field:
    if kind is None:
        lost = [c.damage for c, cell in best.points if not against_reference(cell).low > 0]
        cut = ", \u2026" if len(lost) > MAX_NAMED else ""
        beaten = len(best.points) - len(lost)
        named = f"not {', '.join(lost[:MAX_NAMED])}{cut}" if lost else ""
        return Field(f"{beaten} of {len(best.points)} conditions", named)
    reference, chance = (_rate(best.breakdown(bar)) for bar in ("reference", "chance"))
    over = f"average over 0 to {percent(best.rates[-1])}" if best.rates else "average"
    return Field(reference, f"chance: {chance}; {over}: {percent(best.area.mean)}")


def _rate(point: Breakdown | None) -> str:
    return DASH if point is None else breakdown_text(point)


def _fidelity(best: Curve) -> Field:
    condition, lowest = best.lowest
    beside = f"{noise(condition)}: {percents(lowest.ranking)}" if lowest is not best.first else ""
    return Field(percents(best.first.ranking), beside)


def _loss(data: ReportData, arm: Sequence[Cell]) -> Field:
    """Divergence types, each where most seeds show it, and how many pairs are wrong although their loss fell."""
    wrong = arm[0].fact_estimate("fell_while_wrong")
    first, last = (arm[0].described(f"train_loss_{end}") for end in ("first", "last"))
    text = f"{percents(wrong)} fell while wrong" if wrong.n else "no loss per pair"
    loss = f"loss {number(first.mean)} \u2192 {number(last.mean)}" if first.n else ""
    return Field("; ".join([*_types(data, arm), text]), loss)


def _types(data: ReportData, arm: Sequence[Cell]) -> list[str]:
    """`satisfied too early in 4/4 (clean)`: each divergence type with the first cell in which most seeds show it."""
    texts = []
    for kind in DIVERGENCES:
        cell = max(arm, key=lambda cell: cell.divergences(data.types).get(kind, 0))
        count = cell.divergences(data.types).get(kind, 0)
        if count:
            where = "clean" if cell.first.corruption == "none" else visible(cell.first.corruption_text)
            texts.append(f"{DIVERGENCES[kind]} in {count}/{len(cell.recorded)} ({where})")
    return texts


def _stability(arm: Sequence[Cell]) -> Field:
    sd = arm[0].spread()
    spread = f"sd over seeds {number(sd)}" if math.isfinite(sd) else "one seed: no spread"
    states = [run.status for cell in arm for run in cell.runs]
    lost = [f"{states.count(status)} {status}" for status in UNFINISHED if status in states]
    rate = lost_rate(dict(enumerate(states)))
    sure = f" (lost: {shown(rate)})" if rate.mean > 0 else ""
    return Field(
        spread, f"{', '.join(lost)} of {len(states)} runs{sure}" if lost else f"all {len(states)} runs finished"
    )


def _flags(data: ReportData, best: Curve, cells: Sequence[Cell]) -> list[str]:
    """What should make a reader hesitate before choosing this row."""
    flags = []
    clean = [cell for cell in measured(cells) if cell.first.condition == best.first.first.condition]
    by_beta = [cell.ranking.mean for cell in clean]
    if by_beta and max(by_beta) - min(by_beta) >= BETA_MATTERS:
        flags.append(f"beta matters: {number(max(by_beta) - min(by_beta), 2)} between best and worst")
    chosen = best.first.described("chosen_displacement")
    if chosen.n and chosen.mean < -1:
        flags.append(f"chosen falls by {number(-chosen.mean, 1)} nats")
    flags += faults_of(data.samples, best.first)
    right = data.reward_model(best.first)
    if right is not None:
        flags.append(f"its reward model is right on {percents(right)} of clean pairs")
    kl = best.first.estimate("kl")
    if kl.n and kl.mean >= KL_FAR:
        flags.append(f"KL {number(kl.mean, 1)} nats")
    return flags


ROWS = (Section("verdict", "Verdict", verdict),)

"""The four cards of a comparison: does the order of objectives hold, what moved most, how sure, what next."""

from __future__ import annotations

import math
from collections import Counter

from harness.metrics.statistics import MIN_SEEDS, Estimate
from harness.report.compare.differences import Differences, Order
from harness.report.compare.sentences import MEASURE, listed, moved, movement_sentence, order_sentence, spoken
from harness.report.data.cells import RANKING
from harness.report.data.tables import MEASURES
from harness.report.render.blocks import Card
from harness.report.render.text import number, percents, points, quantity, visible

NAMED = 2  # orders, movements that a card names
SETTINGS = 4  # that differ, named in a card


def cards(found: Differences) -> tuple[Card, ...]:
    """Whether the order holds, what moved most, how sure, and what next."""
    words = Counter(order.word for order in found.orders)
    return (_order(found, words), _movement(found), _sure(found), _next(found, words))


def _order(found: Differences, words: Counter[str]) -> Card:
    label, base = "Does the order hold", visible(found.baseline)
    if not found.orders:
        why = f"No other objective stands beside {base} in matching cells."
        return Card("use", label, "Cannot be told", (why,))
    decided = len(found.orders) - words["none"]
    cells = quantity(decided, "cell")
    if not decided:
        few = min(one.cell.first.planned for one in found.orders) < MIN_SEEDS
        title = "Cannot be told" if few else "No order is shown"
    elif words["reversed"]:
        title = f"No: reversed in {words['reversed']} of {cells}"
    elif words["changed"]:
        title = f"Not in size: another in {words['changed']} of {cells}"
    elif words["open"]:
        title = f"As far as shown: in {words['holds']} of {cells}"
    else:
        title = f"Yes, in {words['holds']} of {cells}"
    lines = [order_sentence(found), *(_sides(found, one) for one in _broken(found)[:NAMED])]
    return Card("use", label, title, tuple(filter(None, lines)))


def _broken(found: Differences) -> list[Order]:
    """The orders that do not hold, those that are reversed first."""
    broken = [one for one in found.orders if one.word in ("reversed", "changed")]
    return sorted(broken, key=lambda one: one.word != "reversed")


def _sides(found: Differences, one: Order) -> str:
    """`cpo_smooth at beta 5 against dpo at beta 5, 20 % flips: +10 points [...] (small), -10 points [...] (large).`"""
    where = spoken(found)[one.cell.first.first.condition]
    parts = (
        f"{_change(verdict.corrected, RANKING)} ({found.alignment.levels[i].name})"
        for i, verdict in one.by_level.items()
    )
    return f"{one.cell.first.named} against {one.base.first.named} ({where}): {', '.join(parts)}."


def _change(value: Estimate, measure: str) -> str:
    """A difference with its sign, in points where the measure is a share."""
    sign = "+" if value.mean > 0 else ""
    if MEASURES[measure]:
        return sign + percents(value, "\u00a0points")
    bounds = f" [{number(value.low)},\u00a0{number(value.high)}]" if math.isfinite(value.low) else ""
    return f"{sign}{number(value.mean)}{bounds}"


def _movement(found: Differences) -> Card:
    label, levels = "What moved most", found.alignment.levels
    if not found.cells:
        return Card("breaks", label, "Cannot be told", (movement_sentence(found),))
    if not found.shown:
        return Card("breaks", label, "Nothing is shown to", (movement_sentence(found),))
    most, *others = found.shown
    change = Estimate(most.verdict.plain.n, most.verdict.plain.mean, math.nan, math.nan)
    title = f"{MEASURE[most.measure].capitalize()} of {most.match.first.named}: {_change(change, most.measure)}"
    if len(levels) > 2:
        title += f" at {levels[most.other].name}"
    further = (f"{moved(found, one)}." for one in others[:NAMED])
    return Card("breaks", label, title, (movement_sentence(found), *further))


def _sure(found: Differences) -> Card:
    label, alignment = "How sure", found.alignment
    if not found.cells:
        return Card("sure", label, "Nothing is compared", ())
    counts = [one.verdict.plain.n for one in found.cells]
    seeds = quantity(max(counts), "seed") if min(counts) == max(counts) else f"{min(counts)} to {max(counts)} seeds"
    paired = sum(one.paired for one in found.cells)
    how = "paired" if paired == len(counts) else f"{paired or 'none'} of {len(counts)} comparisons paired"
    few = max(counts) < MIN_SEEDS
    lines = [f"Intervals are corrected for {quantity(found.family, 'comparison')}."]
    open_ = [one.verdict.mde for one in found.cells if one.measure == RANKING and not one.shown]
    mdes = [mde for mde in open_ if mde is not None]
    if mdes and not few:
        lines.append(f"In ranking accuracy up to {points(max(mdes))} points could stay hidden.")
    alone = len(alignment.levels[0].cells) - len(alignment.matches)
    if alone:
        lines.append(f"{quantity(alone, 'cell')} of {alignment.levels[0].name} have no counterpart.")
    names = [visible(name) for name in alignment.differing]
    if len(names) > SETTINGS:
        names[SETTINGS:] = [f"{len(names) - SETTINGS} more"]
    if names:
        lines.append(f"The sweeps differ in {listed(names)}; what moved is due to all that differs.")
    return Card("sure", label, f"{seeds}: intervals, no verdicts" if few else f"{seeds}, {how}", tuple(lines))


def _next(found: Differences, words: Counter[str]) -> Card:
    label, first = "What next", found.alignment.levels[0].name
    seeds = max((one.verdict.plain.n for one in found.cells), default=0)
    more = f"harness sweep mine.yaml --set seeds={max(MIN_SEEDS, 2 * seeds)}"
    if seeds < MIN_SEEDS:
        return Card("next", label, "More seeds", (f"{MIN_SEEDS} or more in every sweep give verdicts:",), more)
    if _broken(found):
        about = f"What {first} recommends does not carry over: take the first card of each sweep's own report."
        return Card("next", label, "Choose in each sweep anew", (about,))
    if words["holds"] and not words["open"]:
        about = "Nothing beyond these sweeps is tested; a further one beside them:"
        command = "harness compare runs/one runs/two runs/three --out comparison"
        return Card("next", label, "Carry the choice over", (about,), command)
    about = "Where no order is shown, the choice is open. Finished runs are kept:"
    return Card("next", label, "More seeds, or leave it open", (about,), more)

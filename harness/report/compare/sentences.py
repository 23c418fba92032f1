"""The answer of a comparison in two sentences: whether the order of objectives holds, and what moved most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from harness.metrics.statistics import MIN_SEEDS, wording
from harness.report.compare.differences import Difference, Differences
from harness.report.data.cells import RANKING
from harness.report.data.conditions import Condition, build_conditions, noise
from harness.report.render.text import number, quantity, shown, visible

MEASURE = {
    "ranking_accuracy": "ranking accuracy",
    "undesirable_zone": "pairs stuck wrong",
    "gold_reward": "gold reward",
    "reward_accuracy": "reward accuracy",
    "ood_ranking_accuracy": "ranking accuracy on other prompts",
}


def titles(found: Differences) -> dict[str, str]:
    """The names of the first level's conditions in CSV and JSON, by their key."""
    return {condition.first.condition: condition.title for condition in _conditions(found)}


def spoken(found: Differences) -> dict[str, str]:
    """The same as a reader says them, `20 % flips`; the name of the files where that would tell two apart no longer."""
    said = {one.title: ", ".join(filter(None, (one.setting, noise(one)))) for one in _conditions(found)}
    shared = Counter(said.values())
    return {key: said[title] if shared[said[title]] == 1 else title for key, title in titles(found).items()}


def _conditions(found: Differences) -> tuple[Condition, ...]:
    cells = [match.first for match in found.alignment.matches]
    return build_conditions(cells, found.alignment.levels[0].sweep.axes)


def answer(found: Differences) -> tuple[str, ...]:
    """One or two sentences; the first is left out where no other objective stands beside the baseline."""
    return tuple(filter(None, (order_sentence(found), movement_sentence(found))))


def order_sentence(found: Differences) -> str | None:
    """In how many cells the order against the baseline is the same in every level."""
    if not found.orders:
        return None
    first, *others = (level.name for level in found.alignment.levels)
    there, base = listed(others), visible(found.baseline)
    words = Counter(order.word for order in found.orders)
    total = len(found.orders)
    decided = total - words["none"]
    cells = quantity(total, "cell")
    if not decided:
        few = min(order.cell.first.planned for order in found.orders) < MIN_SEEDS
        why = f": fewer than {MIN_SEEDS} seeds give intervals and no verdicts" if few else ""
        return f"In none of {cells} is an objective shown to rank more or fewer pairs right than {base}{why}."
    rest = [
        f"it is {text} in {words[word]}"
        for word, text in (
            ("reversed", "reversed"), ("changed", "shown to differ in size"), ("open", "not shown everywhere"),
        )
        if words[word]
    ]  # fmt: skip
    none = f"; in {words['none']} of {cells} none is shown anywhere" if words["none"] else ""
    return (
        f"The order of objectives against {base} in ranking accuracy, as {first} shows it, holds at {there} in"
        f" {words['holds']} of {quantity(decided, 'cell')}{'; ' if rest else ''}{', '.join(rest)}{none}."
    )


def movement_sentence(found: Differences) -> str:
    """The largest difference between levels that is shown in one measure, or that none is and what could hide."""
    levels, tested = found.alignment.levels, quantity(len(found.cells), "comparison")
    if found.shown:
        most = found.shown[0]
        counts = Counter(one.verdict.word for one in found.shown)
        told = " and ".join(f"{counts[word]} {word}" for word in ("better", "worse") if counts[word])
        many = f"{len(found.shown)} of {tested} show{'s' if len(found.shown) == 1 else ''} one ({told})"
        return f"{moved(found, most)}: the largest shown difference in {MEASURE[most.measure]}; {many}."
    names = listed([level.name for level in levels])
    if not found.cells:
        return f"No measure of a matching cell is finished in both {names}."
    ranked = [one for one in found.cells if one.measure == RANKING] or list(found.cells)
    most = max(ranked, key=lambda one: abs(one.verdict.plain.mean))
    if most.verdict.plain.n < MIN_SEEDS:
        why = f"with fewer than {MIN_SEEDS} seeds there are intervals and no verdicts"
    else:
        why = wording(most.verdict.word, most.verdict.mde)
    return (
        f"No difference between {names} is shown in {tested}; the largest in {MEASURE[most.measure]}:"
        f" {moved(found, most)}; {why}."
    )


def listed(names: Sequence[str]) -> str:
    """`a, b and c`."""
    *head, last = names
    return f"{', '.join(head)} and {last}" if head else last


def moved(found: Differences, one: Difference) -> str:
    """`dpo at beta 5 with clean labels: pairs stuck wrong from 0.430 (small) to 0.210 (large), -0.220 [...]`."""
    levels, cell = found.alignment.levels, one.match.first
    before, after = (one.match.cells[i].estimate(one.measure).mean for i in (0, one.other))
    seeds = f"{quantity(one.verdict.plain.n, 'seed')}, {'paired' if one.paired else 'not paired'}"
    change = "goes"
    if one.shown:
        change = "grows" if one.verdict.plain.mean > 0 else "shrinks"
    return (
        f"{cell.named} ({spoken(found)[cell.first.condition]}): {MEASURE[one.measure]} {change} from"
        f" {number(before)} ({levels[0].name}) to {number(after)} ({levels[one.other].name}),"
        f" {shown(one.verdict.corrected)} ({seeds})"
    )

"""The first card of a sweep's page: which setting to use, in which cases, and what speaks against it."""

from __future__ import annotations

from collections.abc import Sequence

from harness.report.data.cells import RANKING, Cell, measured
from harness.report.data.conditions import Condition, cleans, noise, said, without_training
from harness.report.data.curves import answers_worse
from harness.report.data.frontier import Arena
from harness.report.data.recommendation import GOLD, Arm, Recommendation, Recommended
from harness.report.data.report_data import ReportData
from harness.report.render.blocks import Card
from harness.report.render.text import number, percent, percents, quantity, shown
from harness.report.sections.cleaning import cleaning_finding
from harness.report.sections.damage import damages
from harness.report.sections.levels import levels_sentence

NAMED = 3  # objectives of a set that a title names
RANKED = "ranking of held-out pairs"


def _where(condition: Condition) -> str:
    """`with the reference wrong on 75 % of topics and 40 % flips`."""
    return "with " + said(", ".join(filter(None, [condition.setting, noise(condition)])))


def _names(band: Recommended) -> str:
    """`simpo, beta 2 to 10`, or two of them; beyond that how many are not told apart."""
    texts = [choice.text for choice in band.choices]
    if len(texts) <= NAMED - 1:
        return " or ".join(texts)
    return f"{texts[0]} (one of {sum(len(choice.arms) for choice in band.choices)} settings not told apart)"


def quality(data: ReportData, cell: Cell, measure: str) -> str:
    """`ranks 62.8 % [57.9, 67.7] of held-out pairs right, true reward of its answers -0.043 [-0.196, 0.111]`."""
    ranked = f"ranks {percents(cell.ranking)} of held-out pairs right"
    reward, learnt = cell.estimate(GOLD), data.reward_model(cell)
    beside = f" (the reward model that it learnt from: {percents(learnt)})" if learnt is not None else ""
    worth = f", {data.sweep.reward} of its answers {shown(reward)}" if measure == GOLD and reward.n else ""
    return f"{ranked}{beside}{worth}"


def use(data: ReportData) -> Card:
    """The recommendation of the first range or set of cases, then the others."""
    found = data.recommendation
    if found is None:
        return _alone(data)
    first, *later = found.bands
    here, lead = first.arenas[0], found.lead
    lines = []
    if len(first.choices) >= NAMED:
        lines.append(f"Not told apart: {'; '.join(choice.text for choice in first.choices)}.")
    text = lead.named if later or len(first.choices) > 1 or len(first.choices[0].arms) > 1 else "It"
    world = said(without_training(here.first.setting, here.axes)[0])
    scope = ", ".join(filter(None, [_scope(first), f"with {world}" if world else ""]))
    lines.append(f"{scope[0].upper()}{scope[1:]} ({'; '.join(filter(None, [seeds_text(lead), found.shared]))}).")
    beside = f" with {noise(here.first)}" if len(first.arenas) > 1 else ""
    lines.append(f"{text} {quality(data, lead, found.measure)}{beside}.")
    untrained = _untrained(data, found)
    lines += [*untrained, *_elsewhere(data, found)]
    lines += _by_ranking(data, found)
    lines += [_crossing(data, found, band) for band in later[:NAMED]]
    if more := [arena for band in later[NAMED:] for arena in band.arenas]:
        lines.append(f"For {quantity(len(more), 'more case')} another setting: see the table of cases.")
    lines += filter(None, [levels_sentence(data)])
    title = _names(first)
    if (cleaned := cleaning_finding(data)) is not None:
        asked = not damages(data.families)  # cleaning is what the sweep is about
        if asked:
            lines = [*untrained, cleaned[1], *(line for line in lines if line not in untrained)]
        else:
            lines.append(cleaned[1])
        title += f"; {cleaned[0]}" if asked else ""
    if beaten := _all_worse(found):
        title = f"{beaten}; best of them: {title}"
    return Card("use", f"Use, judged by {_judged(data, found)}", title, tuple(lines))


def _judged(data: ReportData, found: Recommendation) -> str:
    """What decides what is recommended, in a reader's words."""
    return f"{data.sweep.reward} of answers" if found.measure == GOLD else RANKED


def _scope(band: Recommended) -> str:
    """`clean labels to 40 % flips`, `in all 20 cases: clean labels, 17 kinds of damage and 2 of cleaning`, `in 14 of 20
    cases, not with 20 % mnar`."""
    if band.ordered or len(band.arenas) == 1:
        return band.scope
    if band.others:
        return f"in {band.scope}, not with {_listed([noise(arena.first) for arena in band.others])}"
    tidy = sum(cleans(arena.first) for arena in band.arenas)
    clean = sum(arena.first.clean for arena in band.arenas)
    kinds = quantity(len(band.arenas) - tidy - clean, "kind") + " of damage"
    parts = [*(["clean labels"] if clean else []), kinds, *([f"{tidy} of cleaning"] if tidy else [])]
    return f"in {band.scope}: {_listed(parts)}"


def _listed(names: Sequence[str]) -> str:
    """The first few of the names, and how many more there are."""
    if len(names) <= NAMED + 1:
        return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
    return f"{', '.join(names[:NAMED])} and {len(names) - NAMED} more"


def _elsewhere(data: ReportData, found: Recommendation) -> list[str]:
    """The recommended setting in the last case of a range, or in that of several kinds where it does worst."""
    first = found.bands[0]
    arm = first.choices[0].arms[0]
    cells = [(arena, cell) for arena in first.arenas[1:] if (cell := arena.cell(*arm)) is not None]
    known = [(arena, cell) for arena, cell in cells if cell.estimate(found.measure).n]
    worst = _worst_answers(found)
    if not known or (worst is not None and not first.ordered):
        return []
    arena, end = known[-1] if first.ordered else min(known, key=lambda one: one[1].estimate(found.measure).mean)
    reward, said_below = end.estimate(GOLD), worst is not None and worst[1] is end
    beside = f", {data.sweep.reward} {shown(reward)}" if found.measure == GOLD and reward.n and not said_below else ""
    where = f"With {noise(arena.first)}" if first.ordered else f"Its worst case, {noise(arena.first)}"
    return [f"{where}: {percents(end.ranking)}{beside}."]


def _all_worse(found: Recommendation) -> str:
    """Says so where no setting's answers are worth more than the untrained model's in any case of the first band."""
    gains = [gain for arena in found.bands[0].arenas for cell in arena.cells if (gain := cell.gain_in_answers()).n]
    if not gains or any(gain.mean >= 0 for gain in gains):
        return ""
    if all(gain.high < 0 for gain in gains):
        return "Every setting's answers are worse than the untrained model's"
    return "No setting's answers are worth more than the untrained model's"


def _worst_answers(found: Recommendation) -> tuple[Arena, Cell, str] | None:
    """The case of the first band in which the recommended setting's answers fall furthest below the untrained model's,
    and in words in how many of them they do; None where they do in none."""
    first = found.bands[0]
    arm = first.choices[0].arms[0]
    cells = [(arena, cell) for arena in first.arenas if (cell := arena.cell(*arm)) is not None]
    known = [(arena, cell, gain) for arena, cell in cells if (gain := cell.gain_in_answers()).n]
    less = [one for one in known if one[2].mean < 0]
    if not less:
        return None
    arena, cell, _ = min(less, key=lambda one: one[2].mean)
    return arena, cell, f" (below it in {len(less)} of {len(known)} cases)" if len(known) > 1 else ""


def _untrained(data: ReportData, found: Recommendation) -> list[str]:
    """Says where the recommended setting's answers are worth less than the untrained model's."""
    worst = _worst_answers(found)
    if worst is None:
        return []
    arena, cell, count = worst
    return [f"{answers_worse(cell, data.sweep.reward)} with {noise(arena.first)}{count}."]


def _by_ranking(data: ReportData, found: Recommendation) -> list[str]:
    """Where the reward of answers decides: what ranks most pairs right beside what is recommended, and that the setting
    that fails by ranking is among the recommended ones, if so."""
    failure = data.failure
    breaks = None if failure is None else recommended_in(found, failure.cell)
    arena = breaks or found.bands[0].arenas[0]
    own = found.lead if failure is None or breaks is None else failure.cell
    ranked = [cell for cell in arena.cells if cell.values(RANKING)]
    best = max(ranked, key=lambda cell: cell.ranking.mean, default=None)
    if found.measure != GOLD or best is None:
        return []
    if best is own:
        return []
    name = named(found, arena, own)
    why = f"{name} is among these although it breaks the ranking" if breaks else f"By ranking {name} is not the choice"
    line = (
        f"{why}: {percent(own.ranking.mean)} right with {noise(arena.first)}, against {percent(best.ranking.mean)} by"
        f" {named(found, arena, best)}"
    )
    beaten = found.pick(arena).beaten.get(_arm(arena, best))
    if beaten is None:
        return [f"{line}."]
    by, lead = arena.cell(*beaten[0]), beaten[1]
    assert by is not None, "an arm of a pick has a cell"
    kl, reward = number(best.estimate("kl").mean, 1), number(best.estimate(GOLD).mean)
    than = f"{shown(lead)} less than those of {named(found, arena, by)}"
    return [f"{line}, whose answers are worth {reward} at KL {kl} nats, {than}."]


def named(found: Recommendation, arena: Arena, cell: Cell) -> str:
    """A cell by objective and beta, with its training where that is not the one that all recommended settings have."""
    return cell.named if arena.training(cell) == found.shared else arena.named(cell)


def recommended_in(found: Recommendation, cell: Cell) -> Arena | None:
    """The arena of the first band that a cell is in, where its setting is a recommended one."""
    arena = next((one for one in found.bands[0].arenas if cell in one.cells), None)
    return arena if arena is not None and _arm(arena, cell) in found.bands[0].arms else None


def _arm(arena: Arena, cell: Cell) -> Arm:
    return cell.first.objective, arena.setting(cell)


def _crossing(data: ReportData, found: Recommendation, band: Recommended) -> str:
    """What to use in a later band, and whether the first band's choice is shown worse throughout it."""
    first = found.bands[0].choices[0]
    picks = [found.pick(arena) for arena in band.arenas]
    worse = f"; {first.text} is shown worse there" if all(set(first.arms) <= set(p.beaten) for p in picks) else ""
    lead = band.choices[0].lead
    names = band.scope if band.ordered else _listed([noise(arena.first) for arena in band.arenas])
    here = f" with {noise(band.arenas[0].first)}" if len(band.arenas) > 1 else ""
    return f"Expect {names}? {_names(band)}: {lead.named} {quality(data, lead, found.measure)}{here}{worse}."


def _alone(data: ReportData) -> Card:
    """Nothing to choose between: one arm, or no arm with an outcome under every rate."""
    finished = measured(data.headline.cells)
    if not finished:
        return Card("use", "Use", "Nothing to use yet", ("No run of the headline condition is finished.",))
    best = max(finished, key=lambda cell: cell.ranking.mean)
    text = f"It {quality(data, best, GOLD)} ({_where(data.headline)}; {seeds_text(best)})."
    only = "Nothing else was finished to compare it with." if len(finished) == 1 else "Not every rate is finished yet."
    return Card("use", "Use", best.named, (text, only))


def seeds_text(cell: Cell) -> str:
    """`6 seeds`, and what of them is missing or lost."""
    ended = len(cell.values(RANKING))
    lost = f", {cell.lost} lost and counted as worst" if cell.lost else ""
    return f"{quantity(ended, 'seed') if not cell.waiting else f'{ended} of {cell.planned} seeds so far'}{lost}"

"""What a sweep recommends: the arms that are not shown worse than the best, and in which cases.

A case is a world (or data) under one corruption. Along the rates of one kind, neighbouring cases form a range; kinds of
corruption have no order, so cases of several kinds are counted and named.

An arm is an objective with everything that the sweep varies within it (beta, learning rate, ...). Quality is the gold
reward of free answers where it is known of every arm, else ranking accuracy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from harness.identity import canonical_json
from harness.metrics.frontier import Setting
from harness.metrics.not_shown_worse import ALPHA, Band, Pick, bands, cheapest, covers, not_shown_worse
from harness.metrics.statistics import MIN_SEEDS, Estimate, judge
from harness.report.data.cells import RANKING, Cell
from harness.report.data.conditions import kind_of, noise, spoken, without_training
from harness.report.data.frontier import Arena
from harness.report.render.text import plain, visible

GOLD = "gold_reward"
Arm = tuple[str, Setting]


@dataclass(frozen=True)
class Choice:
    """The arms of one objective in a band: `text` such as `cpo_smooth, beta 0.5 to 5`; `lead` the first of them."""

    objective: str
    text: str
    lead: Cell
    arms: tuple[Arm, ...]


@dataclass(frozen=True, eq=False)
class Recommended:
    """One band: its arenas, the choices by objective, the best first, and the cheapest in KL of those choices. In every
    one of its arenas, and where it has no order in none of the `others`, all of the choices are not shown worse."""

    arenas: tuple[Arena, ...]
    choices: tuple[Choice, ...]
    cheapest: Cell | None
    of: int  # arms compared
    others: tuple[Arena, ...]
    ordered: bool

    @property
    def arms(self) -> tuple[Arm, ...]:
        """All arms of its choices."""
        return tuple(arm for choice in self.choices for arm in choice.arms)

    @property
    def scope(self) -> str:
        """`clean labels to 40 % flips`, or of cases without an order `14 of 20 cases`."""
        names = [noise(arena.first) for arena in self.arenas]
        if len(names) == 1:
            return names[0]
        if self.ordered:
            return f"{names[0]} to {names[-1]}"
        return f"{len(names)} of {len(names) + len(self.others)} cases" if self.others else f"all {len(names)} cases"


@dataclass(frozen=True, eq=False)
class Lead:
    """How far the recommended arm `by` is before `over` in one arena, with the interval corrected for `family`
    comparisons whose ends are one-sided at 5 %."""

    arena: Arena
    by: Cell
    over: Cell
    interval: Estimate
    family: int

    @property
    def shown(self) -> bool:
        """Whether it is shown to be better."""
        return self.interval.low > 0

    @property
    def word(self) -> str:
        """`shown`, `not shown`; below the seeds of a verdict what the interval says."""
        if self.interval.n < MIN_SEEDS:
            return "interval above 0" if self.shown else "interval not above 0"
        return "shown" if self.shown else "not shown"


@dataclass(frozen=True, eq=False)
class Recommendation:
    """What is recommended along one kind of corruption, or under several; `picks` stand beside the `arenas`, clean
    first. The table of cases shows the same picks."""

    measure: str
    arenas: tuple[Arena, ...]
    picks: tuple[Pick[Arm], ...]
    bands: tuple[Recommended, ...]
    shared: str = ""  # settings that all recommended arms have, such as `steps 200`, where the sweep varies them

    @property
    def lead(self) -> Cell:
        """The recommended arm in the first case that it is recommended for: clean labels, or the lowest rate."""
        return self.bands[0].choices[0].lead

    def pick(self, arena: Arena) -> Pick[Arm]:
        """What is not shown worse in one of the arenas."""
        return next(pick for one, pick in zip(self.arenas, self.picks, strict=True) if one is arena)

    @property
    def runner_up(self) -> str | None:
        """The objective, other than the recommended one, with the best arm where the recommended one leads."""
        arena = self.bands[0].arenas[0]
        pick, own = self.pick(arena), self.lead.first.objective
        others = [arm for arm in (*pick.arms, *pick.beaten) if arm[0] != own]
        return max(others, key=lambda arm: _mean(arena, arm, self.measure))[0] if others else None

    def leads_over(self, objective: str) -> tuple[Lead, ...]:
        """The recommended arm against an objective's best arm, in every case of the first band; nothing of the
        recommended objective itself."""
        own = self.bands[0].choices[0].arms[0]
        return tuple(
            lead
            for arena in self.bands[0].arenas
            if (lead := _over(arena, self.pick(arena), own, objective, self.measure)) is not None
        )


def recommend(arenas: Sequence[Arena], headline: Arena) -> Recommendation | None:
    """The recommendation in the world (or data) of the headline: along its kind of corruption, or the one with most
    rates; in all its cases where that kind has one rate.

    None where fewer than two arms have an outcome.
    """
    along, ordered = _along(arenas, headline)
    measure = _measure(along)
    picks = tuple(_pick(arena, measure) for arena in along)
    if not picks or any(not pick.arms for pick in picks) or max(len(p.arms) + len(p.beaten) for p in picks) < 2:
        return None
    found = bands(picks) if ordered else covers(picks)
    same = _shared(along[0], [arm for band in found for arm in band.arms])
    made = tuple(_recommended(along, picks, band, measure, same, ordered) for band in found)
    return Recommendation(measure, along, picks, made, ", ".join(same.values()))


@dataclass(frozen=True, eq=False)
class Case:
    """What is recommended in one arena: a world (or data) under one corruption. `tags` name both, for a page's filter:
    those of `world` and `labels`, its two halves in words."""

    arena: Arena
    world: str
    labels: str
    tags: tuple[str, str]
    measure: str
    choices: tuple[Choice, ...]  # the best first; empty where nothing can be compared
    over: Lead | None  # the best of them before the baseline's best, or the next objective's where it is the baseline's

    @property
    def lead(self) -> Cell | None:
        """The recommended arm."""
        return self.choices[0].lead if self.choices else None


def cases(arenas: Sequence[Arena], headline: Arena, found: Recommendation | None, baseline: str) -> tuple[Case, ...]:
    """A case per arena, the headline's world first; those of the recommendation keep its picks and its measure."""
    worlds: dict[str, str] = {}
    kinds: dict[str, str] = {}
    made = {} if found is None else dict(zip(map(id, found.arenas), found.picks, strict=True))
    out = []
    for arena in sorted(arenas, key=lambda arena: _world(arena) != _world(headline)):
        world, labels = _half(arena), noise(arena.first)
        tags = worlds.setdefault(world, f"w{len(worlds)}"), kinds.setdefault(labels, f"n{len(kinds)}")
        measure = found.measure if found is not None and id(arena) in made else _measure([arena])
        pick = made.get(id(arena)) or _pick(arena, measure)
        band = Band((0,), pick.arms)
        same = _shared(arena, pick.arms) if pick.arms else {}
        choices = _recommended((arena,), (pick,), band, measure, same).choices
        over = _over(arena, pick, pick.arms[0], _rival(arena, pick, measure, baseline), measure) if pick.arms else None
        out.append(Case(arena, world, labels, tags, measure, choices, over))
    return tuple(out)


def _rival(arena: Arena, pick: Pick[Arm], measure: str, baseline: str) -> str:
    """Whom the best arm is compared with: the baseline, or the next objective where it is the baseline's own."""
    own = pick.arms[0][0]
    others = [arm for arm in (*pick.arms, *pick.beaten) if arm[0] != own]
    if own != baseline or not others:
        return baseline
    return max(others, key=lambda arm: _mean(arena, arm, measure))[0]


def _half(arena: Arena) -> str:
    """The world or data of an arena in words, empty where there is nothing to say of it."""
    return without_training(arena.first.setting, arena.axes)[0]


def _shared(arena: Arena, arms: Sequence[Arm]) -> dict[int, str]:
    """Settings beyond beta that the arena varies and that all `arms` have in common, in words by their place."""
    every = [arena.setting(cell) for cell in arena.cells]
    found = {}
    for place, (axis, value) in enumerate(arms[0][1]):
        values = {setting[place][1] for setting in every}
        if axis == "reward_model":  # that some arms learn from one and others from none, their names say
            values.discard(None)
        varied = len(values) > 1
        if axis != "beta" and value is not None and varied and len({arm[1][place][1] for arm in arms}) == 1:
            found[place] = f"{spoken(axis)} {_range([value])}"
    return found


def _measure(arenas: Sequence[Arena]) -> str:
    """Gold reward where every cell has it, else ranking accuracy."""
    known = [cell.estimate(GOLD).n > 0 for arena in arenas for cell in arena.cells]
    return GOLD if known and all(known) else RANKING


def _over(arena: Arena, pick: Pick[Arm], own: Arm, objective: str, measure: str) -> Lead | None:
    """An arm before an objective's best, of its arms that are not shown worse if it has any, so that the set and the
    comparison say the same; None of its own objective, and where the other has no arm."""
    arms = [*pick.arms, *pick.beaten]
    theirs = [arm for arm in arms if arm[0] == objective != own[0]]
    if not theirs:
        return None
    open_still = [arm for arm in theirs if arm in pick.arms]
    best = max(open_still or theirs, key=lambda arm: _mean(arena, arm, measure))
    by, over = arena.cell(*own), arena.cell(*best)
    assert by is not None and over is not None, "an arm of the pick has a cell"
    return Lead(arena, by, over, arm_lead(arena, measure, own, best, len(arms) - 1), len(arms) - 1)


def _along(arenas: Sequence[Arena], headline: Arena) -> tuple[tuple[Arena, ...], bool]:
    """The arenas of the headline's world or data, and whether they have an order: clean, then one kind of corruption by
    rising rate. Where several kinds have one rate each, all of them as they stand."""
    same = [arena for arena in arenas if _world(arena) == _world(headline)]
    clean = [arena for arena in same if arena.first.clean]
    kinds: dict[str, list[Arena]] = {}
    for arena in same:
        if not arena.first.clean:
            kinds.setdefault(kind_of(arena.first), []).append(arena)
    if not kinds:
        return tuple(clean[:1] or [headline]), True
    own = kind_of(headline.first)
    kind = own if own in kinds else max(kinds, key=lambda name: len(kinds[name]))
    if len(kinds) > 1 and len(kinds[kind]) == 1:
        return (*clean[:1], *(arena for several in kinds.values() for arena in several)), False
    return (*clean[:1], *sorted(kinds[kind], key=lambda arena: arena.first.rate)), True


def _world(arena: Arena) -> str:
    config = arena.first.first.config
    return canonical_json([config.get(name) for name in ("world", "data", "model", "evaluation")])


def arm_values(arena: Arena, cells: Iterable[Cell], measure: str) -> dict[Arm, dict[int, float]]:
    """Quality by seed of the arms that some cells of an arena are, those without any outcome left out."""
    return {
        (cell.first.objective, arena.setting(cell)): dict(values) for cell in cells if (values := cell.values(measure))
    }


def _mean(arena: Arena, arm: Arm, measure: str) -> float:
    """Mean quality of an arm, minus infinity where it has none."""
    cell = arena.cell(*arm)
    values = {} if cell is None else cell.values(measure)
    return math.fsum(values.values()) / len(values) if values else -math.inf


def _pick(arena: Arena, measure: str) -> Pick[Arm]:
    return not_shown_worse(arm_values(arena, arena.cells, measure), partial(arm_lead, arena, measure))


def arm_lead(arena: Arena, measure: str, a: Arm, b: Arm, family: int) -> Estimate:
    """a - b with what single pairs add; each end is one-sided."""
    first, second = arena.cell(*a), arena.cell(*b)
    assert first is not None and second is not None, "an arm has a cell"
    left, right = first.values(measure), second.values(measure)
    both = {seed: left[seed] - right[seed] for seed in left.keys() & right.keys()}
    return judge(both, family=family, alpha=2 * ALPHA, items=first.item_level(measure, second)).corrected


def _recommended(
    arenas: tuple[Arena, ...],
    picks: tuple[Pick[Arm], ...],
    band: Band[Arm],
    measure: str,
    shared: Mapping[int, str],
    ordered: bool = True,
) -> Recommended:
    """A band with its arms joined by objective: betas that are not told apart stand as one range; not at all stand
    settings that all recommended arms have (`shared`, by place), and those of which every value is among them."""
    of = tuple(arenas[place] for place in band.places)
    others = tuple(arena for arena in arenas if arena not in of)
    by_objective: dict[str, list[Arm]] = {}
    for arm in band.arms:
        by_objective.setdefault(arm[0], []).append(arm)
    choices = tuple(_choice(of[0], arms, shared) for arms in by_objective.values())
    kl = {arm: _mean_of(of, arm, "kl") for arm in band.arms}
    quality = {arm: _mean_of(of, arm, measure) for arm in band.arms}
    front = cheapest(band.arms, kl, quality)
    pick = picks[band.places[0]]
    nearest = of[0].cell(*front[0]) if front else None
    return Recommended(of, choices, nearest, len(pick.arms) + len(pick.beaten), others, ordered)


def _mean_of(arenas: Sequence[Arena], arm: Arm, measure: str) -> float:
    values = [value for arena in arenas if (cell := arena.cell(*arm)) for value in cell.finished(measure).values()]
    return math.fsum(values) / len(values) if values else math.nan


def _choice(arena: Arena, arms: Sequence[Arm], shared: Mapping[int, str]) -> Choice:
    objective = arms[0][0]
    lead = arena.cell(*arms[0])
    assert lead is not None, "an arm of a band has a cell in each of its arenas"
    parts = []
    every = [arena.setting(cell) for cell in arena.of(objective)]
    for place, (axis, _) in enumerate(arms[0][1]):
        values = list(dict.fromkeys(setting[place][1] for _, setting in arms))
        tried = {setting[place][1] for setting in every}
        if axis == "beta":
            parts += [f"beta {_range(values)}"] if len(tried) > 1 or values[0] is not None else []
        elif place not in shared and not _follows_beta(every, place) and set(values) != tried:
            parts.append(f"{spoken(axis)} {_range(values)}")
    return Choice(objective, ", ".join([visible(objective), *parts]), lead, tuple(arms))


def _follows_beta(settings: Sequence[Setting], place: int) -> bool:
    """Whether every beta has one value of an axis, so that the beta alone names the arm."""
    return len({setting[0][1] for setting in settings}) == len({(s[0][1], s[place][1]) for s in settings})


def _range(values: Sequence[object]) -> str:
    numbers = sorted(float(value) for value in values if isinstance(value, int | float))
    if len(numbers) < len(values):
        return " or ".join(visible(value) for value in values)
    return plain(numbers[0]) if len(numbers) == 1 else f"{plain(numbers[0])} to {plain(numbers[-1])}"

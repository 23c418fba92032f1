"""Quality against movement: what an objective reaches at a given KL to the reference, and at its best setting.

Equal betas of two objectives are different scales; a nat of KL is the same for all. A setting is everything that the
sweep varies within an objective (beta, learning rate, steps, ...). Settings that differ in one axis alone form a line,
and along a line the quality of a seed is straight in log KL between neighbouring points. The frontier at a KL is the
line whose mean over seeds is highest there; the best setting is the one with the highest mean.

Both are choices made on the seeds that they are reported on. Two things keep that honest: a comparison says how many
settings were not shown worse than the chosen one (`among`), by which its interval must be corrected (simulated: false
differences stay at or below the level, with full power where the best is clear), and what the same choice made on the
other seeds alone gives (`elsewhere`), which has no optimism and no interval (its values are dependent: a t interval
over them errs in up to 33 %). Pure; the order of seeds and settings changes no bit.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from harness.metrics.statistics import SHARE_MARGIN, t_interval

# The KLs (nats) at which frontiers are compared: round numbers, fixed before any result, about 1.5 apart.
KLS = tuple(float(f"{value}e{decade}") for decade in range(-3, 3) for value in (1, 1.5, 2, 3, 5, 7))
GAP = 5.0  # neighbouring points whose KLs differ by more than this factor are not joined: nobody knows what is between
SCREEN = 0.9  # of the two-sided interval by which a setting is shown worse than the chosen one: 5 % on one side

Setting = tuple[tuple[str, Hashable], ...]  # (axis, value), the same axes in the same order within one objective
BySeed = Mapping[int, float]


@dataclass(frozen=True, slots=True)
class Point:
    """What one setting reached in one seed; `kl` (nats) is NaN where it is not known: no samples, or a lost run."""

    quality: float
    kl: float = math.nan


@dataclass(frozen=True, slots=True)
class Chosen:
    """The row (setting or line) that is best over all seeds: its `values` by seed, and `among` how many it was chosen,
    itself and those that are not shown worse. `elsewhere`: by seed, the row that is best on the other seeds."""

    row: int
    values: BySeed
    among: int
    elsewhere: BySeed


@dataclass(frozen=True, slots=True)
class Edge:
    """A best beta at the end of its grid (`side` below or above), or the only one that was tried (`side` only)."""

    side: str
    beta: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two objectives by seed, `a` and `b` on the seeds that both have: at the KL `at` (nats; of an objective with one
    setting the mean of its own), or each at its best (`at` None).

    `among` as in `Chosen`; `elsewhere` the differences of `Chosen.elsewhere`. `seeds`: how many have points of both.
    """

    at: float | None
    a: BySeed
    b: BySeed
    among: int
    elsewhere: BySeed
    seeds: int

    @property
    def differences(self) -> dict[int, float]:
        """a minus b by seed."""
        return _minus(self.a, self.b)


@dataclass(frozen=True)
class Frontier:
    """The points of one objective under one condition, by seed and setting."""

    points: Mapping[int, Mapping[Setting, Point]]

    @cached_property
    def settings(self) -> tuple[Setting, ...]:
        """Every setting with a point in any seed."""
        return tuple(sorted({setting for own in self.points.values() for setting in own}, key=repr))

    @cached_property
    def lines(self) -> tuple[tuple[Setting, ...], ...]:
        """Settings that differ in one axis alone; a setting without such a neighbour is a line of its own."""
        lines: dict[Hashable, list[Setting]] = {}
        for setting in self.settings:
            for place, (axis, _) in enumerate(setting):
                lines.setdefault((axis, setting[:place] + setting[place + 1 :]), []).append(setting)
        several = {tuple(line) for line in lines.values() if len(line) > 1}
        alone = {(setting,) for setting in self.settings if not any(setting in line for line in several)}
        return tuple(sorted(several | alone, key=repr))

    def on(self, line: Sequence[Setting], seed: int, kl: float) -> float | None:
        """Quality of a seed at `kl` along a line; None outside of what the line spans in that seed, and in its gaps."""
        own = self.points[seed]
        by_kl: dict[float, list[float]] = {}
        for setting in line:
            if setting in own and own[setting].kl > 0:
                by_kl.setdefault(own[setting].kl, []).append(own[setting].quality)
        ordered = sorted(by_kl)
        if not ordered or not ordered[0] <= kl <= ordered[-1]:
            return None
        below, above = max(k for k in ordered if k <= kl), min(k for k in ordered if k >= kl)
        if above > GAP * below:
            return None
        return float(np.interp(math.log(kl), np.log(ordered), [_mean(by_kl[one]) for one in ordered]))

    def at(self, kl: float | BySeed) -> Chosen | None:
        """The frontier at one KL (or at one per seed); None where no seed reaches it."""
        wanted = kl if isinstance(kl, Mapping) else dict.fromkeys(self.points, kl)
        table = []
        for line in self.lines:
            reached = {seed: self.on(line, seed, at) for seed, at in wanted.items() if seed in self.points}
            table.append({seed: value for seed, value in sorted(reached.items()) if value is not None})
        return choose(table)

    @cached_property
    def _by_setting(self) -> list[dict[int, float]]:
        seeds = sorted(self.points)
        return [{s: self.points[s][one].quality for s in seeds if one in self.points[s]} for one in self.settings]

    @cached_property
    def best(self) -> Chosen | None:
        """The best setting; None without any point."""
        return choose(self._by_setting)

    @property
    def best_setting(self) -> Setting | None:
        """Its values of the axes."""
        return None if self.best is None else self.settings[self.best.row]

    def edge(self, margin: float = SHARE_MARGIN) -> Edge | None:
        """Whether the best beta lies at the end of those tried with its other values; None where it lies inside.

        An end that is less than `margin` better than its neighbour counts as inside: the curve is flat there.
        """
        best = self.best_setting
        beta = None if best is None else beta_of(best)
        if best is None or beta is None:
            return None
        line = sorted((s for s in self.settings if _but_beta(s) == _but_beta(best)), key=lambda s: beta_of(s) or 0.0)
        if len(line) == 1:
            return Edge("only", beta)
        place = line.index(best)
        if 0 < place < len(line) - 1:
            return None
        neighbour = self._by_setting[self.settings.index(line[1] if place == 0 else line[-2])]
        gain = _minus(self._by_setting[self.settings.index(best)], neighbour)
        if gain and _mean(gain.values()) < margin:
            return None
        return Edge("below" if place == 0 else "above", beta)

    @cached_property
    def own_kl(self) -> dict[int, float]:
        """By seed, the mean KL of its points; seeds without any measured KL are left out."""
        known = {seed: sorted(p.kl for p in own.values() if p.kl > 0) for seed, own in sorted(self.points.items())}
        return {seed: _mean(values) for seed, values in known.items() if values}


def choose(table: Sequence[BySeed]) -> Chosen | None:
    """The row with the highest mean among those that most seeds have, the first among equals; None without values."""
    most = max((len(values) for values in table), default=0)
    if not most:
        return None
    whole = [row for row, values in enumerate(table) if len(values) == most]
    best = max(whole, key=lambda row: (_mean(table[row].values()), -row))
    rivals = [row for row in whole if row != best and not _shown_worse(table[row], table[best])]
    elsewhere = {}
    for seed in sorted(table[best]):
        others = {row: [v for s, v in table[row].items() if s != seed] for row in whole if seed in table[row]}
        chosen = max(others, key=lambda row: (_mean(others[row]) if others[row] else table[row][seed], -row))
        elsewhere[seed] = table[chosen][seed]
    return Chosen(best, dict(table[best]), 1 + len(rivals), elsewhere)


def matched(a: Frontier, b: Frontier) -> list[Comparison]:
    """a minus b at every KL of `KLS` that some seed reaches on both sides; at its own KL where a or b has one setting.

    Each side is read within the range that its own points span in that seed: nothing is extrapolated, and the
    untrained reference is no point.
    """
    seeds = len(a.own_kl.keys() & b.own_kl.keys())
    single = next((one for one in (a, b) if len(one.settings) == 1), None)
    if single is not None:
        at = _mean(single.own_kl.values()) if single.own_kl else math.nan
        found = [_compare(at, a.at(single.own_kl), b.at(single.own_kl), seeds)]
    else:
        found = [_compare(kl, a.at(kl), b.at(kl), seeds) for kl in KLS]
    return [one for one in found if one is not None]


def at_best(a: Frontier, b: Frontier) -> Comparison | None:
    """a minus b, each at its best setting; None without common seeds."""
    return _compare(None, a.best, b.best, len(a.points.keys() & b.points.keys()))


def middle(comparisons: Sequence[Comparison]) -> Comparison | None:
    """The comparison that stands for all: the middle KL of those that most seeds reach. No quality has a say."""
    most = max((len(one.differences) for one in comparisons), default=0)
    widest = [one for one in comparisons if len(one.differences) == most]
    return widest[len(widest) // 2] if widest else None


def beta_of(setting: Setting) -> float | None:
    """The beta of a setting; None for objectives without one."""
    value = dict(setting).get("beta")
    return float(value) if isinstance(value, int | float) else None


def _compare(at: float | None, a: Chosen | None, b: Chosen | None, seeds: int) -> Comparison | None:
    both = () if a is None or b is None else sorted(a.values.keys() & b.values.keys())
    if a is None or b is None or not both:
        return None
    first, second = {seed: a.values[seed] for seed in both}, {seed: b.values[seed] for seed in both}
    # Choosing b among many can only make a look worse than it is, so the larger number of the two is enough.
    return Comparison(at, first, second, max(a.among, b.among), _minus(a.elsewhere, b.elsewhere), seeds)


def _shown_worse(values: BySeed, best: BySeed) -> bool:
    return t_interval(list(_minus(best, values).values()), SCREEN).low > 0


def _minus(a: BySeed, b: BySeed) -> dict[int, float]:
    return {seed: a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())}


def _mean(values: Iterable[float]) -> float:
    every = list(values)
    return math.fsum(every) / len(every)


def _but_beta(setting: Setting) -> Setting:
    return tuple(pair for pair in setting if pair[0] != "beta")

"""The two figures under a page's cards, each titled by its finding: how accuracy holds out, what it costs in KL.

Every mark of a mean says its value, interval and n (`<title>`); small marks are seeds.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from harness.metrics.statistics import Estimate, t_interval
from harness.palette import Look
from harness.report.data.cells import RANKING, Cell, measured
from harness.report.data.conditions import Condition, Family, noise
from harness.report.data.curves import Curve, best_curve, curves
from harness.report.data.frontier import Arena
from harness.report.data.recommendation import GOLD, Arm
from harness.report.data.report_data import ReportData
from harness.report.data.run_facts import REWARD_MODEL
from harness.report.render.figures import Picture, picture, shared_legend, tip
from harness.report.render.text import ascii_visible, number, percent, percents, quantity, shorten, shown, visible
from harness.report.sections.damage import MANY_KINDS

SIZE = (5.9, 3.9)  # inches; two stand side by side
MOST = 8  # objectives that have a colour and a label of their own; of more the best are drawn
MAX_LABELS = 10  # names beside a figure; the rest is in the tables
MIN_GAP = 0.055  # of an axis between two labels
GREY = "#6b7280"
RECOMMENDED = "recommended"  # no objective has this name
PAPER = {"facecolor": "#ffffff", "edgecolor": "none", "alpha": 0.75, "pad": 0.6}  # behind a label among marks
MOST_CASES = 24  # rows of a figure of cases
NO_OBJECTIVE = "No objective"  # what a title begins with that speaks of all of them
APART = 6  # points of a share between two lines whose names stand above them


def heroes(data: ReportData) -> tuple[Picture, ...]:
    """Accuracy (along the rates of a corruption, else by objective) and the frontier; what there is data for."""
    return tuple(found for found in (_accuracy(data), _frontier(data)) if found is not None)


def _accuracy(data: ReportData) -> Picture | None:
    family = data.family
    kinds = [kind for kind, same in family.kinds.items() if len(same) + (family.clean is not None) > 1]
    if len(family.kinds) >= MANY_KINDS or (len(kinds) > 1 and all(len(same) == 1 for same in family.kinds.values())):
        return _by_case(data, family)
    if kinds:
        own = next((kind for kind in kinds if data.headline in family.kinds[kind]), None)
        return _survival(data, family, own or max(kinds, key=lambda kind: len(family.kinds[kind])))
    return _by_objective(data)


def _survival(data: ReportData, family: Family, kind: str) -> Picture | None:
    conditions = family.along(kind)
    best = {
        name: best_curve(found)
        for name in family.objectives
        if name != REWARD_MODEL and (found := curves(family, kind, name))
    }
    lines = {name: curve.points for name, curve in best.items() if len(curve.points) > 1}
    kept = sorted(lines, key=lambda name: -best[name].height)[:MOST]
    if data.baseline in lines and data.baseline not in kept:
        kept[-1] = data.baseline
    lines = {name: lines[name] for name in kept}
    if not lines:
        return None
    x = {condition.title: place for place, condition in enumerate(conditions)}
    chosen = _recommended(data, family, kind)
    drawn = chosen is not None and len(chosen.points) > 1 and chosen.arm not in {best[name].arm for name in lines}
    gold = data.recommendation is not None and data.recommendation.measure == GOLD
    by = f", chosen by {data.sweep.reward}" if gold else ""
    notes = (f" Dashed: the recommended setting{by}." if drawn else "") + _tried_once(family, kind, lines)

    def paint(_: Any, axes: Any) -> None:
        panel = axes[0, 0]
        _shares(panel, [cell for points in lines.values() for _, cell in points])
        step = 0.22 / max(len(lines), 1)
        ends = {}
        for i, (name, points) in enumerate(lines.items()):
            colour = data.looks[name].colour
            at = [x[c.title] + (i - (len(lines) - 1) / 2) * step for c, _ in points]
            panel.plot(at, [100 * cell.ranking.mean for _, cell in points], color=colour, linewidth=1.8)
            for place, (condition, cell) in zip(at, points, strict=True):
                _mark(panel, place, cell, data.looks[name], condition)
            ends[name] = 100 * points[-1][1].ranking.mean
        labels = {name: ascii_visible(f"{lines[name][-1][1].named}  {percent(y / 100)}") for name, y in ends.items()}
        looks = dict(data.looks)
        if chosen is not None and drawn:
            look = data.looks[chosen.first.first.objective]
            at = [x[condition.title] for condition, _ in chosen.points]
            panel.plot(
                at, [100 * cell.ranking.mean for _, cell in chosen.points], "--", color=look.colour, linewidth=1.4
            )
            last = chosen.points[-1][1]
            ends[RECOMMENDED], looks[RECOMMENDED] = 100 * last.ranking.mean, look
            labels[RECOMMENDED] = ascii_visible(f"{last.named}, recommended  {percent(last.ranking.mean)}")
        _labels(panel, ends, labels, looks, len(conditions) - 1 + 0.16)
        panel.set_xlim(-0.25, len(conditions) - 1 + 0.2)
        kinds = {c.first.corruption for c in conditions if not c.clean}
        alone = len(kinds) == 1 and "sequence" not in kinds
        panel.set_xticks(list(x.values()), [_tick(c, alone) for c in conditions])
        if alone:
            [kind] = kinds
            panel.set_xlabel(ascii_visible(f"{'flipped labels' if kind == 'uniform_flip' else kind}, share of pairs"))

    title = _survival_finding(lines, conditions)
    if chosen is not None and (
        drawn or not (title.startswith(NO_OBJECTIVE) or visible(chosen.first.first.objective) in title)
    ):
        low, high = chosen.points[0], chosen.points[-1]
        ends = (percent(point[1].ranking.mean) for point in (low, high))
        title += f". Recommended, {chosen.first.named}: {', then '.join(ends)}"
    return picture(
        "hero-accuracy",
        title,
        f"Clean held-out pairs ranked right, %{f', {family.title}' if family.title else ''}; small dots are seeds, each"
        f" objective at the beta with the highest average over the rates.{notes}",
        f"{title}. Share of clean held-out pairs ranked right against the share of corrupted labels. "
        + " ".join(f"{visible(n)}: {', '.join(percent(c.ranking.mean) for _, c in p)}." for n, p in lines.items()),
        (1, 1), SIZE, paint,
    )  # fmt: skip


def _recommended(data: ReportData, family: Family, kind: str | None) -> Curve | None:
    """The curve of the recommended setting; None where it is not along these conditions."""
    if data.recommendation is None:
        return None
    lead = data.recommendation.lead
    found = curves(family, kind, lead.first.objective)
    return next((curve for curve in found if any(cell is lead for _, cell in curve.points)), None)


def _tried_once(family: Family, kind: str, names: Iterable[str]) -> str:
    """Says of which of the objectives a single setting was tried, so that it had nothing to be best of."""
    alone = [visible(name) for name in names if len(curves(family, kind, name)) == 1]
    return f" Only one setting of {' and of '.join(alone)} was tried." if alone and len(family.objectives) > 1 else ""


def _tick(condition: Condition, rate_alone: bool) -> str:
    """`clean`, and the rate where the kind stands at the axis."""
    if condition.clean:
        return "clean"
    return ascii_visible(percent(condition.rate) if rate_alone else noise(condition))


def _survival_finding(lines: Mapping[str, Sequence[tuple[Condition, Cell]]], conditions: Sequence[Condition]) -> str:
    """Who is on top at the ends of the rates, and who is lowest at the highest."""
    last = {name: points[-1][1].ranking.mean for name, points in lines.items()}
    first = {name: points[0][1].ranking.mean for name, points in lines.items()}
    top, low = max(last, key=lambda name: last[name]), min(last, key=lambda name: last[name])
    before = max(first, key=lambda name: first[name])
    end = noise(conditions[-1])
    if len(lines) == 1:
        return f"{visible(top)} ranks {percent(last[top])} right with {end}, {percent(first[top])} with none"
    ends = [(points[0][1], points[-1][1]) for points in lines.values()]
    if all(_overlap([cells[place] for cells in ends]) for place in (0, 1)):
        clean, dirty = (" to ".join(dict.fromkeys(percent(f(v.values())) for f in (min, max))) for v in (first, last))
        return f"{NO_OBJECTIVE} holds out better: {clean} right with {noise(conditions[0])}, {dirty} with {end}"
    if _overlap([cells[1] for cells in ends]):
        worst = min(first, key=lambda name: first[name])
        between = " to ".join(dict.fromkeys(percent(f(last.values())) for f in (min, max)))
        return (
            f"{visible(before)} ranks {percent(first[before])} right with {noise(conditions[0])}, {visible(worst)}"
            f" {percent(first[worst])}; with {end} none is ahead ({between})"
        )
    text = f"{visible(top)} holds out best: {percent(last[top])} right with {end}"
    if before != top and first[before] - first[top] >= 0.01:
        text = f"{visible(before)} ranks most on clean labels, {visible(top)} with {end} ({percent(last[top])})"
    return f"{text}; {visible(low)} falls to {percent(last[low])}"


def _overlap(cells: Sequence[Cell]) -> bool:
    """Whether the lowest mean lies within the interval of the highest: nothing that a title may call a difference."""
    top = max(cells, key=lambda cell: cell.ranking.mean)
    return min(cell.ranking.mean for cell in cells) >= top.ranking.low


def _shares(panel: Any, cells: Sequence[Cell]) -> None:
    """The axis of a share in percent, with chance and the untrained reference."""
    panel.set_ylim(-2, 104)
    panel.set_yticks([0, 25, 50, 75, 100])
    panel.axhline(50, color=GREY, linewidth=0.9)
    panel.annotate("coin flip", (0, 50), xytext=(-16, 3), textcoords="offset points", fontsize=8, color=GREY)
    known = [cell.reference_accuracy().mean for cell in cells if cell.reference_accuracy().n]
    if known:
        mean = 100 * math.fsum(known) / len(known)
        panel.axhline(mean, color=GREY, linewidth=0.9, linestyle="--")
        below = 50 - APART < mean < 50  # else the two lines' names would overlap
        panel.annotate("before training", (0, mean), xytext=(-16, -10 if below else 3), textcoords="offset points",
                       fontsize=8, color=GREY)  # fmt: skip
    panel.set_ylabel("ranked right, %")


def _mark(panel: Any, x: float, cell: Cell, look: Look, condition: Condition) -> None:
    """A mean with its seeds."""
    seeds = [100 * value for value in cell.values(RANKING).values()]
    panel.plot([x] * len(seeds), seeds, ".", color=look.colour, markersize=3, alpha=0.45)
    text = f"{cell.named}, {noise(condition)}: {percents(cell.ranking)}, {quantity(cell.ranking.n, 'seed')}"
    panel.plot([x], [100 * cell.ranking.mean], color=look.colour, marker=look.marker, markersize=6, gid=tip(text))


def _labels(
    panel: Any, ends: Mapping[str, float], labels: Mapping[str, str], looks: Mapping[str, Look], x: float
) -> None:
    """Direct labels right of the lines, moved apart where they would overlap."""
    low, high = panel.get_ylim()
    gap = MIN_GAP * (high - low)
    places: dict[str, float] = {}
    top = sorted(ends, key=lambda name: ends[name])[-MAX_LABELS:]
    for name in top:
        places[name] = max([ends[name], *(place + gap for place in places.values())])
    over = max(places.values()) - high
    for name, y in places.items():
        shift = max(0.0, over)
        panel.annotate(
            shorten(labels[name], 40), (x, y - shift), annotation_clip=False, va="center", fontsize=9,
            fontweight="bold", color=looks[name].ink,
        )  # fmt: skip


def _by_case(data: ReportData, family: Family) -> Picture | None:
    """A row per corruption, those without an order, by mean accuracy; a mark per objective at its best average, and
    one of the recommended setting where that is another."""
    best = {
        name: best_curve(found)
        for name in family.objectives
        if name != REWARD_MODEL and (found := curves(family, None, name))
    }
    kept = sorted(best, key=lambda name: -best[name].height)[:MOST]
    chosen = _recommended(data, family, None)
    arms = {best[name].arm: best[name] for name in kept}
    if chosen is not None:
        arms.setdefault(chosen.arm, chosen)
    cells = {arm: {condition.title: cell for condition, cell in curve.points} for arm, curve in arms.items()}

    def height(condition: Condition) -> float:
        means = [own[condition.title].ranking.mean for own in cells.values() if condition.title in own]
        return math.fsum(means) / len(means)

    shown_ = [c for c in family.conditions if any(c.title in own for own in cells.values())]
    rows = sorted(shown_, key=height)
    if len(rows) > MOST_CASES:  # the costliest, and clean labels
        rows = sorted([*rows[: MOST_CASES - 1], rows[-1]], key=height)
    if not rows:
        return None

    def paint(figure: Any, axes: Any) -> None:
        panel = axes[0, 0]
        for i, (arm, curve) in enumerate(arms.items()):
            look, step = data.looks[curve.first.first.objective], 0.6 / len(arms)
            found = [(y, cells[arm][c.title], c) for y, c in enumerate(rows) if c.title in cells[arm]]
            at = [y + (i - (len(arms) - 1) / 2) * step for y, _, _ in found]
            label = f"{curve.first.named}{', recommended' if chosen is not None and arm == chosen.arm else ''}"
            open_ = chosen is not None and arm == chosen.arm and len(arms) > len(kept)
            style = {"color": look.colour, "marker": look.marker, "linestyle": "none"}
            style |= {"fillstyle": "none"} if open_ else {}
            panel.plot([100 * cell.ranking.mean for _, cell, _ in found], at, **style, label=ascii_visible(label))
            for place, (_, cell, condition) in zip(at, found, strict=True):
                value = cell.ranking
                if math.isfinite(value.low):
                    panel.plot([100 * value.low, 100 * value.high], [place] * 2, color=look.colour, linewidth=0.8)
                text = f"{cell.named}, {noise(condition)}: {percents(value)}, {quantity(value.n, 'seed')}"
                panel.plot([100 * value.mean], [place], **style, gid=tip(text))
        panel.set_yticks(range(len(rows)), [ascii_visible(noise(condition)) for condition in rows])
        panel.set_ylim(-0.7, len(rows) - 0.3)
        panel.axvline(50, color=GREY, linewidth=0.9)
        known = [cell.reference_accuracy().mean for own in cells.values() for cell in own.values()]
        if known := [value for value in known if math.isfinite(value)]:
            panel.axvline(100 * math.fsum(known) / len(known), color=GREY, linewidth=0.9, linestyle="--")
        panel.set_xlabel("ranked right, % (dashed: before training; solid: coin flip)")
        panel.grid(axis="x")
        shared_legend(figure, axes, "outside upper center", 2)

    speaks = chosen or arms[best[kept[0]].arm]
    title = _case_finding(speaks, chosen is not None, [best[name] for name in kept if best[name].arm != speaks.arm])
    return picture(
        "hero-accuracy",
        title,
        f"Clean held-out pairs ranked right, %{f', {family.title}' if family.title else ''}, by what was done to the"
        " labels; means with 95 % intervals, each objective at the beta with the highest average over the cases."
        + (f" The {MOST_CASES - 1} costliest and the best case." if len(shown_) > MOST_CASES else ""),
        f"{title}. Share of clean held-out pairs ranked right, a row per corruption, lowest at the bottom.",
        (1, 1), (SIZE[0], max(SIZE[1], 0.2 * len(rows) + 1.3)), paint,
    )  # fmt: skip


def _case_finding(speaks: Curve, recommended: bool, others: Sequence[Curve]) -> str:
    """What one setting ranks right on clean labels (else in its best case) and at its lowest, and who falls lowest."""
    best = max(speaks.points, key=lambda point: (point[0].clean, point[1].ranking.mean))
    text = (
        f"{speaks.first.named}{' (recommended)' if recommended else ''}: {percent(best[1].ranking.mean)} right with"
        f" {noise(best[0])}, {percent(speaks.lowest[1].ranking.mean)} with {noise(speaks.lowest[0])}"
    )
    low = min((curve.lowest for curve in others), key=lambda point: point[1].ranking.mean, default=None)
    if low is None:
        return text
    where = "" if low[0] is speaks.lowest[0] else f" with {noise(low[0])}"
    return f"{text}; {low[1].named} falls to {percent(low[1].ranking.mean)}{where}"


def _by_objective(data: ReportData) -> Picture | None:
    """A row per objective, at its best setting of the headline, and one of the recommended setting."""
    best = [
        max(found, key=lambda cell: cell.ranking.mean)
        for name, cells in data.headline.by_objective.items()
        if name != REWARD_MODEL and (found := measured(cells))
    ]
    kept = sorted(best, key=lambda cell: cell.ranking.mean)[-2 * MOST :]
    top, low = (kept[-1], kept[0]) if kept else (None, None)
    lead = None if data.recommendation is None else data.recommendation.lead
    if lead is not None and lead in data.headline.cells and lead not in kept:
        kept = sorted([*kept, lead], key=lambda cell: cell.ranking.mean)
    if top is None or low is None:
        return None
    names = {cell: f"{cell.named}{', recommended' if cell is lead else ''}" for cell in kept}

    def paint(_: Any, axes: Any) -> None:
        panel = axes[0, 0]
        for y, cell in enumerate(kept):
            look, value = data.looks[cell.first.objective], cell.ranking
            seeds = [100 * one for one in cell.values(RANKING).values()]
            panel.plot(seeds, [y] * len(seeds), ".", color=look.colour, markersize=4, alpha=0.45)
            if math.isfinite(value.low):
                panel.plot([100 * value.low, 100 * value.high], [y, y], color=look.colour, linewidth=1.4)
            text = f"{cell.named}: {percents(value)}, {quantity(value.n, 'seed')}"
            panel.plot([100 * value.mean], [y], color=look.colour, marker=look.marker, markersize=7, gid=tip(text))
        panel.set_yticks(range(len(kept)), [ascii_visible(names[cell]) for cell in kept])
        panel.set_ylim(-0.7, len(kept) - 0.3)
        panel.axvline(50, color=GREY, linewidth=0.9)
        known = [cell.reference_accuracy().mean for cell in kept if cell.reference_accuracy().n]
        if known:
            panel.axvline(100 * math.fsum(known) / len(known), color=GREY, linewidth=0.9, linestyle="--")
        panel.set_xlabel("ranked right, % (dashed: before training; solid: coin flip)")
        panel.grid(axis="x")

    title = f"{names[top]} ranks {percents(top.ranking)} right"
    if low is not top:
        title += f", {names[low]} {percents(low.ranking)}"
    if lead is not None and lead in kept and lead not in (top, low):
        title += f"; recommended, {lead.named} {percents(lead.ranking)}"
    return picture(
        "hero-accuracy",
        title,
        f"{data.headline.title}. Means with 95 % intervals, each objective at its best beta; small dots are seeds.",
        f"{title}. Share of clean held-out pairs ranked right, a row per objective at its best beta.",
        (1, 1), SIZE, paint,
    )  # fmt: skip


def _frontier(data: ReportData) -> Picture | None:
    arena, training = data.arena, _one_training(data)
    points = {name: _points(arena, name, GOLD, training) for name in arena.objectives if name != REWARD_MODEL}
    gold = any(points.values())
    if not gold:
        points = {name: _points(arena, name, RANKING, training) for name in points}
    lines = {name: found for name, found in points.items() if found}
    if not lines:
        return None
    factor = 1.0 if gold else 100.0
    origin, reward = _origin(arena, gold), data.sweep.reward

    def paint(_: Any, axes: Any) -> None:
        panel = axes[0, 0]
        for name, found in lines.items():
            look = data.looks[name]
            for same in _by_training(arena, found):
                panel.plot([kl.mean for _, kl, _ in same], [factor * y.mean for _, _, y in same], color=look.colour,
                           linewidth=1.2)  # fmt: skip
            for cell, kl, y in found:
                if math.isfinite(y.low):
                    panel.plot(
                        [kl.mean] * 2, [factor * y.low, factor * y.high], color=look.colour, linewidth=0.7, alpha=0.5
                    )
                value = shown(y) if gold else percents(y)
                text = f"{cell.named}: {reward + ' ' if gold else 'ranked right '}{value} at KL {shown(kl)}, n = {y.n}"
                panel.plot(
                    [kl.mean], [factor * y.mean], color=look.colour, marker=look.marker, markersize=6, gid=tip(text)
                )
        if origin is not None:
            panel.plot([0], [factor * origin], marker="o", markersize=6, color=GREY, fillstyle="none",
                       gid=tip(f"before training: {number(origin, 3) if gold else percent(origin)}"))  # fmt: skip
            panel.annotate("before training", (0, factor * origin), xytext=(8, -4), textcoords="offset points",
                           fontsize=8, color=GREY, bbox=PAPER, zorder=5)  # fmt: skip
        reach = [kl.mean for found in lines.values() for _, kl, _ in found]
        _kl_axis(panel, max(reach))
        panel.set_xlabel("how far from the reference: KL, nats")
        panel.set_ylabel(f"{reward} of free answers" if gold else "held-out pairs ranked right, %")
        best = {name: max(found, key=lambda point: point[2].mean) for name, found in lines.items()}
        texts = {name: f"{ascii_visible(cell.named)}  {_value(y, gold)}" for name, (cell, _, y) in best.items()}
        right = panel.get_xlim()[1]
        _labels(panel, {name: factor * y.mean for name, (_, _, y) in best.items()}, texts, data.looks, right)

    where = f" with {noise(arena.first)}" if len(data.arenas) > 1 else ""
    title = _frontier_finding(lines, gold, f"{reward if gold else 'ranked right'}{where}")
    arm = None if data.recommendation is None else data.recommendation.bands[0].arms[0]
    chosen = next((p for found in lines.values() for p in found if _arm(arena, p[0]) == arm), None)
    if chosen is not None and chosen[0].named not in title:
        title += f". Recommended, {chosen[0].named}: {_value(chosen[2], gold)} at KL {number(chosen[1].mean, 1)}"
    what = f"{reward.capitalize()} of free answers" if gold else "Held-out pairs ranked right"
    return picture(
        "hero-frontier",
        title,
        f"{', '.join(filter(None, [arena.title, training]))}. {what} against KL to the reference; a line joins the"
        " betas of an objective at the same other settings; bars: 95 % intervals. Higher and further left is better.",
        f"{title}. Quality against KL to the reference, a curve per objective over its betas.",
        (1, 1), SIZE, paint,
    )  # fmt: skip


def _value(value: Estimate, gold: bool) -> str:
    """A quality without its interval."""
    return number(value.mean, 2) if gold else percent(value.mean)


Point = tuple[Cell, Estimate, Estimate]


def _one_training(data: ReportData) -> str:
    """The learning rate and budget of the recommended setting, where the sweep has several; empty where it has not."""
    found = data.recommendation
    if found is None:
        return ""
    arena = found.bands[0].arenas[0]
    training = arena.training(found.lead)
    return training if any(data.arena.training(cell) == training for cell in data.arena.cells) else ""


def _points(arena: Arena, name: str, measure: str, training: str) -> list[Point]:
    """Cells of an objective with their KL and quality, betas ascending; of one `training` if it is not empty."""
    found = []
    for cell in sorted(arena.of(name), key=lambda cell: cell.first.beta or 0.0):
        if training and arena.training(cell) != training:
            continue
        kl, quality = t_interval(list(cell.finished("kl").values())), cell.estimate(measure)
        if kl.n and quality.n and math.isfinite(quality.mean):
            found.append((cell, kl, quality))
    return found


def _arm(arena: Arena, cell: Cell) -> Arm:
    return cell.first.objective, arena.setting(cell)


def _by_training(arena: Arena, found: Sequence[Point]) -> list[list[Point]]:
    """The points of an objective by everything but beta: a line joins betas alone."""
    lines: dict[Hashable, list[Point]] = {}
    for point in found:
        lines.setdefault(arena.setting(point[0])[1:], []).append(point)
    return list(lines.values())


def _origin(arena: Arena, gold: bool) -> float | None:
    """The quality of the untrained reference, mean over seeds; None where it was not measured."""
    by_seed = dict(arena.reference)
    if gold:
        runs = [run for cell in arena.cells for run in cell.runs]
        by_seed = {r.seed: value for r in runs if (value := r.measured("reference_gold_reward")) is not None}
    return math.fsum(by_seed.values()) / len(by_seed) if by_seed else None


def _frontier_finding(lines: Mapping[str, Sequence[Point]], gold: bool, what: str) -> str:
    """Who has the highest value of `what`, and who at a lower KL is not told apart from it."""
    every = [point for found in lines.values() for point in found]
    best = max(every, key=lambda point: point[2].mean)
    text = f"Highest {what}: {best[0].named}, {_value(best[2], gold)} at KL {number(best[1].mean, 1)}"
    # Not shown worse by the overlap of intervals at the lowest KL: what a reader would take for the same.
    close = [p for p in every if p[2].high >= best[2].mean and p[1].mean < 0.8 * best[1].mean]
    near = min(close, key=lambda point: point[1].mean, default=None)
    if near is None:
        return text
    value = _value(near[2], gold)
    return f"{text}; the interval of {near[0].named} ({value}) at KL {number(near[1].mean, 1)} reaches that"


def _kl_axis(panel: Any, farthest: float) -> None:
    """From just below 0, where the reference stands; logarithmic from 1 nat on where a run went beyond 30."""
    panel.set_xlim(left=-0.03 * farthest)
    if farthest > 30:
        panel.set_xscale("symlog", linthresh=1)
        ticks = [0, *(tick for tick in (1, 3, 10, 30, 100, 300, 1000, 3000, 10000) if tick <= 1.1 * farthest)]
        panel.set_xticks(ticks, [str(tick) for tick in ticks])
        panel.set_xticks([], minor=True)
        panel.set_xlim(-0.1, 1.3 * farthest)

"""Does the choice hold at every learning rate and budget: the recommendation within each, and one sentence on all."""

from __future__ import annotations

from collections.abc import Iterable

from harness.metrics.frontier import Setting
from harness.metrics.levels import Across, Level
from harness.metrics.statistics import MIN_SEEDS
from harness.report.data.conditions import noise
from harness.report.data.levels import Axis
from harness.report.data.recommendation import GOLD
from harness.report.data.report_data import ReportData
from harness.report.render.blocks import Content, Field, Table
from harness.report.render.text import DASH, percents, plain, shown, visible
from harness.report.sections.row import Section

NAMES = {"learning_rate": ("learning rate", "learning rates"), "steps": ("budget", "budgets")}


def levels(data: ReportData) -> Content | None:
    """A row per level; None where one learning rate and one budget were swept."""
    sentence = levels_sentence(data)
    if sentence is None:
        return None
    table = Table(
        f"The recommendation at each level: {data.levels[0].arena.title}",
        ("Level", "Not shown worse", "Shown worse", "Seeds"),
        tuple(
            (Field(_at(axis, value)), _kept(axis, level), _beaten(data, axis, level), Field(str(level.seeds)))
            for axis in data.levels
            for value, level in axis.levels.items()
        ),
        "With each objective its best setting there. Intervals are corrected for all settings of a level and for all"
        " levels. What is shown at one level and not at another is no difference between the two.",
        "stack",
    )
    return Content("Does the choice hold at every learning rate and budget?", sentence, (table,))


def levels_sentence(data: ReportData) -> str | None:
    """Whether the choice holds at every learning rate and every budget of the sweep, or which it depends on."""
    if not data.levels:
        return None
    findings: dict[tuple[str, str], list[str]] = {}
    for axis in data.levels:
        before, name, after = _finding(axis)
        findings.setdefault((before, after), []).append(name)
    texts = [
        f"{before}{(' or the ' if after else ' and ').join(names)}{after}"
        for (before, after), names in findings.items()
    ]
    return f"With {noise(data.levels[0].arena.first)}, {'; '.join(texts)}."


def _finding(axis: Axis) -> tuple[str, str, str]:
    """What an axis says, the words for the axis in the middle: axes that say the same share one clause."""
    levels, name = axis.levels, NAMES[axis.name][0]
    if axis.outcome is Across.HOLDS:
        first = next(iter(levels.values()))
        return f"the choice of {_names(first.kept)} over {_names(first.beaten)} holds at ", _every(axis), ""
    if axis.outcome is Across.DEPENDS:
        parts = [f"{_names(level.kept)} at {_at(axis, value)}{_worse(level)}" for value, level in levels.items()]
        return "the choice depends on the ", name, f": {', '.join(parts)}"
    before = f"whether the choice of {visible(axis.chosen)} depends on the "
    if any(level.seeds < MIN_SEEDS for level in levels.values()):
        return before, name, f" cannot be told with fewer than {MIN_SEEDS} seeds"
    if not any(level.beaten for level in levels.values()):
        return before, name, " cannot be told: no objective is shown worse at any of them"
    worse = [f"{_names(level.beaten) or 'none'} at {_at(axis, value)}" for value, level in levels.items()]
    return before, name, f" cannot be told (shown worse: {', '.join(worse)})"


def _worse(level: Level[Setting]) -> str:
    return f" ({_names(level.beaten)} shown worse)" if level.beaten else ""


def _every(axis: Axis) -> str:
    """`both learning rates (0.00025 and 0.001)`."""
    count = "both" if len(axis.levels) == 2 else f"all {len(axis.levels)}"
    unit = " steps" if axis.name == "steps" else ""
    return f"{count} {NAMES[axis.name][1]} ({' and '.join(map(plain, axis.levels))}{unit})"


def _at(axis: Axis, value: float) -> str:
    """`learning rate 0.001`, `100 steps`."""
    return f"{plain(value)} steps" if axis.name == "steps" else f"{NAMES[axis.name][0]} {plain(value)}"


def _names(objectives: Iterable[str]) -> str:
    return " or ".join(map(visible, objectives))


def _kept(axis: Axis, level: Level[Setting]) -> Field:
    best = {arm[0]: arm for arm in reversed(level.pick.arms)}
    return Field("; ".join(_named(axis, best[name]) for name in level.kept))


def _beaten(data: ReportData, axis: Axis, level: Level[Setting]) -> Field:
    """The best setting of each, with the interval of how far another is ahead of it."""
    gold = data.recommendation is not None and data.recommendation.measure == GOLD
    parts = []
    for name in level.beaten:
        arm = next(arm for arm in level.pick.beaten if arm[0] == name)
        by, lead = level.pick.beaten[arm]
        ahead = f"{shown(lead)} in true reward" if gold else percents(lead, "\u00a0points")
        parts.append(f"{_named(axis, arm)}: {_named(axis, by)} is ahead by {ahead}")
    return Field("; ".join(parts) or DASH)


def _named(axis: Axis, arm: tuple[str, Setting]) -> str:
    cell = axis.arena.cell(*arm)
    assert cell is not None, "an arm has a cell"
    return cell.named


ROWS = (Section("levels", "Learning rate and budget", levels),)

"""What is compared: a level is the runs of one sweep on one model; cells of two levels match where their axes agree.

An axis is a setting that varies within some level. A setting that is constant in every level and differs between them
is what the comparison is about, or a caveat to it: it is named, and cells match in spite of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.identity import canonical_json
from harness.report.data.cells import Cell, build_cells
from harness.report.data.published import PUBLISHED, published_record, read_published, sweep_of
from harness.report.data.run_facts import read_all
from harness.report.data.sweep import Run, Sweep, leaf, read_sweep
from harness.report.render.text import visible
from harness.storage.plan_file import PLAN
from harness.types import InputError

# Settings that say which model it is: what splits a sweep into levels, and is never an axis.
MODEL = ("hidden_size", "layers", "heads", "intermediate_size", "vocab_size", "sha256", "kind")
LIMIT = 2000  # runs above which no per-example record is read
_UNSET = "not set"


@dataclass(frozen=True, eq=False)
class Level:
    """The runs of one sweep on one model. `name` tells it from the other levels; `parameters` counts the model's."""

    name: str
    sweep: Sweep
    parameters: int | None

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """Its cells, without per-example records."""
        return build_cells(self.sweep, {})

    @cached_property
    def settings(self) -> tuple[dict[str, Any], ...]:
        """The settings of each cell, in the order of the cells."""
        return tuple(settings_of(cell.first) for cell in self.cells)

    def constant(self, name: str) -> str | None:
        """The one value of a setting, as text; None where it varies."""
        values = {_text(settings.get(name)) for settings in self.settings}
        return values.pop() if len(values) == 1 else None


@dataclass(frozen=True, eq=False)
class Match:
    """One cell in every level that has it, by the level's place; the first level always has it."""

    cells: Mapping[int, Cell]

    @property
    def first(self) -> Cell:
        """The cell of the first level."""
        return self.cells[0]


@dataclass(frozen=True, eq=False)
class Alignment:
    """Levels with their axes, matching cells, and settings that are constant in each level and differ between them."""

    levels: tuple[Level, ...]
    axes: tuple[str, ...]
    matches: tuple[Match, ...]
    differing: tuple[str, ...]

    @property
    def others(self) -> range:
        """Places of the levels that are compared with the first."""
        return range(1, len(self.levels))

    def values(self, axis: str) -> tuple[tuple[str, ...], ...]:
        """The values of an axis in each level."""
        return tuple(
            tuple(dict.fromkeys(_text(settings[axis]) for settings in level.settings if axis in settings))
            for level in self.levels
        )


def read_levels(folders: Sequence[Path]) -> tuple[Level, ...]:
    """The levels of sweep folders and published folders, in their order, models of one sweep by size.

    Raises InputError where a folder is neither, or where all together are one level.
    """
    found: list[tuple[str, Path, Sweep, int | None]] = []
    for folder in folders:
        sweep = _read(folder)
        models: dict[str, list[Run]] = {}
        for run in sweep.runs:
            models.setdefault(_model(run), []).append(run)
        parts = [replace(sweep, runs=tuple(runs)) for runs in models.values()]
        sized = sorted(((_parameters(part), part) for part in parts), key=lambda one: (one[0] is None, one[0] or 0))
        found += [(sweep.name, folder, part, size) for size, part in sized]
    if len(found) < 2:
        raise InputError("one sweep on one model: nothing to compare it with; give another folder")
    names = _names([(name, folder, size) for name, folder, _, size in found])
    return tuple(Level(name, sweep, size) for name, (_, _, sweep, size) in zip(names, found, strict=True))


def _read(folder: Path) -> Sweep:
    """A sweep as it is published: nothing else is compared, so a sweep and its published form give the same page."""
    if (folder / PUBLISHED).is_file():
        return read_published(folder)
    if not (folder / PLAN).is_file():
        raise InputError(f"{folder}: no {PLAN} and no {PUBLISHED} here; expected a sweep's folder or a published one")
    sweep = read_sweep(folder)
    facts, _ = read_all(sweep.runs, LIMIT)
    return sweep_of(published_record(sweep, facts), folder)


def _model(run: Run) -> str:
    model = run.config.get("model") or run.config.get("world") or {}
    return canonical_json({name: model.get(name) for name in MODEL})


def _parameters(sweep: Sweep) -> int | None:
    """Parameters of the model of these runs, from the first that says it."""
    return next((run.parameters for run in sweep.runs if run.parameters), None)


def _names(found: Sequence[tuple[str, Path, int | None]]) -> list[str]:
    """Names of sweeps; equal ones add the folder, the models of one sweep their size."""
    names = []
    for place, (name, folder, size) in enumerate(found):
        same = [other for i, other in enumerate(found) if i != place and other[0] == name]
        parts = [visible(name)]
        if any(other[1] != folder for other in same):
            parts.append(f"({visible(folder.resolve().parent.name)})")
        if any(other[1] == folder for other in same):
            parts.append(f"at {size_text(size)}")
        names.append(" ".join(parts))
    return [name if names.count(name) == 1 else f"{name} #{i + 1}" for i, name in enumerate(names)]


def size_text(parameters: int | None) -> str:
    """`57.7k`, `135M`; `unknown size`."""
    if parameters is None:
        return "unknown size"
    for unit, suffix in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if parameters >= unit:
            return f"{parameters / unit:.3g}{suffix}"
    return str(parameters)


def settings_of(run: Run) -> dict[str, Any]:
    """Every setting of a run but seed, device and whereabouts, by its dotted name."""
    corruption = run.config["corruption"]
    out = {
        "objective": run.objective,
        "beta": run.beta,
        "corruption": run.corruption,
        "rate": 0.0 if run.corruption == "none" else corruption.get("rate"),
        "reward_model": leaf(run.config.get("reward_model")),
        **run.settings(),
    }
    world = run.config.get("world") or {}
    shared = {f"world.{name}": world[name] for name in ("misaligned", "labels") if name in world}
    return out | shared | {"training.steps": run.config["training"]["steps"]}


def align(levels: Sequence[Level]) -> Alignment:
    """Which cells of the first level have counterparts in the others. Raises InputError where none has."""
    models = {f"{part}.{name}" for part in ("model", "world") for name in MODEL}
    every = [settings for level in levels for settings in level.settings]
    names = [name for name in dict.fromkeys(name for settings in every for name in settings) if name not in models]
    axes = tuple(name for name in names if any(_varies(level, name) for level in levels))
    keys = [dict(zip(_keys(level, axes), level.cells, strict=True)) for level in levels]
    matches = [Match({i: by_key[key] for i, by_key in enumerate(keys) if key in by_key}) for key in keys[0]]
    matches = [match for match in matches if len(match.cells) > 1]
    if not matches:
        apart = [name for name in axes if not set.intersection(*(_values(level, name) for level in levels))]
        why = f"no value in common on {', '.join(apart)}" if apart else "no combination of settings in common"
        raise InputError(f"no cell of {levels[0].name} matches one of {levels[1].name}: {why}")
    wanted = [name for name in dict.fromkeys(name for s in every for name in s) if name not in axes]
    differing = tuple(name for name in wanted if len({level.constant(name) for level in levels}) > 1)
    return Alignment(tuple(levels), axes, tuple(matches), differing)


def _keys(level: Level, axes: Sequence[str]) -> list[str]:
    """The place of each cell on the axes, as text."""
    return [canonical_json({name: settings.get(name) for name in axes}) for settings in level.settings]


def _varies(level: Level, name: str) -> bool:
    """Whether a setting is an axis of a level: of a hyperparameter within one objective, of a corruption's within one
    kind."""
    scope = {"hp": "objective", "corruption": "corruption"}.get(name.partition(".")[0] if "." in name else "", "")
    values: dict[Any, set[str]] = {}
    for settings in level.settings:
        values.setdefault(settings.get(scope), set()).add(_text(settings.get(name)))
    return any(len(distinct) > 1 for distinct in values.values())


def _values(level: Level, name: str) -> set[str]:
    return {_text(settings.get(name)) for settings in level.settings}


def _text(value: Any) -> str:
    return _UNSET if value is None else str(value)

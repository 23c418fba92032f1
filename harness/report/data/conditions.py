"""A condition is what several objectives and betas are compared under: world or data, corruption, training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from harness.report.data.cells import Cell, axis_values
from harness.report.render.text import plain, visible


@dataclass(frozen=True)
class Condition:
    """The cells under one condition, baseline objective first, betas ascending; `title` is unique in the sweep."""

    title: str
    cells: tuple[Cell, ...]
    setting: str = ""  # the title without the corruption
    damage: str = ""  # the corruption alone

    @property
    def clean(self) -> bool:
        """No corruption."""
        return self.cells[0].first.corruption == "none"

    @property
    def corruption(self) -> str:
        """Kind of the corruption."""
        return self.cells[0].first.corruption

    @property
    def rate(self) -> float:
        """Corruption rate, 0 where clean or unknown."""
        return self.cells[0].rate or 0.0

    @property
    def misaligned(self) -> float | None:
        """The world's dial; None for real data."""
        return self.cells[0].first.misaligned

    @property
    def labels(self) -> str | None:
        """`hard`, `bradley_terry`, None for real data."""
        return self.cells[0].first.labels

    @cached_property
    def by_objective(self) -> dict[str, tuple[Cell, ...]]:
        """Cells by objective name, in the order of the cells."""
        names = dict.fromkeys(cell.first.objective for cell in self.cells)
        return {name: tuple(c for c in self.cells if c.first.objective == name) for name in names}


def build_conditions(cells: Sequence[Cell], axes: Sequence[str]) -> tuple[Condition, ...]:
    """Conditions in the canonical order of the cells. Titles that would coincide name the axes that tell them apart."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.first.condition, []).append(cell)
    first = {key: group[0] for key, group in groups.items()}
    own = [axis for axis in axes if axis.startswith("corruption.")]
    shared = [axis for axis in axes if not axis.startswith(("corruption.", "hp."))]
    settings = _told({cell.first.setting: cell for cell in reversed(first.values())}, _setting, shared)
    damage: dict[str, str] = {}
    for setting in settings:
        damage |= _told({key: cell for key, cell in first.items() if cell.first.setting == setting}, _damage, own)
    parts = {key: (settings[cell.first.setting], damage[key]) for key, cell in first.items()}
    return tuple(
        Condition(", ".join(filter(None, parts[key])), tuple(group), *parts[key]) for key, group in groups.items()
    )


def _told(cells: Mapping[str, Cell], text: Callable[[Cell], str], axes: Sequence[str]) -> dict[str, str]:
    """A text for each key; equal ones add the axes, of those given, in which their cells differ."""
    texts = {key: text(cell) for key, cell in cells.items()}
    keys_by: dict[str, list[str]] = {}
    for key, found in texts.items():
        keys_by.setdefault(found, []).append(key)
    for same in keys_by.values():
        values = {key: axis_values(cells[key], axes) for key in same}
        telling = [axis for axis in axes if len({repr(values[key].get(axis)) for key in same}) > 1]
        for key in same:
            extra = [f"{axis.split('.')[-1]} {visible(values[key][axis])}" for axis in telling]
            texts[key] = ", ".join(filter(None, [texts[key], *extra]))
    return texts


def _setting(cell: Cell) -> str:
    first = cell.first
    parts = [] if first.misaligned is None else [f"misaligned {plain(first.misaligned)}"]
    if first.labels == "bradley_terry":
        parts.append("Bradley-Terry labels")
    return ", ".join(parts)


def _damage(cell: Cell) -> str:
    first = cell.first
    if first.corruption == "none":
        return "clean labels"
    rate = "" if cell.rate is None else f" {cell.rate:.3g}"
    return visible(first.corruption_text if first.corruption == "sequence" else f"{first.corruption}{rate}")


def telling(conditions: Sequence[Condition]) -> Condition:
    """The condition of the headline: hard labels, clean, highest misaligned; the nearest to that the sweep has."""
    return max(enumerate(conditions), key=lambda pair: (*_rank(pair[1]), -pair[0]))[1]


def _rank(condition: Condition) -> tuple[bool, bool, float]:
    return condition.labels != "bradley_terry", condition.clean, condition.misaligned or 0.0

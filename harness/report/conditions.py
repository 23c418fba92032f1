"""A condition is what several objectives and betas are compared under: world or data, corruption, training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from harness.report.cells import Cell, axis_values
from harness.report.text import plain, visible


@dataclass(frozen=True)
class Condition:
    """The cells under one condition, baseline objective first, betas ascending, with a title unique in the sweep."""

    title: str
    cells: tuple[Cell, ...]

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
    titles = {key: _title(group[0]) for key, group in groups.items()}
    for title in {t for t in titles.values() if list(titles.values()).count(t) > 1}:
        same = [key for key, found in titles.items() if found == title]
        settings = {key: axis_values(groups[key][0], [a for a in axes if not a.startswith("hp.")]) for key in same}
        telling = [a for a in axes if len({repr(settings[key].get(a)) for key in same}) > 1]
        for key in same:
            extra = ", ".join(f"{axis.split('.')[-1]} {visible(settings[key][axis])}" for axis in telling)
            titles[key] = f"{title} \u00b7 {extra}" if extra else title
    return tuple(Condition(titles[key], tuple(group)) for key, group in groups.items())


def _title(cell: Cell) -> str:
    first = cell.first
    parts = [] if first.misaligned is None else [f"misaligned {plain(first.misaligned)}"]
    if first.labels == "bradley_terry":
        parts.append("Bradley-Terry labels")
    rate = "" if cell.rate is None else f" {cell.rate:.3g}"
    damage = first.corruption_text if first.corruption == "sequence" else f"{first.corruption}{rate}"
    parts.append("clean labels" if first.corruption == "none" else visible(damage))
    return ", ".join(parts)


def telling(conditions: Sequence[Condition]) -> Condition:
    """The condition of the headline: hard labels, clean, highest misaligned; the nearest to that the sweep has."""
    return max(enumerate(conditions), key=lambda pair: (*_rank(pair[1]), -pair[0]))[1]


def _rank(condition: Condition) -> tuple[bool, bool, float]:
    return condition.labels != "bradley_terry", condition.clean, condition.misaligned or 0.0


def find(
    conditions: Sequence[Condition], labels: str | None, misaligned: float | None, corruption: str
) -> list[Condition]:
    """The clean condition and those of one corruption kind under one world setting, by rate."""
    kinds = ("none", corruption)
    found = [c for c in conditions if (c.labels, c.misaligned) == (labels, misaligned) and c.corruption in kinds]
    return sorted(found, key=lambda c: (not c.clean, c.rate))

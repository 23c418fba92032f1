"""A family: one setting (world or data, training) under every corruption of the sweep, by kind and rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from harness.identity import canonical_json
from harness.report.data.cells import Cell
from harness.report.data.conditions import Condition
from harness.report.render.text import visible


@dataclass(frozen=True, eq=False)
class Family:
    """`clean` is the condition without corruption (None where the sweep has none); `kinds` the others by the name of
    their kind, rates ascending. `title` tells it from the sweep's other families, empty where it is the only one."""

    clean: Condition | None
    kinds: Mapping[str, tuple[Condition, ...]]
    title: str

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """Clean first, then every kind's."""
        return (*([self.clean] if self.clean else []), *(c for found in self.kinds.values() for c in found))

    @cached_property
    def objectives(self) -> tuple[str, ...]:
        """Names in the order of the cells."""
        return tuple(dict.fromkeys(name for condition in self.conditions for name in condition.by_objective))

    @cached_property
    def _arms(self) -> dict[str, dict[str, Cell]]:
        """Cells by arm (objective with all hyperparameters), then by condition."""
        found: dict[str, dict[str, Cell]] = {}
        for condition in self.conditions:
            for cell in condition.cells:
                found.setdefault(cell.first.arm, {})[condition.title] = cell
        return found

    def arms(self, objective: str) -> list[str]:
        """The arms of one objective, betas ascending."""
        return list(dict.fromkeys(c.first.arm for k in self.conditions for c in k.by_objective.get(objective, ())))

    def cell(self, arm: str, condition: Condition) -> Cell | None:
        """The cell of an arm under a condition of this family; None where the sweep has none."""
        return self._arms.get(arm, {}).get(condition.title)

    def along(self, kind: str) -> tuple[Condition, ...]:
        """Clean, then one kind by rising rate."""
        return (*([self.clean] if self.clean else []), *self.kinds[kind])


def build_families(conditions: Sequence[Condition]) -> tuple[Family, ...]:
    """Families in the order of the conditions."""
    groups: dict[str, list[Condition]] = {}
    for condition in conditions:
        groups.setdefault(condition.cells[0].first.setting, []).append(condition)
    return tuple(_family(group, group[0].setting if len(groups) > 1 else "") for group in groups.values())


def _family(group: Sequence[Condition], title: str) -> Family:
    clean = next((condition for condition in group if condition.clean), None)
    kinds: dict[str, list[Condition]] = {}
    for condition in group:
        if not condition.clean:
            kinds.setdefault(_kind(condition), []).append(condition)
    names = [_plain_kind(found[0]) for found in kinds.values()]
    told = {
        key: name if names.count(name) == 1 else found[0].damage
        for (key, found), name in zip(kinds.items(), names, strict=True)
    }
    return Family(clean, {told[key]: tuple(sorted(f, key=lambda c: c.rate)) for key, f in kinds.items()}, title)


def _kind(condition: Condition) -> str:
    """One line per set of parameters where the rate is planned; one line a kind where a parameter sets the rate."""
    corruption = condition.cells[0].first.config["corruption"]
    if corruption["kind"] == "sequence" or corruption.get("rate") is not None:
        return canonical_json([corruption["kind"], corruption.get("params")])
    return canonical_json([corruption["kind"]])


def _plain_kind(condition: Condition) -> str:
    first = condition.cells[0].first
    return visible(first.corruption_text if first.corruption == "sequence" else first.corruption)

"""What runs are compared under: a condition (world or data, corruption, training) and a family of conditions.

A family is one setting (world or data, training) under every corruption of the sweep, by kind and rate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from harness.identity import canonical_json
from harness.report.data.cells import Cell, axis_values, by_condition
from harness.report.data.sweep import Run
from harness.report.render.text import percent, visible

# Kinds of corruption that clean; at the end of a sequence they act on what its other steps left.
CURATION = ("curate_drop", "curate_relabel", "crossfit_drop", "crossfit_relabel")


@dataclass(frozen=True)
class Condition:
    """The cells under one condition, baseline objective first, betas ascending; `title` is unique in the sweep."""

    title: str
    cells: tuple[Cell, ...]
    setting: str = ""  # the title without the corruption
    damage: str = ""  # the corruption alone

    @property
    def first(self) -> Run:
        """Any run: world or data, corruption and training are the condition's."""
        return self.cells[0].first

    @property
    def clean(self) -> bool:
        """No corruption."""
        return self.first.corruption == "none"

    @property
    def rate(self) -> float:
        """Corruption rate, 0 where clean or unknown."""
        return self.cells[0].rate or 0.0

    @cached_property
    def by_objective(self) -> dict[str, tuple[Cell, ...]]:
        """Cells by objective name, in the order of the cells."""
        names = dict.fromkeys(cell.first.objective for cell in self.cells)
        return {name: tuple(c for c in self.cells if c.first.objective == name) for name in names}


def build_conditions(cells: Sequence[Cell], axes: Sequence[str]) -> tuple[Condition, ...]:
    """Conditions in the canonical order of the cells. Titles that would coincide name the axes that tell them apart."""
    groups = by_condition(cells)
    first = {key: group[0] for key, group in groups.items()}
    parameters = [axis for axis in axes if axis.startswith("corruption.")]
    shared = [axis for axis in axes if not axis.startswith(("corruption.", "hp."))]
    settings = _distinct({cell.first.setting: cell for cell in reversed(first.values())}, _setting, shared)
    damage: dict[str, str] = {}
    for setting in settings:
        same = {key: cell for key, cell in first.items() if cell.first.setting == setting}
        damage |= _distinct(same, _damage, parameters)
    parts = {key: (settings[cell.first.setting], damage[key]) for key, cell in first.items()}
    return tuple(
        Condition(", ".join(filter(None, parts[key])), tuple(group), *parts[key]) for key, group in groups.items()
    )


def _distinct(cells: Mapping[str, Cell], text: Callable[[Cell], str], axes: Sequence[str]) -> dict[str, str]:
    """A text for each key; equal ones add the axes, of those passed, in which their cells differ."""
    texts = {key: text(cell) for key, cell in cells.items()}
    keys_by_text: dict[str, list[str]] = {}
    for key, title in texts.items():
        keys_by_text.setdefault(title, []).append(key)
    for same in keys_by_text.values():
        values = {key: axis_values(cells[key], axes) for key in same}
        differing = [axis for axis in axes if len({repr(values[key].get(axis)) for key in same}) > 1]
        for key in same:
            extra = [f"{spoken(axis)} {visible(values[key][axis])}" for axis in differing]
            texts[key] = ", ".join(filter(None, [texts[key], *extra]))
    return texts


def spoken(axis: str) -> str:
    """The name of an axis as a reader says it: `learning rate`."""
    return axis.rpartition(".")[2].replace("_", " ")


def _setting(cell: Cell) -> str:
    first = cell.first
    parts = [] if first.misaligned is None else [dial(first.misaligned)]
    return ", ".join([*parts, *(["Bradley-Terry labels"] if first.labels == "bradley_terry" else [])])


def without_training(title: str, axes: Sequence[str]) -> tuple[str, str]:
    """A setting's title in two: the world or data, and the values of the training's `axes` (`steps 200`)."""
    names = tuple(f"{spoken(axis)} " for axis in axes if axis == "steps" or axis.startswith("training."))
    parts = title.split(", ")
    training = [part for part in parts if part.startswith(names)] if names else []
    return ", ".join(part for part in parts if part not in training), ", ".join(training)


def dial(misaligned: float) -> str:
    """What a world's dial says of the untrained model: `reference wrong on 75 % of topics`."""
    return f"reference wrong on {percent(misaligned)} of topics" if misaligned else "reference right on every topic"


def _damage(cell: Cell) -> str:
    first = cell.first
    if first.corruption == "none":
        return "clean labels"
    rate = "" if cell.rate is None else f" {cell.rate:.3g}"
    return visible(first.corruption_text if first.corruption == "sequence" else f"{first.corruption}{rate}")


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
        return (*([self.clean] if self.clean else []), *(c for by_rate in self.kinds.values() for c in by_rate))

    @cached_property
    def objectives(self) -> tuple[str, ...]:
        """Names in the order of the cells."""
        return tuple(dict.fromkeys(name for condition in self.conditions for name in condition.by_objective))

    @cached_property
    def _arms(self) -> dict[str, dict[str, Cell]]:
        """Cells by arm (objective with all hyperparameters), then by condition."""
        arms: dict[str, dict[str, Cell]] = {}
        for condition in self.conditions:
            for cell in condition.cells:
                arms.setdefault(cell.first.arm, {})[condition.title] = cell
        return arms

    def arms(self, objective: str) -> list[str]:
        """The arms of one objective, betas ascending."""
        return list(dict.fromkeys(c.first.arm for k in self.conditions for c in k.by_objective.get(objective, ())))

    def cell(self, arm: str, condition: Condition) -> Cell | None:
        """The cell of an arm under a condition of this family; None where the sweep has none."""
        return self._arms.get(arm, {}).get(condition.title)

    def along(self, kind: str) -> tuple[Condition, ...]:
        """Clean, then one kind by rising rate."""
        return (*([self.clean] if self.clean else []), *self.kinds[kind])


def steps_of(run: Run) -> list[list[object]]:
    """Kind, rate and parameters of every step of the run's corruption; none for the clean set."""
    spec = run.config["corruption"]
    if run.corruption == "sequence":
        return [list(step) for step in dict(spec["params"])["steps"]]
    return [] if run.corruption == "none" else [[spec["kind"], spec.get("rate"), spec.get("params") or []]]


def cleans(condition: Condition) -> bool:
    """Whether the last thing done to the labels was to clean them: no kind of damage."""
    steps = steps_of(condition.first)
    return bool(steps) and steps[-1][0] in CURATION


def build_families(conditions: Sequence[Condition]) -> tuple[Family, ...]:
    """Families in the order of the conditions."""
    groups: dict[str, list[Condition]] = {}
    for condition in conditions:
        groups.setdefault(condition.first.setting, []).append(condition)
    return tuple(_family(group, group[0].setting if len(groups) > 1 else "") for group in groups.values())


def _family(group: Sequence[Condition], title: str) -> Family:
    kinds: dict[str, list[Condition]] = {}
    for condition in group:
        if not condition.clean:
            kinds.setdefault(kind_of(condition), []).append(condition)
    names = [_kind_name(same[0]) for same in kinds.values()]
    by_name = {
        name if names.count(name) == 1 else same[0].damage: tuple(sorted(same, key=lambda condition: condition.rate))
        for same, name in zip(kinds.values(), names, strict=True)
    }
    return Family(next((condition for condition in group if condition.clean), None), by_name, title)


def kind_of(condition: Condition) -> str:
    """One line per set of parameters where the rate is planned; one line a kind where a parameter sets the rate."""
    corruption = condition.first.config["corruption"]
    if corruption["kind"] == "sequence" or corruption.get("rate") is not None:
        return canonical_json([corruption["kind"], corruption.get("params")])
    return canonical_json([corruption["kind"]])


def _kind_name(condition: Condition) -> str:
    first = condition.first
    return visible(first.corruption_text if first.corruption == "sequence" else first.corruption)


def said(title: str) -> str:
    """A title within a sentence: `the reference wrong on 75 % of topics and clean labels`."""
    text = title.replace(", ", " and ")
    return f"the {text}" if text.startswith("reference") else text


def noise(condition: Condition) -> str:
    """`clean labels`, `40 % flips`, `20 % length_bias`: the corruption as a reader says it."""
    first = condition.first
    if condition.clean:
        return "clean labels"
    if first.corruption == "sequence":
        steps = [(str(kind), rate) for kind, rate, *_ in steps_of(first)]
        extra = condition.damage.removeprefix(visible(first.corruption_text))
        return " + ".join(_amount(kind, float(str(rate))) if rate is not None else kind for kind, rate in steps) + extra
    return condition.damage if condition.cells[0].rate is None else _amount(first.corruption, condition.rate)


def _amount(kind: str, rate: float) -> str:
    """`40 % flips`."""
    return f"{percent(rate)} {'flips' if kind == 'uniform_flip' else visible(kind)}"

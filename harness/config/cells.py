"""Entries of `objectives:` and `corruptions:`: their axes, their cells, and where each problem stands.

An entry's lists are axes; its cells are their product, counted without being made. Imports no torch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.config.schema import shown
from harness.config.strict_yaml import Node, plain
from harness.corruptions import registry as corruptions
from harness.objectives import registry as objectives
from harness.plugins import check_same
from harness.types import CorruptionSpec, InputError, ObjectiveSpec, Parameter, RunSpec

MAX_SEQUENCES = 10_000  # cells of one `sequence:` entry; beyond, the entry itself is the mistake
MAX_BETA = 1e6  # beta x |delta_ref| of 1e6 is a slip of the keyboard in any world

# One documented default per family in the embedded world, where |delta_ref| is about 3 nats: beta 2 there acts like
# beta 0.1 at |delta_ref| = 60. The registry's defaults are for real models, and hold for rows not named here.
WORLD_SUM_BETA = 2.0
WORLD_DEFAULTS: dict[str, dict[str, Any]] = {
    "ipo": {"beta": 0.1},
    "nca": {"beta": 0.1},  # pulls the chosen log-ratio to log 2 / beta nats
    "cpo_smooth": {"beta": 2.0, "reduction": "sum", "gamma": 1.0, "tau": 2.0, "alpha": 1.0},
}
# Rows of family rl: their budget and learning rate in the embedded world, where a reward gap is about 2. The policy
# takes larger steps than in preference training: its updates are few and its advantages are small.
WORLD_RL: dict[str, Any] = {"beta": 0.5, "iterations": 60, "prompts": 32, "learning_rate": 2e-3}
WORLD_PPO = {"epochs": 3}
# Sum-family rows whose beta lives on a grid of its own.
OWN_BETA = frozenset({"nca", "sppo", "cal_dpo"})


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry with its axes: name -> values in the order written, each a plain value."""

    axes: tuple[tuple[str, tuple[Any, ...]], ...]
    where: str
    path: str

    def count(self) -> int:
        """Number of cells; nothing is made."""
        return math.prod(len(values) for _, values in self.axes)

    def cells(self) -> Iterator[dict[str, Any]]:
        """Every cell, the last axis fastest."""
        names = [name for name, _ in self.axes]
        for values in itertools.product(*(values for _, values in self.axes)):
            yield dict(zip(names, values, strict=True))


def world_defaults(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Hyperparameter defaults of the embedded world for one objective: only what `given` leaves open."""
    row = objectives.OBJECTIVES.get(name)
    if row is None:
        return {}
    defaults = WORLD_DEFAULTS.get(row.name)
    if defaults is None and row.family == "rl":
        known = WORLD_RL | (WORLD_PPO if row.name == "ppo" else {})
        defaults = {key: value for key, value in known.items() if key in row.hyperparameters}
    if defaults is None:
        scaled = row.reduction == "sum" and "beta" in row.hyperparameters and row.name not in OWN_BETA
        defaults = {"beta": WORLD_SUM_BETA} if scaled else {}
    # The world's numbers are for summed log-probs: another reduction takes the registry's.
    if given.get("reduction", defaults.get("reduction")) != defaults.get("reduction"):
        return {}
    if given.get("length_average", False) is True:
        return {}
    return {key: value for key, value in defaults.items() if key not in given}


def resolve_objective(cell: Mapping[str, Any], world: bool) -> ObjectiveSpec:
    """The objective of one cell, hyperparameters resolved. Raises InputError with one line per problem."""
    given = dict(cell)
    name = given.pop("name", "mixture" if "mixture" in given else None)
    if not isinstance(name, str):
        raise InputError(f"{shown(name)} is not an objective; expected `name: dpo`, or a name of `list objectives`")
    row = objectives.OBJECTIVES.get(_alias(name))
    if row is not None and row.tier == "internal":
        raise InputError(f"objective '{name}' is used to build references only; see `harness list objectives`")
    if row is not None:
        given = objectives.own_terms(row, given)
    if world:
        given |= world_defaults(_alias(name), given)
    given = _floats(given, row.hyperparameters if row else {})
    beta = given.get("beta")
    if isinstance(beta, float) and MAX_BETA < beta < math.inf:
        raise InputError(f"objective '{name}': beta: {beta!r} is outside (0, {MAX_BETA:g}]")
    return objectives.resolve(name, given)


def resolve_corruption(cell: Mapping[str, Any]) -> CorruptionSpec:
    """The corruption of one cell, parameters resolved. Raises InputError with one line per problem."""
    if "sequence" not in cell and not isinstance(cell.get("kind"), str):
        raise InputError(f"{shown(cell.get('kind'))} is not a corruption; expected `kind: none` or a kind of the list")
    return corruptions.resolve(cell)


def check_plugins(run: RunSpec) -> None:
    """Raise InputError where the objective or the corruption of a run is not installed as it was planned."""
    name, kinds = run.objective.name, [kind for kind, _, _ in corruptions.steps(run.corruption)]
    check_same(f"objective '{name}'", run.objective.plugin, objectives.OBJECTIVES.plugin(name))
    check_same(f"corruption '{run.corruption.kind}'", run.corruption.plugin, corruptions.plugins_of(kinds))


def objective_entry(node: Node, path: str, problems: list[str]) -> Entry | None:
    """The axes of one entry of `objectives:`; problems of form are appended, None where nothing can be read.

    `preset` is the outermost axis, since what it sets stands in the resolved spec instead of it.
    """
    entry = _entry(node, path, "name", problems, _objective_axis)
    axes = () if entry is None else tuple(sorted(entry.axes, key=lambda axis: axis[0] != "preset"))
    return None if entry is None else replace(entry, axes=axes)


def corruption_entry(node: Node, path: str, problems: list[str]) -> Entry | None:
    """The axes of one entry of `corruptions:`; as `objective_entry`."""
    return _entry(node, path, "kind", problems, _corruption_axis)


def check_entry(
    entry: Entry, resolve: Callable[[Mapping[str, Any]], Any], head: str, places: Mapping[str, Node]
) -> list[str]:
    """Problems of an entry, each at the key that causes it: every value of every axis is resolved once.

    A problem belongs to the key without which it goes away, and to `head` (name or kind) where there is none.
    """
    base = {name: values[0] for name, values in entry.axes}
    seen = _problems(resolve, base)
    lines = []
    for text in seen:
        without = (key for key in base if key != head and text not in _problems(resolve, _less(base, key)))
        key = next(without, head)
        lines.append(f"{_place(entry, places, key, 0)}: {text}")
    known = set(seen)
    for key, values in entry.axes:
        for index, value in enumerate(values[1:], start=1):
            for text in _problems(resolve, {**base, key: value}):
                if text not in known:
                    known.add(text)
                    lines.append(f"{_place(entry, places, key, index)}: {text}")
    return lines


def _problems(resolve: Callable[[Mapping[str, Any]], Any], cell: Mapping[str, Any]) -> list[str]:
    try:
        resolve(cell)
    except InputError as error:
        return list(error.problems)
    return []


def _less(cell: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in cell.items() if name != key}


def _place(entry: Entry, places: Mapping[str, Node], key: str, index: int) -> str:
    node = places.get(key)
    if node is None:
        return f"{entry.where} {entry.path}"
    if isinstance(node.value, tuple) and len(dict(entry.axes)[key]) == len(node.value) and len(node.value) > 1:
        return f"{node.value[index].where} {entry.path}.{key}.{index}"
    return f"{node.where} {entry.path}.{key}"


def _entry(
    node: Node, path: str, head: str, problems: list[str], axis: Callable[[str, str, Node, list[str]], Sequence[Any]]
) -> Entry | None:
    if not isinstance(node.value, dict):
        problems.append(f"{node.where} {path}: {shown(plain(node))} is not a mapping; expected `- {{{head}: ...}}`")
        return None
    names = node.value.get(head)
    name = plain(names) if names is not None else ""
    axes = []
    for key, child in node.value.items():
        values = tuple(axis(name if isinstance(name, str) else "", key, child, problems))
        if not values:
            problems.append(f"{child.where} {path}.{key}: an empty list gives 0 runs; expected at least one value")
            return None
        axes.append((key, values))
    return Entry(tuple(axes), node.where, path)


def _objective_axis(name: str, key: str, child: Node, _problems: list[str]) -> Sequence[Any]:
    row = objectives.OBJECTIVES.get(_alias(name))
    return _axis(key == "mixture" or _is_table(row.hyperparameters if row else {}, key), child)


def _corruption_axis(kind: str, key: str, child: Node, problems: list[str]) -> Sequence[Any]:
    if key == "sequence" and isinstance(child.value, tuple):
        return _sequences(child, problems)
    row = corruptions.CORRUPTIONS.get(kind)
    return _axis(_is_table(row.parameters if row else {}, key), child)


def _axis(structure: bool, child: Node) -> Sequence[Any]:
    value = plain(child)
    return value if isinstance(value, list) and not structure else [value]


def _is_table(parameters: Mapping[str, Parameter], key: str) -> bool:
    return key in parameters and parameters[key].kind == "table"


def _sequences(child: Node, problems: list[str]) -> Sequence[Any]:
    """Every combination of the steps' cells: a list inside a step is an axis as well."""
    steps = [corruption_entry(step, "sequence", problems) for step in child.value or ()]  # type: ignore[union-attr, arg-type]
    entries = [step for step in steps if step is not None]
    if len(entries) != len(steps):
        return [plain(child)]
    count = math.prod(entry.count() for entry in entries)
    if count > MAX_SEQUENCES:
        problems.append(f"{child.where} sequence: {count} combinations; expected at most {MAX_SEQUENCES}")
        return [plain(child)]
    return [list(cells) for cells in itertools.product(*(entry.cells() for entry in entries))] if entries else []


def _alias(name: str) -> str:
    return "cpo_smooth" if name == "constrained_cpo" else name


def _floats(given: Mapping[str, Any], parameters: Mapping[str, Parameter]) -> dict[str, Any]:
    """Integers as floats where the parameter is a float: `beta: 1` and `beta: 1.0` are one run."""

    def convert(key: str, value: Any) -> Any:
        whole = isinstance(value, int) and not isinstance(value, bool)
        return float(value) if whole and key in parameters and parameters[key].kind == "float" else value

    return {key: convert(key, value) for key, value in given.items()}

"""The search space of a study: one arm per entry of `objectives:`, its axes taken out of the spec. Imports no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.names import suggestion
from harness.objectives.table import OBJECTIVES
from harness.objectives.table_budget import REWARD_MODEL
from harness.spec.block import Block
from harness.spec.models import FIELDS, shown
from harness.spec.search import SEARCH, Axis, default_axis, ends, read_axis, training_parameter
from harness.spec.yaml_strict import Node, plain
from harness.types import Parameter


@dataclass(frozen=True, slots=True)
class Arm:
    """One objective under search. `fixed`: its name and fixed hyperparameters; `space`: axis by hyperparameter name,
    or by `training.<field>`. `label` is the objective's name, numbered where the study has it twice."""

    label: str
    fixed: Mapping[str, Any]
    space: Mapping[str, Axis]
    where: str = ""
    path: str = ""


def replace_axes(keys: Mapping[str, Node], problems: list[str]) -> tuple[dict[str, Node], dict[str, Axis]]:
    """The grid keys of a study with every axis written as the list of its ends, and the axes by dotted key.

    Whatever checks a sweep's lists then checks the axes: each end must be an allowed value.
    """
    out = {key: node for key, node in keys.items() if key not in ("search",)}
    axes: dict[str, Axis] = {}
    shared = _search(keys.get("search"), problems)
    out["training"] = _training(keys.get("training"), shared, axes, problems)
    if not out["training"].value:
        del out["training"]
    node = keys.get("objectives")
    used: set[str] = set()
    if node is not None and isinstance(node.value, tuple):
        entries = [_entry(child, f"objectives.{i}", shared, used, axes, problems) for i, child in enumerate(node.value)]
        out["objectives"] = Node(tuple(entries), node.where)
    for key, child in shared.items():
        if key not in used and f"training.{key}" not in axes:
            known = [*FIELDS["training"], *{name for row in OBJECTIVES.values() for name in row.hyperparameters}]
            problems.append(
                f"{child.where} search.{key}: no objective here leaves such a hyperparameter open, and training has "
                f"no such field{suggestion(key, known)}"
            )
    return out, axes


def _search(node: Node | None, problems: list[str]) -> dict[str, Node]:
    """The shared ranges of `search:` by name."""
    if node is None:
        return {}
    if not isinstance(node.value, dict):
        problems.append(f"{node.where} search: {shown(plain(node))} is no mapping; expected `beta: {{low: ...}}` lines")
        return {}
    return dict(node.value)


def _training(node: Node | None, shared: Mapping[str, Node], axes: dict[str, Axis], problems: list[str]) -> Node:
    given = dict(node.value) if node is not None and isinstance(node.value, dict) else {}
    if node is not None and not isinstance(node.value, dict):
        return node
    for key, child in shared.items():
        if key in FIELDS["training"] and key not in given:
            given[key] = child
    for key, child in given.items():
        path = f"search.{key}" if shared.get(key) is child else f"training.{key}"
        axis = read_axis(child, training_parameter(key), path, problems)
        if axis is not None:
            axes[f"training.{key}"] = axis
            given[key] = _as_list(child, axis)
        elif _refused(child, training_parameter(key)):  # named already
            given = {name: value for name, value in given.items() if name != key}
    return Node(given, node.where if node is not None else "")


def _entry(
    node: Node, path: str, shared: Mapping[str, Node], used: set[str], axes: dict[str, Axis], problems: list[str]
) -> Node:
    """One entry of `objectives:` with its axes as lists of ends."""
    if not isinstance(node.value, dict):
        return node
    names = node.value.get("name")
    if names is not None and isinstance(names.value, tuple):
        problems.append(f"{names.where} {path}.name: a list; a study gives each objective a budget: expected one name")
        return node
    name = names.value if names is not None and isinstance(names.value, str) else ""
    row = OBJECTIVES.get(name)
    parameters: Mapping[str, Parameter] = row.hyperparameters if row else {}
    if name == REWARD_MODEL or (row is not None and row.family == "rl"):
        problems.append(
            f"{names.where if names else node.where} {path}.name: '{name}' cannot be tuned in a study: RL runs learn "
            "from a reward model, which is a run of its own; use a sweep"
        )
    given = dict(node.value)
    for key in shared:
        if key in parameters:
            used.add(key)
            given.setdefault(key, shared[key])
    out = {}
    for key, child in given.items():
        structure = key == "mixture" or (key in parameters and parameters[key].kind == "table")
        where = f"search.{key}" if shared.get(key) is child else f"{path}.{key}"
        axis = None if structure or key == "name" else read_axis(child, parameters.get(key), where, problems)
        if axis is not None:
            axes[f"{path}.{key}"] = axis
            child = _as_list(child, axis)
        elif not structure and key != "name" and _refused(child, parameters.get(key)):
            continue
        out[key] = child
    return Node(out, node.where)


def _refused(node: Node, parameter: Parameter | None) -> bool:
    """Whether a value that gave no axis was meant as one: `read_axis` has said why, and no second check should."""
    word = node.value == SEARCH and parameter is not None and parameter.kind != "choice"
    return isinstance(node.value, dict) or word


def _as_list(node: Node, axis: Axis) -> Node:
    if isinstance(node.value, tuple):
        return node
    return Node(tuple(Node(value, node.where) for value in ends(axis)), node.where)


def read_arms(block: Block, axes: Mapping[str, Axis], problems: list[str]) -> tuple[Arm, ...]:
    """One arm per entry; a beta that an entry leaves out is searched. An arm with nothing to search is a mistake."""
    training = {key: axis for key, axis in axes.items() if key.startswith("training.")}
    names: Counter[str] = Counter()
    arms = []
    for index, entry in enumerate(block.objectives):
        values = {key: child[0] for key, child in entry.axes}
        space = {key: axes[f"objectives.{index}.{key}"] for key in values if f"objectives.{index}.{key}" in axes}
        fixed = {key: value for key, value in values.items() if key not in space}
        name = str(fixed.get("name", "mixture"))
        if "beta" not in values:
            default = default_axis(name, "beta", block.world, fixed)
            space = {"beta": default, **space} if default is not None else space
        space |= training
        names[name] += 1
        label = name if names[name] == 1 else f"{name}-{names[name]}"
        if not space:
            problems.append(
                f"{entry.where} {entry.path}: nothing to search, every setting is fixed; expected a range such as "
                "beta: {low: 0.05, high: 10, log: true}"
            )
        arms.append(Arm(label, fixed, space, entry.where, entry.path))
    return tuple(arms)

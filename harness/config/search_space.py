"""Where a study may look: one axis per searched setting, from the spec, the registry's row or the world.

In a study a hyperparameter or training field may be a range `{low, high, log}`, a list (a choice), the word `search`
(the registry's own range) or a plain value (fixed). `beta` is searched where it is left out. Imports no torch.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from harness.config.cells import OWN_BETA
from harness.config.grid import Block
from harness.config.schema import FIELDS, shown
from harness.config.strict_yaml import Node, plain
from harness.objectives.budget import REWARD_MODEL
from harness.objectives.registry import OBJECTIVES
from harness.text import suggestion
from harness.types import Parameter

SEARCH = "search"  # the word that asks for the registry's range
LEARNING_RATE = (1e-5, 1e-2)
TRAINING = {"learning_rate": Parameter(None, search=LEARNING_RATE, prior="log")}
# What matters is beta x |delta_ref|: about 3 nats in the embedded world, where the registry's ranges (for real
# models) would leave out everything that acts.
WORLD_SUM_BETA = (0.05, 10.0)
WORLD_BETA = {"ipo": (0.005, 1.0), "cpo_smooth": WORLD_SUM_BETA, "simpo": (0.5, 20.0)}
EXPECTED = "a range such as {low: 0.05, high: 10, log: true}, a list of values, one value, or `search`"


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from `low` to `high`, both included; drawn on a log scale where `log`, whole ones where `integer`."""

    low: float
    high: float
    log: bool = False
    integer: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """One of `values`, without order."""

    values: tuple[Any, ...]


Axis = Range | Choice


RANGE = {"low": Parameter(None), "high": Parameter(None), "log": Parameter(None, "bool")}


def read_axis(node: Node, parameter: Parameter | None, path: str, problems: list[str]) -> Axis | None:
    """The axis that a value asks for; None where it is a plain (fixed) value or cannot be used (`problems` says)."""
    integer, before = parameter is not None and parameter.kind == "int", len(problems)
    if node.value == SEARCH and isinstance(node.value, str) and not (parameter and parameter.kind == "choice"):
        if parameter is None:
            return None  # no such setting: said where the values are checked
        if parameter.search is None:
            problems.append(f"{node.where} {path}: no range is known for it; expected {EXPECTED.rpartition(',')[0]}")
            return None
        return Range(*parameter.search, parameter.prior == "log", integer)
    if isinstance(node.value, tuple):
        return Choice(tuple(plain(node)))
    if not isinstance(node.value, dict):
        return None
    given = {name: plain(child) for name, child in node.value.items()}
    for name, child in node.value.items():
        if name not in RANGE:
            problems.append(f"{child.where} {path}.{name}: unknown key{suggestion(name, RANGE)}; expected {EXPECTED}")
        elif RANGE[name].problem(given[name]) is not None and not (name == "log" and given[name] is None):
            problems.append(f"{child.where} {path}.{name}: {shown(given[name])}; expected {EXPECTED}")
    problems += [
        f"{node.where} {path}.{name}: missing; expected {EXPECTED}" for name in ("low", "high") if name not in given
    ]
    if len(problems) > before:
        return None
    low, high, log = float(given["low"]), float(given["high"]), given.get("log")
    if log is None:
        log = parameter is not None and parameter.prior == "log"
    why = _range_problem(low, high, log)
    if why:
        problems.append(f"{node.where} {path}: {why}")
        return None
    return Range(low, high, log, integer)


def _range_problem(low: float, high: float, log: bool) -> str:
    if not (math.isfinite(low) and math.isfinite(high)):
        return f"the range {low:g} to {high:g} is not finite; expected two finite ends"
    if low >= high:
        return f"the range {low:g} to {high:g} is empty; expected low < high, or one plain value to fix it"
    if log and low <= 0:
        return f"a log range cannot reach {low:g}; expected low > 0, or log: false"
    return ""


def ends(axis: Axis) -> list[Any]:
    """The values that must be allowed for the whole axis to be: the ends of a range, every choice."""
    if isinstance(axis, Choice):
        return list(axis.values)
    return [int(axis.low), int(axis.high)] if axis.integer else [axis.low, axis.high]


def default_axis(name: str, key: str, world: bool, given: Mapping[str, Any]) -> Range | None:
    """The range of `beta` where an entry leaves it out: the world's own, else the registry's."""
    row = OBJECTIVES.get(name)
    if row is None or key not in row.hyperparameters:
        return None
    parameter = row.hyperparameters[key]
    on_tokens = given.get("reduction") == "mean" or given.get("length_average") is True
    if world and not on_tokens:
        if name in WORLD_BETA:
            return Range(*WORLD_BETA[name], log=True)
        if row.reduction == "sum" and name not in OWN_BETA:
            return Range(*WORLD_SUM_BETA, log=True)
    return None if parameter.search is None else Range(*parameter.search, parameter.prior == "log")


def training_parameter(key: str) -> Parameter | None:
    """What is known of a training field: the allowed values, with the range a study searches by default."""
    allowed = FIELDS["training"].get(key)
    known = TRAINING.get(key)
    if allowed is None or known is None:
        return allowed
    return Parameter(None, allowed.kind, allowed.low, allowed.high, search=known.search, prior=known.prior)


def rounded(value: Any, axis: Axis) -> Any:
    """A drawn number at four significant digits, still inside its range: what names and tables can show in full."""
    if isinstance(axis, Choice) or axis.integer:
        return value
    return min(max(float(f"{value:.4g}"), axis.low), axis.high)


@dataclass(frozen=True, slots=True)
class Arm:
    """One objective under search. `fixed`: its name and fixed hyperparameters; `space`: axis by hyperparameter name,
    or by `training.<field>`. `label` is the objective's name, numbered where the study has it twice, and where it is
    searched several times: those arms have one `objective`, the first one's label."""

    label: str
    fixed: Mapping[str, Any]
    space: Mapping[str, Axis]
    where: str = ""
    path: str = ""
    objective: str = ""

    def searches(self, count: int) -> tuple[Arm, ...]:
        """The arm searched `count` times, each search with draws of its own, which follow from the label."""
        labels = (self.label if n == 1 else f"{self.label} search {n}" for n in range(1, count + 1))
        return tuple(replace(self, label=label, objective=self.label) for label in labels)


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
                f"{child.where} search.{key}: no objective here has such a free hyperparameter, and training has "
                f"no such field{suggestion(key, known)}"
            )
    return out, axes


def _search(node: Node | None, problems: list[str]) -> dict[str, Node]:
    """The shared ranges of `search:` by name."""
    if node is None:
        return {}
    if not isinstance(node.value, dict):
        problems.append(f"{node.where} search: {shown(plain(node))} is not a mapping; expected `beta: {{low: ...}}`")
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

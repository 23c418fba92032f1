"""Where a study may look: one axis per searched setting, from the spec, the registry's row or the world.

In a study a hyperparameter or training field may be a range `{low, high, log}`, a list (a choice), the word `search`
(the registry's own range) or a plain value (fixed). `beta` is searched where it is left out. Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.names import suggestion
from harness.objectives.table import OBJECTIVES
from harness.spec.cells import OWN_BETA
from harness.spec.models import FIELDS, shown
from harness.spec.yaml_strict import Node, plain
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


class _RangeModel(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    low: float
    high: float
    log: bool | None = None


def read_axis(node: Node, parameter: Parameter | None, path: str, problems: list[str]) -> Axis | None:
    """The axis that a value asks for; None where it is a plain (fixed) value or cannot be used (`problems` says)."""
    integer = parameter is not None and parameter.kind == "int"
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
    try:
        model = _RangeModel.model_validate(plain(node))
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            key = str(detail["loc"][0])
            child = node.value.get(key, node)
            what = {"extra_forbidden": f"unknown key{suggestion(key, _RangeModel.model_fields)}", "missing": "missing"}
            told = what.get(str(detail["type"]), shown(plain(child)))
            problems.append(f"{child.where} {path}.{key}: {told}; expected {EXPECTED}")
        return None
    log = model.log if model.log is not None else parameter is not None and parameter.prior == "log"
    why = _range_problem(model.low, model.high, log)
    if why:
        problems.append(f"{node.where} {path}: {why}")
        return None
    return Range(model.low, model.high, log, integer)


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

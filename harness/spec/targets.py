"""What a study aims at: held-out measures with a direction and a split, and bounds on others. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.measure.table import METRICS
from harness.names import suggestion
from harness.spec.models import shown
from harness.spec.refusal import CLEAN, DOWNSTREAM, SPLITS, Context, benchmark, refusal
from harness.spec.yaml_strict import Node, plain

DIRECTIONS = {"up": "maximize", "down": "minimize", "maximize": "maximize", "minimize": "minimize"}


@dataclass(frozen=True, slots=True)
class Target:
    """One thing to optimise: `direction` is maximize or minimize, `split` one of `SPLITS`."""

    measure: str
    direction: str
    split: str = CLEAN


@dataclass(frozen=True, slots=True)
class Constraint:
    """A bound that a trial must keep: `at_most` or `at_least`, the other is None."""

    measure: str
    split: str = CLEAN
    at_most: float | None = None
    at_least: float | None = None

    @property
    def name(self) -> str:
        """Measure, split and bound as one text."""
        bound = f"<= {self.at_most:g}" if self.at_most is not None else f">= {self.at_least:g}"
        return f"{self.measure} ({self.split}) {bound}"

    def excess(self, value: float) -> float:
        """How far `value` lies beyond the bound; <= 0 keeps it."""
        if self.at_most is not None:
            return value - self.at_most
        assert self.at_least is not None
        return self.at_least - value


class TargetModel(BaseModel):
    """One thing to optimise; several of them search for a Pareto front."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    expected: ClassVar[dict[str, str]] = {
        "measure": "a measure of `harness list metrics`",
        "direction": "maximize or minimize",
        "split": f"one of {', '.join(SPLITS)}",
    }
    measure: str  # scores a trial, as its mean over the seeds; `lm_eval/<task>/<metric>` for a benchmark
    direction: Literal["maximize", "minimize", "up", "down"] | None = None  # follows from the measure where it has one
    # the pairs it is measured on; validation_observed has labels as wrong as the training labels
    split: Literal["validation_clean", "validation_observed", "ood", "test", "downstream"] = "validation_clean"


class ConstraintModel(BaseModel):
    """A bound on another measure: a trial beyond it can never win."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
    expected: ClassVar[dict[str, str]] = {
        "measure": "a measure of `harness list metrics`",
        "split": f"one of {', '.join(SPLITS)}",
        "at_most": "a number",
        "at_least": "a number",
    }
    measure: str  # what is bounded
    # the pairs it is measured on; validation_observed has labels as wrong as the training labels
    split: Literal["validation_clean", "validation_observed", "ood", "test", "downstream"] = "validation_clean"
    at_most: float | None = None  # upper bound, in the measure's unit; exactly one of the two
    at_least: float | None = None  # lower bound


def model_problems(error: ValidationError, kind: type[BaseModel], node: Node, path: str) -> list[str]:
    """One line per pydantic finding in a mapping, at the key that causes it. `kind.expected` words what is allowed."""
    expected: dict[str, str] = kind.expected  # type: ignore[attr-defined]  # a ClassVar of every model here
    assert isinstance(node.value, dict)
    lines = []
    for detail in error.errors(include_url=False):
        key = str(detail["loc"][0])
        child = node.value.get(key, node)
        if detail["type"] == "extra_forbidden":
            near = suggestion(key, expected)
            lines.append(f"{child.where} {path}.{key}: unknown key; expected one of {', '.join(expected)}{near}")
        else:
            told = "missing" if detail["type"] == "missing" else shown(plain(child))
            value = plain(child)
            near = suggestion(value, SPLITS) if key == "split" and isinstance(value, str) else ""
            lines.append(f"{child.where} {path}.{key}: {told}; expected {expected[key]}{near}")
    return lines


def read_targets(node: Node | None, where: str, context: Context, problems: list[str]) -> tuple[Target, ...]:
    """The targets of a spec; appends one line per mistake."""
    example = "`targets: [{measure: ranking_accuracy, direction: maximize, split: validation_clean}]`"
    if node is None or not isinstance(node.value, tuple) or not node.value:
        place = where if node is None else node.where
        problems.append(f"{place} targets: a study needs at least one; expected {example}")
        return ()
    found = []
    for index, child in enumerate(node.value):
        path = f"targets.{index}"
        model = _read(TargetModel, child, path, example, problems)
        if model is None:
            continue
        assert isinstance(model, TargetModel) and isinstance(child.value, dict)
        why = refusal(model.measure, model.split, context)
        if why:
            key = "split" if why.startswith("split") and "split" in child.value else "measure"
            problems.append(f"{child.value[key].where} {path}.{key}: {why}")
            continue
        if benchmark(model.measure) and model.split != DOWNSTREAM and "split" in child.value:
            problems.append(f"{child.value['split'].where} {path}.split: a benchmark has no split; leave it out")
            continue
        direction, wrong = _direction(model)
        if wrong:
            problems.append(f"{child.value.get('direction', child).where} {path}.direction: {wrong}")
            continue
        found.append(Target(model.measure, direction, _place(model.measure, model.split)))
    if len({(t.measure, t.split) for t in found}) < len(found):
        problems.append(f"{node.where} targets: one measure on one split is given twice; keep one")
    return tuple(found)


def read_constraints(node: Node | None, context: Context, problems: list[str]) -> tuple[Constraint, ...]:
    """The bounds of a spec, none where the key is missing; appends one line per mistake."""
    if node is None:
        return ()
    example = "`constraints: [{measure: kl, at_most: 5}]`"
    if not isinstance(node.value, tuple):
        problems.append(f"{node.where} constraints: {shown(plain(node))} is no list; expected {example}")
        return ()
    found = []
    for index, child in enumerate(node.value):
        path = f"constraints.{index}"
        model = _read(ConstraintModel, child, path, example, problems)
        if model is None:
            continue
        assert isinstance(model, ConstraintModel) and isinstance(child.value, dict)
        why = refusal(model.measure, model.split, context)
        if (model.at_most is None) == (model.at_least is None):
            problems.append(f"{child.where} {path}: expected exactly one of at_most and at_least, as in {example}")
        elif why:
            problems.append(f"{child.value['measure'].where} {path}.measure: {why}")
        else:
            place = _place(model.measure, model.split)
            found.append(Constraint(model.measure, place, model.at_most, model.at_least))
    return tuple(found)


def _read(kind: type[BaseModel], node: Node, path: str, example: str, problems: list[str]) -> BaseModel | None:
    if not isinstance(node.value, dict):
        problems.append(f"{node.where} {path}: {shown(plain(node))} is no mapping; expected {example}")
        return None
    try:
        return kind.model_validate(plain(node))
    except ValidationError as error:
        problems += model_problems(error, kind, node, path)
        return None


def _direction(model: TargetModel) -> tuple[str, str]:
    """maximize or minimize, and why it cannot be said."""
    known = "" if benchmark(model.measure) else METRICS[model.measure].direction
    natural = DIRECTIONS.get(known)
    if model.direction is None:
        if natural is None:
            return "", f"'{model.measure}' is neither better up nor down; expected maximize or minimize"
        return natural, ""
    given = DIRECTIONS[model.direction]
    if natural is not None and given != natural:
        return "", f"{given}, but '{model.measure}' is better {known}; expected {natural}"
    return given, ""


def _place(measure: str, split: str) -> str:
    return DOWNSTREAM if benchmark(measure) else split

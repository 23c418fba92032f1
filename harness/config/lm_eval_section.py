"""The block `evaluation.lm_eval`: benchmarks of finished runs. It belongs to the sweep, not to a run: no run key moves.

Imports no torch.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from harness.config.sections import shown
from harness.config.strict_yaml import Node, plain
from harness.identity import plain as as_data
from harness.text import suggestion
from harness.types import LmEvalSpec

KEY = "lm_eval"
_COUNTS = {"limit": (1, 10_000_000), "num_fewshot": (0, 100), "batch_size": (1, 65_536)}
_RUNS = ("all", "best", "flagged")
EXPECTED = {
    "tasks": "a list of task names",
    **{name: f"an integer in [{low}, {high}]" for name, (low, high) in _COUNTS.items()},
    "runs": f"one of {', '.join(_RUNS)}",
}


def take_lm_eval(keys: dict[str, Node], prefix: str, problems: list[str]) -> tuple[dict[str, Node], LmEvalSpec | None]:
    """The keys without `evaluation.lm_eval`, and what that block says (None: absent). Appends to `problems`."""
    evaluation = keys.get("evaluation")
    if evaluation is None or not isinstance(evaluation.value, dict) or KEY not in evaluation.value:
        return keys, None
    node = evaluation.value[KEY]
    rest = {name: child for name, child in evaluation.value.items() if name != KEY}
    if prefix:
        problems.append(f"{node.where} {prefix}evaluation.{KEY}: belongs to the sweep; move it out of `also`")
    keys = {**keys, "evaluation": Node(rest, evaluation.where)}
    return keys, _read(node, f"{prefix}evaluation.{KEY}", problems)


def _read(node: Node, key: str, problems: list[str]) -> LmEvalSpec | None:
    if node.value is None:
        return None
    if not isinstance(node.value, dict):
        example = "`{tasks: [preference], limit: 200}`"
        problems.append(f"{node.where} {key}: {shown(plain(node))} is not a mapping; expected e.g. {example}")
        return None
    names = [field.name for field in dataclasses.fields(LmEvalSpec)]
    given: dict[str, Any] = {}
    for name, child in node.value.items():
        if name not in names:
            near = suggestion(name, names)
            problems.append(f"{child.where} {key}.{name}: unknown key; expected one of {', '.join(names)}{near}")
        elif (value := _value(name, child, f"{key}.{name}", problems)) is not None:
            given[name] = value
    return LmEvalSpec(**given)


def _value(name: str, node: Node, key: str, problems: list[str]) -> Any:
    value = plain(node)
    if name in _COUNTS:
        low, high = _COUNTS[name]
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            problems.append(f"{node.where} {key}: {shown(value)}; expected {EXPECTED[name]}")
            return None
        return value
    if name == "runs":
        if value not in _RUNS:
            problems.append(f"{node.where} {key}: {shown(value)}; expected {EXPECTED[name]}")
            return None
        return value
    tasks = [value] if isinstance(value, str) else value
    if not isinstance(tasks, list) or not tasks or not all(isinstance(task, str) for task in tasks):
        problems.append(f"{node.where} {key}: {shown(value)}; expected a list of task names such as [preference]")
        return None
    return tuple(tasks)


def resolved_lm_eval(spec: LmEvalSpec) -> dict[str, Any]:
    """The block as plain data for `sweep.yaml`."""
    found: dict[str, Any] = as_data(spec)
    return found

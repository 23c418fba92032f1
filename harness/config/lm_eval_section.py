"""The block `evaluation.lm_eval`: benchmarks of finished runs. It belongs to the sweep, so no run key depends on it.

Imports no torch.
"""

from __future__ import annotations

from pathlib import Path

from harness.config.overrides import absolute
from harness.config.schema import read_mapping, shown
from harness.config.strict_yaml import Node, plain
from harness.types import LmEvalSpec, Parameter

KEY = "lm_eval"
LM_EVAL = {
    "tasks": Parameter(None, "table", doc="a list of task names"),
    "limit": Parameter(None, "int", 1, 10_000_000),
    "num_fewshot": Parameter(None, "int", 0, 100),
    "runs": Parameter(None, "choice", choices=("all", "best", "flagged")),
    "batch_size": Parameter(None, "int", 1, 65_536),
    "include_path": Parameter(None, "text", doc="the path of a folder"),
    "trust_task_code": Parameter(None, "bool"),
}


def take_lm_eval(
    keys: dict[str, Node], prefix: str, base: Path, problems: list[str]
) -> tuple[dict[str, Node], LmEvalSpec | None]:
    """The keys without `evaluation.lm_eval`, and the block's settings (None: absent). Appends to `problems`.

    A relative `include_path` is meant from `base` in the spec file and from the working folder in `--set`.
    """
    evaluation = keys.get("evaluation")
    if evaluation is None or not isinstance(evaluation.value, dict) or KEY not in evaluation.value:
        return keys, None
    node = evaluation.value[KEY]
    rest = {name: child for name, child in evaluation.value.items() if name != KEY}
    if prefix:
        problems.append(f"{node.where} {prefix}evaluation.{KEY}: belongs to the sweep; move it out of `also`")
    keys = {**keys, "evaluation": Node(rest, evaluation.where)}
    return keys, _read(node, f"{prefix}evaluation.{KEY}", base, problems)


def _read(node: Node, key: str, base: Path, problems: list[str]) -> LmEvalSpec | None:
    if node.value is None:
        return None
    given = read_mapping(LM_EVAL, node, key, "{tasks: [preference], limit: 200}", problems)
    if given is None:
        return None
    if "tasks" in given:
        child = given["tasks"]
        value = plain(child)
        tasks = [value] if isinstance(value, str) else value
        if not isinstance(tasks, list) or not tasks or not all(isinstance(task, str) for task in tasks):
            problems.append(
                f"{child.where} {key}.tasks: {shown(value)}; expected {LM_EVAL['tasks'].doc} such as [preference]"
            )
            tasks = ()
        given["tasks"] = tuple(tasks)
    children = node.value if isinstance(node.value, dict) else {}
    if given.get("include_path"):
        given["include_path"] = str(absolute(given["include_path"], children["include_path"], base))
    return LmEvalSpec(**given)

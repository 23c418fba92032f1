"""What a reader may expect of every module: short files and functions, docstrings, and nothing that nobody calls.

Every check is a pure function over `{module name: source}` and returns one line per offence.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping

LINES_A_FILE, LINES_A_FUNCTION = 300, 60
REASON = "Long because"  # a module whose docstring says so may be longer
# Public functions that the product does not call and no page names, each with its reason.
KEPT = {
    "harness.rlhf.best_of_n.best_of_n_distribution": "the closed form that sampled best-of-n is tested against",
    "harness.rlhf.losses.sequence_reinforce": "the plain estimator that the clipped loss is tested against",
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def _functions(source: str) -> Iterator[Function]:
    return (node for node in ast.walk(ast.parse(source)) if isinstance(node, Function))


def length_problems(modules: Mapping[str, str]) -> list[str]:
    """Files above 300 lines whose docstring gives no reason, and functions above 60 lines."""
    problems: list[str] = []
    for name, source in modules.items():
        lines = len(source.splitlines())
        if lines > LINES_A_FILE and REASON not in (ast.get_docstring(ast.parse(source)) or ""):
            problems.append(f"{name}: {lines} lines; split it, or say in its docstring '{REASON} ...'")
        for node in _functions(source):
            if (length := (node.end_lineno or node.lineno) - node.lineno + 1) > LINES_A_FUNCTION:
                problems.append(f"{name}:{node.lineno}: {node.name} has {length} lines")
    return problems


def docstring_problems(modules: Mapping[str, str]) -> list[str]:
    """Modules, public classes, functions and methods without a docstring; a class speaks for its `forward`."""

    def missing(node: ast.Module | ast.ClassDef, where: str) -> Iterator[str]:
        for child in node.body:
            if (
                isinstance(child, ast.ClassDef | Function)
                and not child.name.startswith("_")
                and child.name != "forward"
            ):
                if not ast.get_docstring(child):
                    yield f"{where}.{child.name}: no docstring"
                if isinstance(child, ast.ClassDef):
                    yield from missing(child, f"{where}.{child.name}")

    problems: list[str] = []
    for name, source in modules.items():
        tree = ast.parse(source)
        problems += [] if ast.get_docstring(tree) else [f"{name}: no docstring"]
        problems += missing(tree, name)
    return problems


def unused_problems(modules: Mapping[str, str], docs: str, kept: Mapping[str, str]) -> list[str]:
    """Public functions that no module calls, no row names (`module:function`) and no page explains."""
    code = re.findall(r"```.*?```|`[^`\n]+`", docs, re.DOTALL)
    used: set[str] = set(re.findall(r"\w+", " ".join(code)))
    for source in modules.values():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Name):
                used.add(node.id)
            elif isinstance(node, ast.Attribute):
                used.add(node.attr)
            elif isinstance(node, ast.alias) and node.asname:
                used.add(node.name)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                used.update(re.findall(r":(\w+)$", node.value))  # "module:function"
            elif isinstance(node, ast.BinOp) and isinstance(node.right, ast.Constant):
                used.add(str(node.right.value))  # MODULE + "function"
    found = {
        f"{name}.{node.name}"
        for name, source in modules.items()
        for node in ast.parse(source).body
        if isinstance(node, Function) and not node.name.startswith("_") and node.name not in used
    }
    stale = [f"{name}: no longer unused; take it out of KEPT" for name in kept if name not in found]
    return [f"{name}: only tests call it" for name in sorted(found - kept.keys())] + stale

"""`--set key=value`: dotted keys into a spec, list indexes allowed, values in YAML. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from harness.config.strict_yaml import Node, parse_yaml
from harness.types import InputError

SOURCE = "--set"


def apply_overrides(root: Node, overrides: Iterable[str]) -> tuple[Node, list[str]]:
    """`root` with every `key=value` put in, and the problems, one line each. Missing mappings on the way are made."""
    problems: list[str] = []
    seen: set[str] = set()
    for text in overrides:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals or not key or "" in key.split("."):
            problems.append(f"{SOURCE} {text!r}: expected key=value, e.g. training.steps=100")
        elif key in seen:
            problems.append(f"{SOURCE} {key}: given twice; keep one")
        else:
            seen.add(key)
            try:
                node, found = parse_yaml(value, f"{SOURCE} {key}", line=False)
                problems += found
                root = _put(root, key.split("."), _from_set(node), key)
            except InputError as error:
                problems += error.problems
    return root, problems


def _from_set(node: Node) -> Node:
    """The same values with `--set` as their place."""
    if isinstance(node.value, dict):
        return Node({key: _from_set(child) for key, child in node.value.items()}, SOURCE)
    if isinstance(node.value, tuple):
        return Node(tuple(_from_set(child) for child in node.value), SOURCE)
    return Node(node.value, SOURCE)


def _put(node: Node, parts: list[str], new: Node, key: str) -> Node:
    if not parts:
        return new
    head, rest = parts[0], parts[1:]
    if isinstance(node.value, tuple):
        size = len(node.value)
        if not head.isdecimal() or int(head) >= size:
            raise InputError(f"{SOURCE} {key}: '{head}' is not an index of a list of {size}; expected 0 to {size - 1}")
        items = list(node.value)
        items[int(head)] = _put(items[int(head)], rest, new, key)
        return Node(tuple(items), node.where)
    if node.value is not None and not isinstance(node.value, dict):
        raise InputError(f"{SOURCE} {key}: cannot set '{head}' inside the plain value {node.value!r}")
    children = dict(node.value or {})
    children[head] = _put(children.get(head, Node(None, SOURCE)), rest, new, key)
    return Node(children, node.where)


def absolute(text: str, node: Node, base: Path) -> Path:
    """The path that a node's text means: from the working folder in `--set`, from `base` in the spec file."""
    return ((Path.cwd() if node.where == SOURCE else base) / Path(text).expanduser()).resolve()

"""YAML read strictly: the YAML 1.2 core types, no duplicate keys, no tags, a size limit, and where each key stands.

Values are built from PyYAML's parse events, so no constructor of PyYAML ever runs. What differs from its SafeLoader:
`1e-3` is a float; `no`, `off`, `012`, `0x10`, `1_000` and `12:30` are text; only `true` and `false` are booleans;
merge keys (`<<`) have no meaning. Imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from harness.types import InputError

MAX_BYTES = 5_000_000
MAX_NODES = 50_000  # counted after aliases are expanded: a spec holds hundreds, an alias bomb 10**9
MAX_DEPTH = 32
MAX_DIGITS = 40  # far above any number of a spec; `int` itself refuses more than 4300 digits

_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, bool | float | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}
_BOMS = (
    (b"\xef\xbb\xbf", "a UTF-8 byte-order mark (BOM)"),
    (b"\xff\xfe", "a UTF-16 BOM"),
    (b"\xfe\xff", "a UTF-16 BOM"),
)

# The C parser is some 10 times faster; both yield the same events. Wheels of PyYAML hold it on all usual platforms.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Node:
    """One value and its place: `value` is a scalar, a tuple of nodes, or a dict of nodes; `where` is `file:line`."""

    value: bool | int | float | str | tuple[Node, ...] | dict[str, Node] | None
    where: str


def plain(node: Node) -> Any:
    """The value without places: None, bool, int, float, str, lists and dicts."""
    if isinstance(node.value, dict):
        return {key: plain(child) for key, child in node.value.items()}
    if isinstance(node.value, tuple):
        return [plain(child) for child in node.value]
    return node.value


def read_yaml(path: Path) -> tuple[Node, list[str]]:
    """The one document of a file, and its problems (duplicate keys, tags), one line each.

    Raises InputError where nothing can be read at all: no file, wrong encoding, broken syntax, over a limit.
    """
    name = str(path)
    return parse_yaml(_text(path, name), name)


def parse_yaml(text: str, name: str, line: bool = True) -> tuple[Node, list[str]]:
    """The one document in `text`. `name` stands for the file; with `line=False` places are the name alone."""
    build = _Builder(name, line)
    try:
        events = iter(yaml.parse(text, Loader=_LOADER))
        root = build.document(events)
    except yaml.MarkedYAMLError as error:
        mark: Any = error.problem_mark or error.context_mark
        place = build.place(mark.line if mark else 0)
        what = " ".join(part for part in (error.context, error.problem) if part)
        raise InputError(f"{place}: not valid YAML: {what}; expected `key: value` lines") from None
    except yaml.YAMLError as error:
        detail = " ".join(str(error).split())
        raise InputError(f"{name}: not valid YAML: {detail}; remove the character") from None
    return root, build.problems


def _text(path: Path, name: str) -> str:
    try:
        if path.is_dir():
            raise InputError(f"{name}: is a directory; expected a YAML file")
        if not path.exists():
            raise InputError(f"{name}: no such file; expected the path of a YAML file")
        if not path.is_file():
            raise InputError(f"{name}: is not a regular file; expected a YAML file")
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise InputError(f"{name}: has {size} bytes; expected at most {MAX_BYTES} (5 MB)")
        raw = path.read_bytes()
    except PermissionError:
        raise InputError(f"{name}: no permission to read; expected a readable YAML file") from None
    except (OSError, ValueError) as error:  # a name too long, a NUL in it, a broken mount
        raise InputError(f"{name!r}: cannot be read: {error}") from None
    for mark, what in _BOMS:
        if raw.startswith(mark):
            raise InputError(f"{name}: starts with {what}; save it as UTF-8 without BOM")
    if b"\x00" in raw:
        raise InputError(f"{name}: holds a NUL byte (UTF-16, or not a text file); save it as UTF-8")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    if "\r" in text:
        line = text[: text.index("\r")].count("\n") + 1
        raise InputError(f"{name}:{line}: has Windows line ends (CRLF); save it with LF line ends")
    tab = re.search(r"^[ ]*\t", text, re.MULTILINE)
    if tab:
        line = text[: tab.start()].count("\n") + 1
        raise InputError(f"{name}:{line}: a tab in the indentation; expected spaces")
    return text


class _Builder:
    """Turns events into nodes. Holds what one document shares: anchors, the node count, the problems found."""

    def __init__(self, name: str, line: bool) -> None:
        self.name = name
        self.with_line = line
        self.nodes = 0
        self.problems: list[str] = []
        self.anchors: dict[str, tuple[Node, int]] = {}

    def place(self, line: int) -> str:
        return f"{self.name}:{line + 1}" if self.with_line else self.name

    def document(self, events: Iterator[Any]) -> Node:
        root: Node | None = None
        for event in events:
            where = self.place(event.start_mark.line)
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    raise InputError(f"{where}: a second document; expected one")
                root = self.node(next(events), events, 0, "")
        return Node(None, self.place(0)) if root is None else root

    def node(self, event: Any, events: Iterator[Any], depth: int, path: str) -> Node:
        """The node that begins with `event`; `path` is its dotted key, for messages."""
        where = self.place(event.start_mark.line)
        label = f"{where} {path}".rstrip()
        before = self.nodes
        self.nodes += 1
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self.anchors:
                raise InputError(f"{label}: alias '*{event.anchor}' has no anchor before it")
            target, size = self.anchors[event.anchor]
            self.nodes += size - 1
            self.check(label, depth)
            return Node(target.value, where)
        self.check(label, depth)
        if event.tag is not None:
            self.problems.append(f"{label}: the tag '{event.tag}' is refused; expected plain values without tags")
        if isinstance(event, yaml.ScalarEvent):
            node = Node(_scalar(event, label), where)
        elif isinstance(event, yaml.MappingStartEvent):
            node = Node(self.mapping(events, depth, path), where)
        else:
            items: list[Node] = []
            while not isinstance(item := next(events), yaml.SequenceEndEvent):
                items.append(self.node(item, events, depth + 1, f"{path}.{len(items)}".lstrip(".")))
            node = Node(tuple(items), where)
        if event.anchor:  # known only once complete, so that nothing can hold itself
            self.anchors[event.anchor] = (node, self.nodes - before)
        return node

    def mapping(self, events: Iterator[Any], depth: int, path: str) -> dict[str, Node]:
        found: dict[str, Node] = {}
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            key = self.node(event, events, depth + 1, path)
            name = key.value if isinstance(key.value, str) else None
            label = f"{path}.{'?' if name is None else name}".lstrip(".")
            child = self.node(next(events), events, depth + 1, label)
            if name is None:
                self.problems.append(f"{key.where} {path or 'top level'}: the key {plain(key)!r} is no text; quote it")
            elif name in found:
                first = found[name].where.rpartition(":")[2]
                self.problems.append(f"{key.where} {label}: duplicate key (first on line {first}); keep one")
            else:
                found[name] = Node(child.value, key.where)
        return found

    def check(self, label: str, depth: int) -> None:
        if self.nodes > MAX_NODES:
            raise InputError(f"{label}: more than {MAX_NODES} values, aliases expanded; expected a smaller file")
        if depth > MAX_DEPTH:
            raise InputError(f"{label}: nested deeper than {MAX_DEPTH} levels")


def _scalar(event: Any, label: str) -> bool | int | float | str | None:
    text: str = event.value
    if event.style in ("'", '"', "|", ">"):  # quoted or block: text
        return text
    if text in _WORDS:
        return _WORDS[text]
    number = _INT.fullmatch(text) or _FLOAT.fullmatch(text)
    if number is None:
        return text
    if len(text) > MAX_DIGITS:
        raise InputError(f"{label}: a number of {len(text)} characters; expected at most {MAX_DIGITS}")
    return int(text) if _INT.fullmatch(text) else float(text)

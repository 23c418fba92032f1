"""Rows of other packages: `Registry`, a mapping of the built-in rows by name that finds those of plug-ins when asked.

A plug-in is an installed distribution with entry points in `preference_harness.objectives`, `corruptions`, `metrics`,
`formats` or `sections`, each a row or an iterable of rows. Plug-ins of a group are imported when a name that is not
built in is looked up, when a spec is checked, or when all rows are asked for.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from harness.identity import content_hash, file_sha256
from harness.text import look_up
from harness.types import InputError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUPS = ("objectives", "corruptions", "metrics", "formats", "sections")
PREFIX = "preference_harness."


class Named(Protocol):
    """A row of any registry."""

    @property
    def name(self) -> str:
        """The name under which specs and reports know the row."""


R = TypeVar("R", bound=Named)


@dataclass(frozen=True, slots=True)
class Plugin:
    """The package that a row comes from; `sha256` is over every .py file of it."""

    distribution: str
    version: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version} {self.sha256}"


@dataclass(frozen=True, slots=True)
class PluginRows(Generic[R]):
    """What the plug-ins of one group offer. `clashes` has a line per name offered twice, `broken` one per entry."""

    rows: Mapping[str, R]
    plugins: Mapping[str, Plugin]
    clashes: Mapping[str, str]
    broken: tuple[str, ...]


class Registry(Mapping[str, R]):
    """Rows of one group by name, the built-in ones first. Read-only."""

    def __init__(self, group: str, kind: type[R], rows: Iterable[R]) -> None:
        rows = tuple(rows)
        self.group, self.kind = group, kind
        self.built_in: Mapping[str, R] = {row.name: row for row in rows}
        assert len(self.built_in) == len(rows), f"two {group} share a name"

    @cached_property
    def found(self) -> PluginRows[R]:
        """What plug-ins offer; imports them."""
        return _plugin_rows(self.group, self.kind, self.built_in)

    def __getitem__(self, name: str) -> R:
        return self.built_in[name] if name in self.built_in else self.found.rows[name]

    def __iter__(self) -> Iterator[str]:
        yield from self.built_in
        yield from self.found.rows

    def __len__(self) -> int:
        return len(self.built_in) + len(self.found.rows)

    def plugin(self, name: str) -> str:
        """Distribution, version and source hash of a plug-in's row, for run keys; empty for a built-in one."""
        return "" if name in self.built_in or name not in self.found.plugins else str(self.found.plugins[name])

    @property
    def problems(self) -> tuple[str, ...]:
        """A line for each entry that could not be loaded and each name that is offered twice."""
        return (*self.found.broken, *self.found.clashes.values())

    def check(self, name: str) -> None:
        """Raise InputError where plug-ins leave open what `name` means."""
        if name in self.found.clashes:
            raise InputError(self.found.clashes[name])

    def row(self, name: str, what: str) -> R:
        """The row that a spec means by `name`. Raises InputError for an unknown name or one that is offered twice."""
        self.check(name)
        try:
            return look_up(self, name, what)
        except InputError as unknown:
            raise InputError(*unknown.problems, *self.found.broken) from None


def check_same(what: str, planned: str, here: str) -> None:
    """Raise InputError where the row that a run was planned with is not the one that is installed here."""
    if planned != here:
        was, now = short(planned) or "a built-in row", f"found {short(here)}" if here else "found no such plug-in"
        raise InputError(f"{what}: planned with {was}, {now} here; install the version it was planned with")


def short(plugins: str) -> str:
    """What `plugin` fields of specs hold, with the first 12 digits of each source hash."""
    return "; ".join(text[: text.rindex(" ") + 13] for text in plugins.split("; ") if text)


def installed(plugins: str) -> bool:
    """Whether the distributions that a `plugin` field names are installed, in whatever version."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return all(version(text.split(" ")[0]) for text in plugins.split("; "))
    except PackageNotFoundError:
        return False


def absent(used: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """A sentence for each of `used`, such as (`objective mine`, its `plugin` field), whose plug-in is not installed."""
    return tuple(
        f"{what} came from plug-in {short(plugin)}, which is not installed here: shown from its stored results"
        for what, plugin in used
        if not installed(plugin)
    )


@cache
def entries() -> tuple[EntryPoint, ...]:
    """The entry points of all plug-ins, by distribution. Reads metadata, imports no plug-in."""
    from importlib.metadata import entry_points

    known = entry_points()
    found = [entry for group in GROUPS for entry in known.select(group=PREFIX + group)]
    return tuple(sorted(found, key=lambda entry: (distribution_of(entry), entry.group, entry.name)))


def distribution_of(entry: EntryPoint) -> str:
    """The name of the distribution that an entry point belongs to."""
    return entry.dist.name if entry.dist is not None else ""


def _plugin_rows(group: str, kind: type[R], built_in: Mapping[str, R]) -> PluginRows[R]:
    offers: dict[str, list[tuple[Plugin, R]]] = defaultdict(list)
    broken = []
    for entry in entries():
        if entry.group == PREFIX + group:
            try:
                plugin, rows = load_rows(entry, kind)
            except Exception as error:  # whatever the import of somebody else's module may raise
                why = " ".join(f"{type(error).__name__}: {error}".split())
                broken.append(
                    f"plug-in {distribution_of(entry)}: entry '{entry.name}' of {entry.group} left out: {why}"
                )
                continue
            for row in rows:
                offers[row.name].append((plugin, row))
    single = {name: offered[0] for name, offered in offers.items() if len(offered) == 1 and name not in built_in}
    clashes = {}
    for name, offered in offers.items():
        if name not in single:
            sides = [f"{plugin.distribution} {plugin.version}" for plugin, _ in offered]
            sides = ["the harness itself", *sides] if name in built_in else sides
            clashes[name] = (
                f"{group}: the name '{name}' is taken twice, by {' and by '.join(sides)}; rename or uninstall one"
            )
    own = {name: row for name, (_, row) in single.items()}
    return PluginRows(own, {name: plugin for name, (plugin, _) in single.items()}, clashes, tuple(broken))


def load_rows(entry: EntryPoint, kind: type[R]) -> tuple[Plugin, tuple[R, ...]]:
    """The rows of one entry point, and their plug-in. Raises what the import raises, TypeError for other values."""
    value: Any = entry.load()
    rows = (value,) if isinstance(value, kind) else tuple(value)
    for row in rows:
        if not isinstance(row, kind):
            raise TypeError(f"expected rows of type {kind.__name__}, got {type(row).__name__}")
    version = entry.dist.version if entry.dist is not None else ""
    return Plugin(distribution_of(entry), version, _source_sha256(entry.module)), rows


@cache
def _source_sha256(module: str) -> str:
    """SHA-256 over the .py files of the topmost package around an imported module, or of the module's own file."""
    parts = module.split(".")
    above = (sys.modules[".".join(parts[: end + 1])] for end in range(len(parts)))
    top = next(package for package in above if getattr(package, "__file__", None))  # namespace packages have none
    file = Path(str(top.__file__))
    if not hasattr(top, "__path__"):
        return file_sha256(file)
    return content_hash([[path.relative_to(file.parent).as_posix(), file_sha256(path)]
                         for path in sorted(file.parent.rglob("*.py"))])  # fmt: skip

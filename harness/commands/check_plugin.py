"""`harness check-plugin`: the laws of each registry applied to the rows of one installed distribution."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from harness.corruptions.registry import CORRUPTIONS
from harness.data.formats.registry import FORMATS
from harness.laws import Broken, corruptions, formats, metrics, objectives, sections
from harness.metrics import METRICS
from harness.objectives.registry import OBJECTIVES
from harness.plugins import GROUPS, PREFIX, Registry, distribution_of, entries
from harness.report.sections.registry import SECTIONS
from harness.text import suggestion
from harness.types import InputError

Check = tuple[str, Callable[[], None]]  # the law's name, and the law with its row
REGISTRIES: Mapping[str, Registry[Any]] = dict(
    zip(GROUPS, (OBJECTIVES, CORRUPTIONS, METRICS, FORMATS, SECTIONS), strict=True)
)


def check_distribution(name: str, sweep_folder: Path | None = None) -> tuple[list[str], list[str]]:
    """(a line for each row with the number of its laws, a line for each law that a row breaks).

    Sections are drawn from `sweep_folder` where it is given. Raises InputError for a distribution without entry points.
    """
    own = [entry for entry in entries() if _plain(distribution_of(entry)) == _plain(name)]
    if not own:
        names = sorted({distribution_of(entry) for entry in entries()})
        known = f"; with entry points: {', '.join(names)}" if names else ""
        near = suggestion(name, names)
        raise InputError(f"'{name}': no installed distribution has entry points {PREFIX}*{near}{known}")
    groups = {entry.group.removeprefix(PREFIX) for entry in own}
    checked, broken = [], []
    for group in (group for group in GROUPS if group in groups):
        registry = REGISTRIES[group]
        broken += [line for line in registry.problems if _plain(name) in _plain(line)]
        for row in registry.found.rows.values():
            if _plain(registry.found.plugins[row.name].distribution) == _plain(name):
                checks = list(checks_of(group, row, sweep_folder))
                broken += [f"{group} {row.name}: {line}" for line in failures(checks)]
                checked.append(f"{group} {row.name}: {len(checks)} laws")
    return checked, broken


def checks_of(group: str, row: Any, sweep_folder: Path | None) -> Iterator[Check]:
    """Every law of a row of a group."""
    if group == "corruptions":
        for params in corruptions.forms(row):
            for law in corruptions.CASE_LAWS:
                yield law.__name__, partial(law, row.name, params)
        return
    laws: Mapping[str, Iterable[Callable[[Any], None]]] = {
        "objectives": objectives.LAWS,
        "metrics": metrics.LAWS,
        "formats": formats.LAWS,
        "sections": sections.LAWS,
    }
    for one in laws[group]:
        yield one.__name__, partial(one, row)
    if group == "sections" and sweep_folder is not None:
        yield sections.draws.__name__, partial(sections.draws, row, sweep_folder)


def failures(checks: Iterable[Check]) -> Iterator[str]:
    """A line for each law that does not hold, or whose row raises."""
    for name, check in checks:
        try:
            check()
        except Broken as broken:
            yield f"{name}: {broken}"
        except Exception as error:  # whatever a plug-in's function may raise
            yield f"{name}: {type(error).__name__}: {error}"


def _plain(text: str) -> str:
    return text.lower().replace("_", "-")

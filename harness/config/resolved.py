"""The resolved spec as plain data for `sweep.yaml`: every default written out. Imports no torch."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from harness.config.cells import Entry, resolve_objective
from harness.config.grid import Block
from harness.identity import plain
from harness.objectives.registry import OBJECTIVES


def resolved_spec(name: str, question: str, blocks: Iterable[Block]) -> dict[str, Any]:
    """The mapping whose `load_sweep` gives the same runs. An axis stays a list, a single value stands alone."""
    main, *others = blocks
    out = {"name": name, "question": question, **_block(main)}
    if others:
        out["also"] = [_block(block) for block in others]
    if main.rounds is not None:
        for also in out.get("also", ()):
            del also["seeds"]  # the whole sweep's
    return out


def _block(block: Block) -> dict[str, Any]:
    out: dict[str, Any] = {section: _axes(axes) for section, axes in block.sections.items()}
    del out["training"]["epochs" if block.sections["training"]["epochs"] == [0.0] else "steps"]
    out["objectives"] = [cell for entry in block.objectives for cell in _objective(entry, block.world)]
    out["corruptions"] = [cell for entry in block.corruptions for cell in _corruption(entry)]
    out["seeds"] = list(block.seeds)
    if block.rounds is not None:
        out["seeds"] = {"min": block.rounds.least, "max": block.rounds.most, "stop": "settled"}
    if tuple(block.replicas) != (0,):
        out["replica"] = list(block.replicas)
    out["device"] = block.device
    return out


def _axes(axes: Mapping[str, Any]) -> dict[str, Any]:
    return {key: plain(values[0] if len(values) == 1 else list(values)) for key, values in axes.items()}


def _entry(entry: Entry) -> dict[str, Any]:
    return _axes(dict(entry.axes))


def _corruption(entry: Entry) -> list[dict[str, Any]]:
    """The entry as written; a `sequence` cell by cell, since its steps are no axis any more."""
    cells = list(entry.cells()) if "sequence" in dict(entry.axes) else []
    return [plain(cell) for cell in cells] or [_axes(dict(entry.axes))]


def _objective(entry: Entry, world: bool) -> list[dict[str, Any]]:
    """One mapping per preset and objective name of the entry, with what the spec left to presets and defaults."""
    axes = dict(entry.axes)
    if "mixture" in axes:
        return [_entry(entry)]
    out = []
    for preset, name in itertools.product(axes.get("preset", (None,)), axes["name"]):
        first = {key: values[0] for key, values in axes.items()} | {"name": name, "preset": preset}
        spec = resolve_objective(first, world)
        given = {key: value for key, value in _entry(entry).items() if key not in ("name", "preset")}
        absolute = {ratio for key, ratio in OBJECTIVES[spec.name].ratios.items() if key in given}
        defaults = {key: value for key, value in spec.hyperparameters if key not in {*given, *absolute}}
        out.append({"name": spec.name, **given, **plain(defaults)})
    return out

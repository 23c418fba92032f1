"""The facts of a sweep on real pairs that bear on every number: how many pairs, seeds, what was dropped and cut."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.metrics.statistics import item_detectable_effect
from harness.report.data.report_data import ReportData
from harness.report.render.blocks import Content, Lines, Table, fields, present
from harness.report.render.text import number, quantity, visible
from harness.report.sections.row import Section
from harness.text import without_places

_SEED = re.compile(r"seed \d+: (?P<text>.*?)( \(rows? [\d, .]*\))?", re.DOTALL)


def dataset(data: ReportData) -> Content | None:
    """What was trained on and measured on; None in the embedded world."""
    if not data.sweep.private:
        return None
    findings = read_preflight(data.sweep.folder)
    warned = [f"{one['severity']}: {visible(_text(one))}" for one in findings if one["severity"] != "note"]
    noted = [visible(_text(one)) for one in findings if one["severity"] == "note"]
    return Content(
        "What do these numbers rest on?",
        "Pairs read, dropped and cut, and the smallest difference that this sweep can detect.",
        present(_numbers(data), Lines(tuple(warned), "Before training") if warned else None),
        present(
            Lines(tuple(noted)) if noted else None, Lines(tuple(visible(line) for line in by_count(data.sweep.notes)))
        ),
        "What was read, dropped and cut",
    )


def _numbers(data: ReportData) -> Table:
    items = sorted({n for cell in data.cells for n in cell.items() or ()})
    per_seed = f"{items[0]}" if items and items[0] == items[-1] else f"{items[0]} to {items[-1]}" if items else "none"
    read = next((note for note in data.sweep.notes if " rows read, " in note), "")
    trained = [note for note in by_count(data.sweep.notes) if "pairs to train on" in note]
    detectable = sorted(c.mde for c in data.contrasts if c.mde is not None and math.isfinite(c.mde))
    rows = [
        fields("rows", visible(read) or "not stated"),
        fields("training pairs", visible(trained[0]) if trained else "not stated"),
        fields("held-out pairs measured (n per seed)", per_seed),
        fields("seeds", f"{len(data.sweep.seeds)}, paired"),
    ]
    if detectable:
        middle = number(detectable[len(detectable) // 2])
        rows.append(fields("minimum detectable difference, power .8", f"{middle} in ranking accuracy (median)"))
    elif items:
        least = number(item_detectable_effect(0.0, items[0]))
        text = f"not below {least} in ranking accuracy, by the pairs of one seed alone"
        rows.append(fields("minimum detectable difference, power .8", text))
    return Table("n, seeds and detectable difference", ("", ""), tuple(rows))


def by_count(notes: Sequence[str]) -> list[str]:
    """Notes with those of single seeds joined: `277 to 301 chosen responses cut, their start is kept (3 seeds)`."""
    alone: list[str] = []
    joined: dict[str, list[list[int]]] = {}
    for note in notes:
        of_seed = _SEED.fullmatch(note)
        if of_seed is None:
            alone.append(note)
        else:
            numbers = [int(number) for number in re.findall(r"\d+", of_seed["text"])]
            joined.setdefault(re.sub(r"\d+", chr(0), of_seed["text"]), []).append(numbers)
    for text, counts in joined.items():
        spans = [(min(column), max(column)) for column in zip(*counts, strict=True)]
        for low, high in spans:
            text = text.replace(chr(0), str(low) if low == high else f"{low} to {high}", 1)
        alone.append(f"{text} ({quantity(len(counts), 'seed')})")
    return alone


def read_preflight(folder: Path) -> list[dict[str, Any]]:
    """What `preflight.json` of a sweep's folder holds; empty where there is none or it cannot be read."""
    path = folder / "preflight.json"
    if not path.is_file():
        return []
    try:
        findings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return []
    return [one for one in findings if isinstance(one, dict) and {"severity", "text"} <= one.keys()]


def _text(finding: dict[str, Any]) -> str:
    """A finding without the place of its file on this machine."""
    field, fix = finding.get("field") or "", finding.get("fix") or ""
    return without_places(f"{field + ': ' if field else ''}{finding['text']}{'; ' + fix if fix else ''}")


ROWS = (Section("data", "Data", dataset),)

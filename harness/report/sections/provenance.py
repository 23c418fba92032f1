"""Where the numbers come from: spec, digests, code, versions, machines, data and how many runs ended how."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PureWindowsPath  # splits at both kinds of slash
from typing import Any

from harness.identity import content_hash
from harness.plugins import short
from harness.report.data.report_data import ReportData
from harness.report.data.sweep import Sweep
from harness.report.render.blocks import Block, Content, Lines
from harness.report.render.text import quantity, visible
from harness.report.sections.row import Section
from harness.text import without_places

LONGEST_SPEC = 120  # lines


def provenance(data: ReportData) -> Content:
    """Run keys, one digest over keys, configs and results, versions and commits met; the spec behind a fold."""
    notes = (*(visible(note) for note in data.sweep.notes), *run_notes(data.sweep))
    more: list[Block] = [Lines(notes, "Notes on data and plan")] if notes else []
    spec = data.sweep.folder / "sweep.yaml"
    if spec.is_file():
        lines = spec.read_text(encoding="utf-8").splitlines()
        cut = [f"\u2026 {len(lines) - LONGEST_SPEC} more lines in sweep.yaml"] if len(lines) > LONGEST_SPEC else []
        text = [visible_indented(_file_name(line)) for line in lines[:LONGEST_SPEC]] + cut
        more.append(Lines(tuple(text), "sweep.yaml, resolved"))
    return Content(
        "Provenance", "", (Lines((*_lines(data.sweep), data.texts.sentence)),), tuple(more), "Notes and spec"
    )


def _file_name(line: str) -> str:
    """A line of the spec with names of files alone: where a file lay is no part of what was asked."""
    head, key, path = line.partition("path: ")
    return head + key + PureWindowsPath(path).name if key and not head.strip(" -") else without_places(line)


def visible_indented(line: str) -> str:
    """A line of YAML with its indentation as no-break spaces, everything else as `visible`."""
    body = line.lstrip(" ")
    return "\u00a0" * (len(line) - len(body)) + visible(body)


def run_notes(sweep: Sweep) -> tuple[str, ...]:
    """Notes that the runs' own provenance makes (dropped or truncated rows), each once, with the number of runs."""
    counts: dict[str, int] = {}
    for run in sweep.runs:
        for note in run.provenance.get("notes") or ():
            text = visible(without_places(note))
            counts[text] = counts.get(text, 0) + 1
    return tuple(f"{note} ({quantity(counts[note], 'run')})" for note in sorted(counts))


def _lines(sweep: Sweep) -> tuple[str, ...]:
    finished = sorted((run.key, run.status, dict(run.result["results"])) for run in sweep.runs if run.result)
    keys = sorted(run.key for run in sweep.runs)
    lines = [
        f"{sweep.status_line}.",
        f"{quantity(len(set(keys)), 'run key')}; digest of the keys {content_hash(keys)[:16]}, of keys, states and"
        f" results {content_hash(finished)[:16]}.",
    ]
    lines += [f"{name}: {visible(text)}." for name, path in RECORDED.items() if (text := _recorded(sweep, *path))]
    lines += [f"Plug-in: {visible(what)} is {visible(short(plugin))}." for what, plugin in sweep.plugins]
    lines.append("Every run's folder holds its journal, per-example records, provenance and result.")
    return tuple(lines)


RECORDED: Mapping[str, tuple[str, str]] = {
    "Code": ("code", "commit"),
    "Versions": ("code", "versions"),
    "Device": ("machine", "device"),
    "Precision": ("machine", "dtype"),
    "Machine": ("machine", "platform"),
    "Python": ("machine", "python"),
    "Threads": ("machine", "threads"),
}


def _recorded(sweep: Sweep, part: str, name: str) -> str:
    """Every value met in the runs' provenance, sorted; a commit with local changes says so."""
    values: dict[str, set[str]] = {}
    for run in sweep.runs:
        record: Mapping[str, Any] = run.provenance.get(part) or {}
        value = record.get(name)
        if isinstance(value, Mapping):
            for key, version in value.items():
                values.setdefault(str(key), set()).add(str(version))
        elif value not in (None, ""):
            text = str(value)[:12] if name == "commit" else str(value)
            values.setdefault("", set()).add(text + (" with local changes" if record.get("dirty") else ""))
    return "; ".join(f"{key} {', '.join(sorted(distinct))}".strip() for key, distinct in sorted(values.items()))


ROWS = (Section("provenance", "Provenance", provenance),)

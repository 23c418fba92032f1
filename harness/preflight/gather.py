"""The evidence of a sweep's data, and what all checks say of it. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from harness.data.pairs import read_pairs
from harness.data.rows import pack_rows
from harness.data.text import TextData, read_text
from harness.names import plain as as_plain
from harness.preflight.finding import Evidence, Finding
from harness.preflight.table import run_checks
from harness.tracking.store import write_json
from harness.types import DataSpec, InputError, PreferencePair, RunSpec


def sources(runs: Sequence[RunSpec]) -> list[tuple[RunSpec, int]]:
    """The first run of each data set and model, and the largest batch that any run trains with on it."""
    found: dict[object, tuple[RunSpec, int]] = {}
    for run in runs:
        if run.data is not None:
            first, batch = found.get((run.data, run.model), (run, 0))
            found[run.data, run.model] = first, max(batch, run.training.batch_size)
    return list(found.values())


def gather(run: RunSpec, batch: int, text: TextData | None = None) -> Evidence:
    """The evidence of a run's data under its seed, without a reference. Raises InputError for data of no use."""
    data, model = run.data, run.model
    assert data is not None and model is not None
    text = text or read_text(data, model, run.seed)
    rows = pack_rows([text.tokens[pair.id] for pair in text.train])
    return Evidence(data, text, rows, batch, shared=_shared(data, text))


def _shared(data: DataSpec, text: TextData) -> tuple[tuple[PreferencePair, PreferencePair], ...]:
    if not data.heldout_split:
        return ()
    known = {_texts(pair): pair for pair in text.train}
    other = read_pairs(data, None, data.heldout_split).pairs
    return tuple((known[_texts(pair)], pair) for pair in other if _texts(pair) in known)


def _texts(pair: PreferencePair) -> tuple[str, frozenset[str]]:
    return pair.prompt.strip(), frozenset((pair.chosen.strip(), pair.rejected.strip()))


def look_before(runs: Sequence[RunSpec], folder: Path, say: Callable[[str], None]) -> None:
    """Run the checks that need no model before a sweep on real pairs trains; say and keep what they find.

    `preflight.json` of the sweep's folder holds it for the report. Raises InputError with every error found.
    """
    if not sources(runs):
        return
    found = preflight(runs)
    write_json(folder / "preflight.json", [as_plain(finding) for finding in found])
    if errors := [finding.line for finding in found if finding.severity == "error"]:
        raise InputError(*errors)
    for finding in found:
        if finding.severity == "warning":
            say(finding.line)


def preflight(runs: Sequence[RunSpec]) -> list[Finding]:
    """What the checks say of every data set of the runs, each line once; empty for the embedded world."""
    found: dict[Finding, None] = {}
    for run, batch in sources(runs):
        for finding in run_checks(gather(run, batch)):
            found.setdefault(finding)
    return list(found)

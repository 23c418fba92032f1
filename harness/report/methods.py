"""What a report must state about itself: the axes, the statistics, what is missing, where the numbers come from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from harness.measure.statistics import MIN_SEEDS
from harness.names import content_hash
from harness.report.cells import Cell, axis_values
from harness.report.contrasts import Contrast
from harness.report.reading import Sweep, ordered
from harness.report.text import number, plain, quantity, visible
from harness.tracking.store import read_json

DEFINITIONS = (
    (
        "ranking accuracy",
        "share of pairs whose chosen response has the higher log-prob; ties count as wrong",
    ),
    ("reward accuracy", "share of pairs whose margin grew over the reference's (TRL's rewards/accuracies)"),
    ("undesirable zone", "share of pairs with a better margin than the reference's and still ranked wrong"),
    ("chosen, rejected displacement", "mean change of a side's log-prob since the reference, in nats"),
    ("training loss", "mean on one fixed probe set of training pairs with the labels the optimiser saw"),
    (
        "reference margin",
        "log-prob of chosen minus rejected under the reference, in nats; below 0 it is wrong",
    ),
    ("misaligned", "share of the world's topics whose reference prefers the bad answer"),
    ("gold reward", "mean true reward of free-running samples, known in the embedded world"),
    ("KL", "mean over free-running samples of the sequence-level k3 estimate against the reference, in nats"),
)


def asked(sweep: Sweep, cells: Sequence[Cell]) -> tuple[tuple[str, str], ...]:
    """The axes of the sweep with their values, in canonical order."""
    runs = [cell.first for cell in cells]
    base = runs[0].objective if runs else ""
    betas = sorted({run.beta for run in runs if run.beta is not None})
    corruptions = {
        (r.corruption != "none", r.corruption, r.config["corruption"].get("rate") or 0.0, r.corruption_text)
        for r in runs
    }
    kinds = ["clean" if not dirty else visible(text) for dirty, _, _, text in sorted(corruptions)]
    out = [
        ("objectives", ", ".join(visible(name) for name in ordered({run.objective for run in runs}, base))),
        ("betas", ", ".join(map(plain, betas))),
        ("corruption", ", ".join(kinds)),
        ("misaligned", ", ".join(plain(v) for v in sorted({r.misaligned for r in runs if r.misaligned is not None}))),
        ("seeds", f"{len(sweep.seeds)}, paired"),
    ]
    for axis in sweep.axes:
        if axis == "corruption.steps":  # told step by step above
            continue
        values = {repr(v): v for cell in cells if (v := axis_values(cell, [axis])[axis]) is not None}
        out.append((axis, ", ".join(visible(values[k]) for k in sorted(values))))
    return tuple((name, values) for name, values in out if values)


def flags(sweep: Sweep, cells: Sequence[Cell]) -> tuple[str, ...]:
    """What a reader must know before any number: missing seeds, too few seeds."""
    out = []
    short = [cell for cell in cells if cell.done < cell.planned]
    if short:
        least = min(short, key=lambda cell: cell.done / cell.planned)
        out.append(
            f"incomplete: {quantity(len(short), 'cell')} of {len(cells)}; the least has {least.done} of"
            f" {quantity(least.planned, 'seed')}"
        )
    if len(sweep.seeds) == 1:
        out.append("one seed: no intervals")
    elif len(sweep.seeds) < MIN_SEEDS:
        out.append(f"fewer than {MIN_SEEDS} seeds: intervals, no verdicts")
    return tuple(out)


def methods(sweep: Sweep, cells: Sequence[Cell], contrasts: Sequence[Contrast], baseline: str) -> tuple[str, ...]:
    """The statements of method, each with this sweep's own numbers."""
    detectable = sorted(c.mde for c in contrasts if c.mde is not None and math.isfinite(c.mde))
    items = sorted({n for cell in cells for n in cell.items() or ()})
    lines = [
        f"Unit of replication: the seed ({quantity(len(sweep.seeds), 'seed')}). A seed sets world, split, corruption,"
        " starting weights and order of the data and leaves out objective and beta, so every difference is paired.",
        "Intervals: 95 %, Student t over seeds; for accuracies and shares never narrower than Wilson's interval over"
        f" the pairs of one seed ({' to '.join(dict.fromkeys(map(str, (items[0], items[-1]))))} held-out pairs)."
        if items
        else "Intervals: 95 %, Student t over seeds.",
        "Measures are taken on clean held-out pairs, never on corrupted ones; no checkpoint is selected: the last step"
        " counts. The headline names the widest gap it found, which is a choice made after seeing the data.",
    ]
    if contrasts:
        family = contrasts[0].family
        lines.append(
            f"Contrasts: every objective against {visible(baseline)} under the same condition at the beta of the same"
            f" rank, {quantity(family, 'comparison')} in the family; intervals by Bonferroni, p-values by exact sign"
            f" flips and Holm from {MIN_SEEDS} seeds on, alpha .05. Losses are never compared across objectives."
        )
    if detectable:
        lines.append(
            "Smallest true difference in ranking accuracy found with power .8 in that family, by the spread of each"
            f" contrast: {number(detectable[0])} to {number(detectable[-1])},"
            f" median {number(detectable[len(detectable) // 2])}."
        )
    counts = ", ".join(f"{sweep.count(word)} {word}" for word in ("diverged", "failed", "stopped", "pending"))
    lines.append(
        f"Not finished: {counts} of {quantity(len(sweep.runs), 'run')}. Nothing is imputed for them: their cells rest"
        " on the remaining seeds, are marked incomplete, and get no verdict."
    )
    return tuple(lines)


def run_notes(sweep: Sweep) -> tuple[str, ...]:
    """Notes that the runs' own provenance makes (dropped or truncated rows), each once, with the number of runs."""
    counts: dict[str, int] = {}
    for record in _records(sweep):
        for note in record.get("notes") or ():
            counts[str(note)] = counts.get(str(note), 0) + 1
    return tuple(f"{note} ({quantity(counts[note], 'run')})" for note in sorted(counts))


def provenance(sweep: Sweep) -> tuple[str, ...]:
    """Run keys, one digest over keys, configs and results, versions and commits met."""
    finished = sorted((run.key, run.status, dict(run.result["results"])) for run in sweep.runs if run.result)
    keys = sorted(run.key for run in sweep.runs)
    versions: dict[str, set[str]] = {}
    commits: set[str] = set()
    for record in _records(sweep):
        code = record.get("code") or {}
        for name, version in (code.get("versions") or {}).items():
            versions.setdefault(str(name), set()).add(str(version))
        if code.get("commit"):
            commits.add(str(code["commit"])[:12] + (" with local changes" if code.get("dirty") else ""))
    lines = [
        f"{quantity(len(set(keys)), 'run key')}; digest of the keys {content_hash(keys)[:16]},"
        f" of keys, states and results {content_hash(finished)[:16]}"
    ]
    if commits:
        lines.append(f"code: {visible(', '.join(sorted(commits)))}")
    if versions:
        listed = "; ".join(f"{name} {', '.join(sorted(found))}" for name, found in sorted(versions.items()))
        lines.append(f"versions: {visible(listed)}")
    lines.append("Every run's folder holds its journal, per-example records, provenance and result.")
    return tuple(lines)


def _records(sweep: Sweep) -> list[Mapping[str, Any]]:
    """`provenance.json` of every run that left one."""
    paths = [run.folder / "provenance.json" for run in sweep.runs if run.folder is not None]
    return [read_json(path) for path in paths if path.is_file()]

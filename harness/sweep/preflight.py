"""The preflight of a sweep: what is looked at when, and what is done with it.

Before a sweep on real pairs the checks of the data run in the driver, those of the reference in each worker that
prepares it. `harness plan --preflight` runs them all on a part of the pairs, and reckons what the sweep takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.config.load import SweepSpec
from harness.identity import plain
from harness.preflight.evidence import Opened, gather, sources
from harness.preflight.registry import run_checks
from harness.preflight.row import SEVERITIES, Evidence, Finding, Reference, stop_at_errors
from harness.storage.atomic import write_json
from harness.types import PathModelSpec, RunSpec

if TYPE_CHECKING:
    from harness.inputs.run_inputs import RunInputs

FILE = "preflight.json"


def check_data(runs: Sequence[RunSpec], folder: Path, say: Callable[[str], None]) -> None:
    """The checks of the data before anything is built; `preflight.json` in the sweep's folder keeps what they find.

    Says warnings. Raises InputError with every error found. Nothing is done for the embedded world.
    """
    evidence = [gather(run, batch, _reading(run)) for run, batch in sources(runs)]
    if not evidence:
        return
    found = _once(run_checks(one) for one in evidence)
    write_json(folder / FILE, [plain(finding) for finding in found])
    stop_at_errors(found)
    for finding in found:
        if finding.severity == "warning":
            say(finding.line)


def _reading(run: RunSpec) -> Opened | None:
    if not isinstance(run.model, PathModelSpec):
        return None
    from harness.inputs.text import model_reading

    return model_reading


def _once(parts: Any) -> list[Finding]:
    found = dict.fromkeys(finding for part in parts for finding in part)
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))


def preflight(sweep: SweepSpec, seconds: float, out: Path) -> dict[str, Any]:
    """Every check on every data set of a sweep, the reference's where its model stands already, and what it takes.

    `findings`, worst first, and `estimate`, as plain data: what `harness plan --preflight --json` adds. `seconds` are
    the plan's, of one core. Raises InputError for data of no use.
    """
    from harness.preflight.estimate import estimate
    from harness.preflight.reference import closed_forms

    parts, seen = [], []
    for run, batch in sources(sweep.runs):
        evidence = gather(run, batch, _reading(run))
        inputs = _inputs(run, out / "cache")
        if inputs is None:
            text = "the reference is built when the sweep starts; its checks run then, before any training"
            parts.append([Finding("note", "reference", text, evidence.place)])
        else:
            reference = _scored(run, evidence, inputs)
            evidence = replace(evidence, reference=reference)
            own = [other.objective for other in sweep.runs if (other.data, other.model) == (run.data, run.model)]
            parts.append(closed_forms(reference, own, evidence.place))
        parts.append(run_checks(evidence))
        seen.append(evidence)
    total, limits = estimate(sweep.runs, seen, sweep.lm_eval, seconds, out)
    findings = _once([*parts, limits])
    return {"findings": [{**plain(one), "line": one.line} for one in findings], "estimate": total}


def told(report: Mapping[str, Any]) -> list[str]:
    """The report of `preflight` as lines: the estimate, then what was found, or that nothing was."""
    from harness.preflight.estimate import told as estimated

    lines = [finding["line"] for finding in report["findings"]]
    return [f"takes     {estimated(report['estimate'])}", *(lines or ["preflight: no problems found in the data"])]


def _inputs(run: RunSpec, cache: Path) -> RunInputs | None:
    """The inputs of a run whose reference needs no building; None where it does."""
    from harness.inputs.encoded import open_inputs
    from harness.inputs.references import as_loaded, load_weights, reference_key

    if as_loaded(run) or load_weights(cache, reference_key(run)) is not None:
        return open_inputs(run, cache)
    return None


def _scored(run: RunSpec, evidence: Evidence, inputs: RunInputs) -> Reference:
    """Some pairs of both sides scored as the reference table scores them, and as training does."""
    from harness.models.reference import pair_keys, score_responses
    from harness.worker.check_reference import CHECKED_PAIRS, reference_evidence
    from harness.worker.protocol import pick_device

    device = pick_device(run.device)
    pairs = [*evidence.text.train[:CHECKED_PAIRS], *evidence.text.heldout[:CHECKED_PAIRS]]
    tokens = [evidence.text.tokens[pair.id] for pair in pairs]
    table = score_responses(inputs.architecture, inputs.weights, tokens, device)
    stored = np.stack([table.sums(keys) for keys in pair_keys(tokens)], -1)
    return reference_evidence(inputs, pairs, stored, device)

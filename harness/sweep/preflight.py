"""The preflight of a sweep: what is looked at when, and what is done with it.

Before a sweep on real pairs the checks of the data run in the driver, those of the reference in each worker that
prepares it. `harness plan --preflight` runs them all on a part of the pairs, and reckons what the sweep takes.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.config.load import SweepSpec
from harness.data.mythworld.language import LANGUAGES, PROMPT_TOKENS
from harness.identity import plain
from harness.objectives.budget import budget
from harness.preflight.evidence import Opened, gather, sources
from harness.preflight.registry import run_checks
from harness.preflight.row import SEVERITIES, Evidence, Finding, Reference, stop_at_errors
from harness.storage.atomic import write_json
from harness.sweep.estimates import RATE, pack_bytes, run_bytes, step_shape
from harness.sweep.packing import NO_COUNTS, Source, counts_of, scored_first, source_of
from harness.sweep.resources import memory
from harness.sweep.token_counts import TokenCounts
from harness.text import bytes_text
from harness.types import LmEvalSpec, PathModelSpec, RunSpec

if TYPE_CHECKING:
    from harness.inputs.run_inputs import RunInputs

FILE = "preflight.json"


def check_data(runs: Sequence[RunSpec], folder: Path, say: Callable[[str], None]) -> None:
    """The checks of the data before anything is built; `preflight.json` in the sweep's folder keeps what they find.

    Says warnings. Raises InputError with every error found. Nothing is done for the embedded world.
    """
    evidence = [gather(run, batch, _reading(run), kinds) for run, batch, kinds in sources(runs)]
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
    """Every check on every data set of a sweep, the reference's where its model is built already, and what it takes.

    `findings`, worst first, and `estimate`, as plain data: what `harness plan --preflight --json` adds. `seconds` are
    the plan's, of one core. Raises InputError for data of no use.
    """
    from harness.preflight.step_zero import closed_forms

    parts, row_tokens = [], {}
    for run, batch, kinds in sources(sweep.runs):
        evidence = gather(run, batch, _reading(run), kinds)
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
        row_tokens[run.data] = evidence.mean_row()
    total = estimate(sweep.runs, row_tokens, sweep.lm_eval, seconds, counts_of(sweep.runs, out / "cache"))
    findings = _once([*parts, limits(total, out)])
    return {"findings": [{**plain(one), "line": one.line} for one in findings], "estimate": total}


def _world_row(run: RunSpec) -> float:
    """Tokens of a row of the embedded world, which all have one width."""
    assert run.world is not None
    return float(PROMPT_TOKENS + 2 * LANGUAGES[run.world.version].response_tokens)


def estimate(
    runs: Sequence[RunSpec],
    row_tokens: Mapping[Any, float],
    lm_eval: LmEvalSpec | None,
    seconds: float,
    counts: Mapping[Source, TokenCounts | None] = NO_COUNTS,
) -> dict[str, Any]:
    """Totals and the costliest run as plain data. `row_tokens`: mean tokens of a training row, by data section."""
    tokens, peaks, disk = [], [], []
    for run in runs:
        width = row_tokens.get(run.data) or _world_row(run)
        training = budget(run.objective, run.training)
        tokens.append(training.steps * training.batch_size * width)
        peaks.append(pack_bytes(step_shape(run, counts.get(source_of(run))), 1))
        disk.append(run_bytes(run, lm_eval))
    return {
        "runs": len(runs),
        "tokens": sum(tokens),
        "tokens_a_run": max(tokens),
        "memory_a_run": max(peaks),
        "disk": sum(disk),
        "disk_a_run": max(disk),
        "seconds": seconds,
        "seconds_a_run": seconds / len(runs),
    }


def limits(total: Mapping[str, Any], out: Path) -> list[Finding]:
    """Findings where memory or disk are too small for a sweep of that estimate."""
    place = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    free, present = shutil.disk_usage(place).free, memory()
    findings = []
    if total["disk"] > free:
        text = f"the sweep writes about {bytes_text(total['disk'])} and {bytes_text(free)} are free under --out"
        fix = "fewer runs, evaluation.checkpoints or samples, evaluation.keep: none, or another --out"
        findings.append(Finding("error", "disk", text, fix=fix))
    if total["memory_a_run"] > present:
        need = bytes_text(total["memory_a_run"])
        text = f"a run takes about {need} of memory and this machine has {bytes_text(present)}"
        fix = "a smaller training.batch_size, data.max_length or model, or model.lora; on a GPU its own memory counts"
        findings.append(Finding("warning", "memory", text, fix=fix))
    return findings


def report_lines(report: Mapping[str, Any]) -> list[str]:
    """The report of `preflight` as lines: the estimate, then the findings, or that there are none."""
    total, lines = report["estimate"], [finding["line"] for finding in report["findings"]]
    cost = (
        f"takes     about {total['tokens']:.3g} tokens trained on in all ({total['tokens_a_run']:.3g} per run), "
        f"{bytes_text(total['memory_a_run'])} of memory per run, {bytes_text(total['disk'])} on disk "
        f"({bytes_text(total['disk_a_run'])} per run), {total['seconds'] / 60:.3g} core-minutes "
        f"({total['seconds_a_run']:.3g} s per run)"
    )
    return [cost, *(lines or ["preflight: no problems found in the data"])]


def _inputs(run: RunSpec, cache: Path) -> RunInputs | None:
    """The inputs of a run whose reference needs no building; None where it does."""
    from harness.inputs.encoded import open_inputs
    from harness.inputs.reference_models import as_loaded, load_weights, reference_key

    if as_loaded(run) or load_weights(cache, reference_key(run)) is not None:
        return open_inputs(run, cache)
    return None


def measure_rate(sweep: SweepSpec, out: Path) -> None:
    """Time some steps of the sweep's first model on data that needs no building, and keep the rate in the cache."""
    run = next((run for run in sweep.runs if run.data is not None), None)
    inputs = None if run is None else _inputs(run, out / "cache")
    if run is None or inputs is None:
        return
    from harness.preflight.speed import PAIRS, training_rate
    from harness.worker.prepare import pick_device

    pairs = [inputs.encode(pair) for pair in inputs.train[:PAIRS]]
    rate, weights = training_rate(inputs.architecture, inputs.weights, pairs, pick_device(run.device))
    (out / "cache").mkdir(mode=0o700, parents=True, exist_ok=True)
    write_json(out / "cache" / RATE, {"flops_per_second": rate, "weights": weights})


def _scored(run: RunSpec, evidence: Evidence, inputs: RunInputs) -> Reference:
    """Some pairs of both sides scored as the reference table scores them, and as training does."""
    from harness.inputs.reference_cache import stored_table
    from harness.models.reference_logps import pair_keys, score_responses
    from harness.worker.check_reference import CHECKED_BY_WORKER, CHECKED_PAIRS, reference_evidence
    from harness.worker.prepare import pick_device

    device = pick_device(run.device)
    count = CHECKED_BY_WORKER if scored_first(run) else CHECKED_PAIRS
    pairs = [*evidence.text.train[:count], *evidence.text.heldout[:count]]
    tokens = [evidence.text.tokens[pair.id] for pair in pairs]
    frozen = inputs.reference
    if inputs.stored is not None:
        # A file may hold no more than the sweep needs.
        keys = list(zip(*pair_keys(tokens), strict=True))
        held = [inputs.stored.sums.keys() >= {*pair} for pair in keys]
        if not any(held):
            inputs.stored.check_holds({key for pair in keys for key in pair})
        pairs, tokens = list(compress(pairs, held)), list(compress(tokens, held))
        table = stored_table(inputs.stored, tokens)
    else:
        table = score_responses(frozen.architecture, frozen.weights, tokens, device, inputs.ladder)
    stored = np.stack([table.sums(keys) for keys in pair_keys(tokens)], -1)
    return reference_evidence(inputs, pairs, stored, device)

"""The preflight of a sweep: what is looked at when, and what is done with it.

Before a sweep on real pairs the checks of the data run in the driver, those of the reference in each worker that
prepares it. `harness plan --preflight` runs them all on a part of the pairs, and reckons what the sweep takes.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.config.load import SweepSpec
from harness.data.mythworld import tokens as mythtokens
from harness.data.pairs import source
from harness.identity import plain
from harness.objectives.budget import budget
from harness.preflight.evidence import Opened, gather, sources
from harness.preflight.reference import differing
from harness.preflight.registry import run_checks
from harness.preflight.row import SEVERITIES, Evidence, Finding, Reference
from harness.storage.atomic import write_json
from harness.sweep.estimates import pack_bytes, run_bytes, step_shape
from harness.sweep.resources import memory
from harness.text import bytes_text
from harness.types import InputError, LmEvalSpec, ObjectiveSpec, PathModelSpec, PreferencePair, RunSpec

if TYPE_CHECKING:
    import torch

    from harness.inputs.run_inputs import RunInputs
    from harness.worker.datasets import EncodedInputs

FILE = "preflight.json"
LOOKED_AT = 64  # pairs whose log-probs are computed twice


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


def stop_at_errors(found: Sequence[Finding]) -> None:
    """Raises InputError with the lines of all errors among the findings."""
    if errors := [finding.line for finding in found if finding.severity == "error"]:
        raise InputError(*errors)


def check_prepared(run: RunSpec, prepared: EncodedInputs, device: torch.device) -> None:
    """Before a worker trains on real pairs: policy and reference agree, losses have their closed forms.

    Raises InputError for what must not be trained on.
    """
    if run.data is None:
        return
    setting = prepared.setting
    pairs = setting.train[:LOOKED_AT]
    stored = np.stack([side[: len(pairs)] for side in prepared.block.reference], -1)
    stop_at_errors(_step_zero(run, _reference(setting, pairs, stored, device), [run.objective]))


def _step_zero(run: RunSpec, reference: Reference, objectives: Sequence[ObjectiveSpec]) -> list[Finding]:
    from harness.preflight.step_zero import closed_forms

    assert run.data is not None
    place = source(run.data)
    return [*differing(reference, place), *closed_forms(reference, objectives, place)]


def _reference(
    setting: RunInputs, pairs: Sequence[PreferencePair], stored: np.ndarray, device: torch.device
) -> Reference:
    """Pairs with their stored log-probs `(n, 2)`, and those of the policy before its first step."""
    from harness.preflight.step_zero import live_logps

    tokens = [setting.encode(pair) for pair in pairs]
    live = live_logps(setting.architecture, setting.weights, tokens, device)
    lengths = np.array([[len(one.chosen), len(one.rejected)] for one in tokens])
    dtype = setting.architecture.source.dtype if setting.architecture.source is not None else "float32"
    return Reference(tuple(pairs), stored, live, lengths, dtype)


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
    from harness.preflight.step_zero import closed_forms

    parts, row_tokens = [], {}
    for run, batch in sources(sweep.runs):
        evidence = gather(run, batch, _reading(run))
        setting = _standing(run, out / "cache")
        if setting is None:
            text = "the reference is built when the sweep starts; its checks run then, before any training"
            parts.append([Finding("note", "reference", text, evidence.place)])
        else:
            reference = _scored(run, evidence, setting)
            evidence = replace(evidence, reference=reference)
            own = [other.objective for other in sweep.runs if (other.data, other.model) == (run.data, run.model)]
            parts.append(closed_forms(reference, own, evidence.place))
        parts.append(run_checks(evidence))
        row_tokens[run.data] = evidence.mean_row()
    total = estimate(sweep.runs, row_tokens, sweep.lm_eval, seconds)
    findings = _once([*parts, limits(total, out)])
    return {"findings": [{**plain(one), "line": one.line} for one in findings], "estimate": total}


def estimate(
    runs: Sequence[RunSpec], row_tokens: Mapping[Any, float], lm_eval: LmEvalSpec | None, seconds: float
) -> dict[str, Any]:
    """Totals and the costliest run as plain data. `row_tokens`: mean tokens of a training row, by data section."""
    tokens, peaks, disk = [], [], []
    for run in runs:
        width = row_tokens.get(run.data) or float(mythtokens.PROMPT_TOKENS + 2 * mythtokens.RESPONSE_TOKENS)
        training = budget(run.objective, run.training)
        tokens.append(training.steps * training.batch_size * width)
        peaks.append(pack_bytes(step_shape(run), 1))
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


def _standing(run: RunSpec, cache: Path) -> RunInputs | None:
    """The setting of a run whose reference needs no building; None where it does."""
    from harness.inputs.references import as_loaded, load_weights, reference_key
    from harness.worker.prepare import open_setting

    if as_loaded(run) or load_weights(cache, reference_key(run)) is not None:
        return open_setting(run, cache)
    return None


def _scored(run: RunSpec, evidence: Evidence, setting: RunInputs) -> Reference:
    """Some pairs of both sides scored as the reference table scores them, and as training does."""
    from harness.models.reference import pair_keys, score_responses
    from harness.worker.protocol import pick_device

    device = pick_device(run.device)
    pairs = [*evidence.text.train[:LOOKED_AT], *evidence.text.heldout[:LOOKED_AT]]
    tokens = [evidence.text.tokens[pair.id] for pair in pairs]
    table = score_responses(setting.architecture, setting.weights, tokens, device, setting.ladder)
    stored = np.stack([table.sums(keys) for keys in pair_keys(tokens)], -1)
    return _reference(setting, pairs, stored, device)

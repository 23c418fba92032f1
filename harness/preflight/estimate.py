"""What a sweep takes: tokens, memory, disk and time, per run and in all. Imports no torch.

Sizes are reckoned from shapes and from what runs were measured to write; they are right to a factor of two or so.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.model_files.location import ModelShape, model_shape
from harness.objectives.budget import budget
from harness.preflight.row import Evidence, Finding
from harness.text import bytes_text
from harness.types import LmEvalSpec, LoraSpec, PathModelSpec, RunSpec

STATE_BYTES = 16  # a trained parameter: weight, gradient and two moments in fp32
ACTIVATIONS = 16  # fp32 numbers kept for the backward pass a token, layer and hidden unit
RECORD_BYTES, SAMPLE_BYTES, DOC_BYTES = 100, 720, 2600  # measured: a row of examples, a sample, a benchmark document
FIXED_BYTES = 40_000  # journal, provenance, result and the worst pairs of a run
WORLD_TOKENS = 30  # of a row of the embedded world


@dataclass(frozen=True, slots=True)
class Estimate:
    """One run: `tokens` trained on, `memory` and `disk` in bytes."""

    tokens: float
    memory: float
    disk: float


def parameters(shape: ModelShape, tied: bool = True) -> int:
    """Parameters of a decoder of this shape, its norms left out."""
    layer = shape.hidden_size * (4 * shape.hidden_size + 3 * shape.intermediate_size)
    return (1 if tied else 2) * shape.vocab_size * shape.hidden_size + shape.layers * layer


def estimate_run(run: RunSpec, row_tokens: float, documents: int) -> Estimate:
    """A run that trains on rows of `row_tokens` tokens (prompt and both responses) and is evaluated on `documents`."""
    training, evaluation = budget(run.objective, run.training), run.evaluation
    shape = _shape(run)
    size = parameters(shape, tied=run.world is not None or not isinstance(run.model, PathModelSpec))
    lora = run.model.lora if isinstance(run.model, PathModelSpec) else None
    width = 2 if isinstance(run.model, PathModelSpec) and run.model.dtype == "bfloat16" else 4
    trained = _adapters(shape, lora) if lora is not None else size
    step_tokens = training.batch_size * row_tokens
    activations = step_tokens * (ACTIVATIONS * shape.layers * shape.hidden_size + 2 * shape.vocab_size) * width
    measured = evaluation.heldout + evaluation.probe + evaluation.ood
    kept = trained * 4 if evaluation.keep in ("final", "best") or (_from_path(run) and evaluation.keep != "none") else 0
    samples = evaluation.samples * SAMPLE_BYTES
    disk = FIXED_BYTES + evaluation.checkpoints * measured * RECORD_BYTES + samples + kept + documents * DOC_BYTES
    return Estimate(
        tokens=float(training.steps * step_tokens),
        memory=float((size * width if lora is not None else 0) + trained * STATE_BYTES + activations),
        disk=float(disk),
    )


def _from_path(run: RunSpec) -> bool:
    return isinstance(run.model, PathModelSpec)


def _shape(run: RunSpec) -> ModelShape:
    if run.world is not None:
        own = run.world
        return ModelShape(64, own.hidden_size, own.layers, own.heads, own.intermediate_size)
    assert run.model is not None
    return model_shape(run.model)


def _adapters(shape: ModelShape, lora: LoraSpec) -> int:
    """Parameters of adapters on every linear layer, the most that `lora` can have."""
    widths = 8 * shape.hidden_size + 3 * (shape.hidden_size + shape.intermediate_size)
    return shape.layers * lora.rank * widths


def estimate(
    runs: Sequence[RunSpec], evidence: Sequence[Evidence], lm_eval: LmEvalSpec | None, seconds: float, out: Path
) -> tuple[dict[str, Any], list[Finding]]:
    """Totals and the dearest run as plain data, and findings where memory or disk will not do.

    `seconds` are those of all stages on one core, as the plan has them.
    """
    rows = {one.data: _mean_row(one) for one in evidence}
    found = [
        estimate_run(run, rows[run.data] if run.data is not None else WORLD_TOKENS, _documents(run, lm_eval))
        for run in runs
    ]
    total = {
        "runs": len(runs),
        "tokens": sum(one.tokens for one in found),
        "tokens_a_run": max(one.tokens for one in found),
        "memory_a_run": max(one.memory for one in found),
        "disk": sum(one.disk for one in found),
        "disk_a_run": max(one.disk for one in found),
        "seconds": seconds,
        "seconds_a_run": seconds / len(runs),
    }
    return total, _limits(total, out)


def _documents(run: RunSpec, lm_eval: LmEvalSpec | None) -> int:
    """Benchmark documents of a run; a task without a limit counts as 1,000, the built-in one as its held-out pairs."""
    if lm_eval is None:
        return 0
    sizes = [run.evaluation.heldout if task == "preference" else 1000 for task in lm_eval.tasks]
    return sum(min(size, lm_eval.limit or size) for size in sizes)


def _mean_row(e: Evidence) -> float:
    """Mean tokens of a training row: prompt and both responses."""
    lengths = [len(own.prompt) + len(own.chosen) + len(own.rejected) for _, own in e.token_pairs()]
    return sum(lengths) / max(len(lengths), 1)


def _limits(total: Mapping[str, Any], out: Path) -> list[Finding]:
    place = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    findings = []
    if total["disk"] > free:
        text = f"the sweep writes about {bytes_text(total['disk'])} and {bytes_text(free)} are free under --out"
        fix = "fewer runs, evaluation.checkpoints or samples, evaluation.keep: none, or another --out"
        findings.append(Finding("error", "disk", text, fix=fix))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if total["memory_a_run"] > memory:
        asked, there = bytes_text(total["memory_a_run"]), bytes_text(memory)
        text = f"a run takes about {asked} of memory and this machine has {there}"
        fix = "a smaller training.batch_size, data.max_length or model, or model.lora; on a GPU its own memory counts"
        findings.append(Finding("warning", "memory", text, fix=fix))
    return findings


def told(total: Mapping[str, Any]) -> str:
    """The estimate in one line."""
    minutes = total["seconds"] / 60
    return (
        f"about {total['tokens']:.3g} tokens trained on in all ({total['tokens_a_run']:.3g} a run), "
        f"{bytes_text(total['memory_a_run'])} of memory a run, {bytes_text(total['disk'])} on disk "
        f"({bytes_text(total['disk_a_run'])} a run), {minutes:.3g} core-minutes ({total['seconds_a_run']:.3g} s a run)"
    )

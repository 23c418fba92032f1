"""Benchmark results of a model, in its folder: `lm_eval.jsonl`, a journal, and `samples_<task>.jsonl`.

Written after a run's result is sealed, so the journal states the SHA-256 of the samples. Imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.identity import file_sha256
from harness.storage.atomic import write_atomic
from harness.storage.journal import JournalDamaged, encode, read_journal
from harness.text import slug

EVALUATIONS = "lm_eval.jsonl"
PREFIX = "lm_eval"
REFERENCES = "references"  # in a sweep's folder: a folder for each reference that was evaluated


@dataclass(frozen=True, slots=True)
class Change:
    """A metric less the reference's on the same documents, with its paired 95 % interval over documents.

    `both`: for shares, the share of documents that count under both (None for other metrics).
    """

    mean: float
    low: float
    high: float
    reference: float
    both: float | None = None


@dataclass(frozen=True, slots=True)
class Evaluated:
    """One task on one model. `change` is empty for a reference itself. `weights` names what was evaluated.

    `library` is lm-eval's version, `version` the task's; `config_hash` and `data_hash` are of its settings and
    documents; `file` holds the per-sample results, with their SHA-256.
    """

    task: str
    version: str
    library: str
    n: int
    limit: int | None
    num_fewshot: int
    metrics: Mapping[str, float]
    higher_is_better: Mapping[str, bool]
    config_hash: str
    data_hash: str
    weights: str
    file: str = ""
    sha256: str = ""
    change: Mapping[str, Change] = field(default_factory=dict)


def points(evaluated: Evaluated) -> dict[str, float]:
    """The metric points of one task, `lm_eval/<task>/<metric>`, with `<metric>_change` against the reference."""
    values = {f"{PREFIX}/{evaluated.task}/{name}": value for name, value in evaluated.metrics.items()}
    return values | {
        f"{PREFIX}/{evaluated.task}/{name}_change": change.mean for name, change in evaluated.change.items()
    }


def write_evaluations(
    folder: Path, step: int, results: Iterable[tuple[Evaluated, Sequence[Mapping[str, Any]]]]
) -> tuple[Evaluated, ...]:
    """Add tasks with their per-sample results to a folder, in place of earlier results of the same tasks.

    The journal is published last, so a crash leaves the earlier one, and samples that nothing refers to.
    """
    by_task = {evaluated.task: evaluated for evaluated in read_evaluations(folder)}
    for evaluated, samples in results:
        name = f"samples_{slug(evaluated.task)}.jsonl"
        lines = "".join(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples)
        write_atomic(folder / name, lines.encode("utf-8", "surrogatepass"))
        by_task[evaluated.task] = replace(evaluated, file=name, sha256=file_sha256(folder / name))
    records: list[dict[str, Any]] = []
    for evaluated in by_task.values():
        records.append({"kind": "metrics", "step": step, **points(evaluated)})
        records.append({"kind": "lm_eval", **asdict(evaluated)})
    write_atomic(folder / EVALUATIONS, b"".join(map(encode, records)))
    return tuple(by_task.values())


def read_evaluations(folder: Path) -> tuple[Evaluated, ...]:
    """The benchmark results in a folder. Raises JournalDamaged."""
    if not (folder / EVALUATIONS).exists():
        return ()
    return tuple(_evaluated(record) for record in read_journal(folder / EVALUATIONS) if record["kind"] == "lm_eval")


def _evaluated(record: Mapping[str, Any]) -> Evaluated:
    values = {name: value for name, value in record.items() if name != "kind"}
    return Evaluated(**{**values, "change": {name: Change(**change) for name, change in values["change"].items()}})


def read_samples(folder: Path, evaluated: Evaluated) -> list[dict[str, Any]]:
    """The per-sample results of a task. Raises OSError where they are absent or not as they were written."""
    path = folder / evaluated.file
    if file_sha256(path) != evaluated.sha256:
        raise OSError(f"{path}: does not match its checksum in {EVALUATIONS}")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def damaged_evaluations(folder: Path) -> list[str]:
    """The evaluation files of a folder that are not as they were written, `<file>: what` each."""
    try:
        results = read_evaluations(folder)
    except JournalDamaged:
        return [f"{EVALUATIONS}: damaged"]
    lines = []
    for one in results:
        if not (folder / one.file).exists():
            lines.append(f"{one.file}: missing")
        elif file_sha256(folder / one.file) != one.sha256:
            lines.append(f"{one.file}: does not match its checksum")
    return lines

"""`published.json`: a sweep as others may have it. Configurations, results and provenance; no text, path, host or user.

docs/publish.md is the schema. What is not named here is left out, so a new field of a run stays private until it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.identity import WHEREABOUTS, content_hash
from harness.report.data.run_facts import Facts
from harness.report.data.sweep import STATUSES, Run, Sweep
from harness.storage.atomic import read_json
from harness.types import InputError

PUBLISHED = "published.json"
FORMAT = "preference-harness/published"
VERSION = 1
# What is published of a run's costs and provenance: of each part the names that say nothing of where it ran.
COSTS = ("seconds", "tokens", "flops", "peak_memory", "generated_tokens", "reward_flops", "parameters")
PROVENANCE = {
    "code": ("versions", "commit", "dirty"),
    "data": ("pairs", "sha256", "corrupted", "flipped"),
    "reference": ("sha256", "parameters"),
    "machine": ("python", "platform", "processor", "threads", "device", "dtype", "mode", "tie_tol"),
}
# Texts of a configuration with a slash in them that are names and no paths: hub ids, `id@commit`, packages.
_IDENTITIES = {"hub", "sha256", "plugin"}
_SLASH = re.compile(r"[/\\]")


def published_record(sweep: Sweep, facts: Mapping[str, Facts]) -> dict[str, Any]:
    """The content of `published.json`: of every planned run its configuration, outcome and provenance."""
    record = {
        "format": FORMAT,
        "version": VERSION,
        "name": sweep.name,
        "question": sweep.question,
        "runs": [_run_record(run, facts.get(run.key)) for run in sweep.runs],
    }
    return record | {"sha256": content_hash(record)}


def _run_record(run: Run, facts: Facts | None) -> dict[str, Any]:
    result = run.result or {}
    return {
        "run_key": run.key,
        "status": run.status.value,
        "steps": int(result.get("steps") or 0),
        "config": public_config(run.config),
        "results": {k: v for k, v in (result.get("results") or {}).items() if _is_measure(k, v)},
        "costs": {name: run.costs.get(name) for name in COSTS},
        "provenance": {
            part: {name: value for name, value in (run.provenance.get(part) or {}).items() if name in names}
            for part, names in PROVENANCE.items()
        },
        "pairs": run.pairs if facts is None else {"heldout": facts.items, "ood": facts.ood_items},
    }


def _is_measure(name: str, value: Any) -> bool:
    """Whether a result is a number under a name of ours: one with a slash could hold a value of the data."""
    return "/" not in name and (value is None or isinstance(value, int | float))


def public_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A run's configuration without whereabouts; any other text that might be a path becomes a hash of it."""
    whereabouts = {(section, name) for section, names in WHEREABOUTS.items() for name in names}
    out: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            value = {k: _public(k, v) for k, v in value.items() if (name, k) not in whereabouts}
        out[name] = value if isinstance(value, Mapping) else _public(name, value)
    return out


def public_sweep(sweep: Sweep) -> Sweep:
    """A sweep whose runs have no whereabouts, so that nothing drawn from it names any."""
    runs = tuple(replace(run, config=public_config(run.config)) for run in sweep.runs)
    return replace(sweep, notes=(), runs=runs)


def _public(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _public(k, v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_public(name, part) for part in value]
    if isinstance(value, str) and name not in _IDENTITIES and _SLASH.search(value):
        return f"hash:{content_hash(value)[:12]}"
    return value


def read_published(folder: Path) -> Sweep:
    """The sweep in a published folder. Raises InputError for another version, or a file that was changed."""
    path = folder / PUBLISHED
    record = read_json(path)
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise InputError(f"{path}: not a published sweep; expected what `harness publish` writes")
    if record.get("version") != VERSION:
        raise InputError(f"{path}: version {record.get('version')} of the format; this harness reads {VERSION}")
    if content_hash({name: value for name, value in record.items() if name != "sha256"}) != record.get("sha256"):
        raise InputError(f"{path}: does not match its checksum; publish the sweep again")
    try:
        return sweep_of(record, folder)
    except (ValueError, KeyError, TypeError) as problem:
        raise InputError(f"{path}: not a published sweep ({problem!r})") from problem


def sweep_of(record: Mapping[str, Any], folder: Path) -> Sweep:
    """The sweep that a published record describes."""
    runs = tuple(_run(one) for one in record["runs"])
    return Sweep(folder, str(record["name"]), str(record["question"]), (), runs)


def _run(one: Mapping[str, Any]) -> Run:
    ended = one["status"] in STATUSES[:-1]
    result = {name: one[name] for name in ("run_key", "status", "steps", "results", "costs")} if ended else None
    return Run(one["run_key"], one["config"], result, None, stated={**one["provenance"], "pairs": one["pairs"]})

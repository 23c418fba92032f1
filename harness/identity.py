"""Content hashes, run keys, and the random streams that a seed stands for. Imports no torch."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.types import RunSpec

# Bump when a change of code changes results of an unchanged spec: the key then changes and the runs are made anew.
RECIPE_VERSION = 2  # of the embedded world
DATA_RECIPE_VERSION = 3  # of runs on `data:`

# Where a source lies and what only saves memory: no part of a run's identity, which its content hash stands for.
WHEREABOUTS = {
    "data": ("path",),
    "evaluation": ("prompts",),
    "model": ("path", "revision", "gradient_checkpointing", "reference", "reference_logps"),
}

# Fields that are not mentioned at their default: built-in rows come from no plug-in, and keys that came later leave the
# keys of runs that do not set them as they were.
SILENT = frozenset(("plugin", "answers", "prompts", "prompts_sha256", "shards"))

_SCALARS = frozenset((str, int, float, bool, type(None)))


def plain(value: Any) -> Any:
    """`value` as JSON-ready plain data: dataclasses and mappings become dicts, tuples become lists."""
    if type(value) in _SCALARS:  # most of what a plan of thousands of runs asks about
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        named = ((f, getattr(value, f.name)) for f in dataclasses.fields(value))
        return {f.name: plain(own) for f, own in named if f.name not in SILENT or own != f.default}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value


def canonical_json(value: Any) -> str:
    """One text for one value: sorted keys, no spaces, floats in full, UTF-8, NaN and Infinity refused."""
    return canonical_plain(plain(value))


def canonical_plain(value: Any) -> str:
    """`canonical_json` of what is plain data already, such as what was read from JSON: three times as fast."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_hash(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode("utf-8", "surrogatepass")).hexdigest()


def recipe_version(run: RunSpec) -> int:
    """The recipe of a run: the version of the code that its results come from."""
    return RECIPE_VERSION if run.data is None else DATA_RECIPE_VERSION


def run_key(run: RunSpec) -> str:
    """The run's identity: SHA-256 of its resolved semantic config with recipes; no path, host, device or time.

    Two runs that can only give equal numbers share a key (rate 0 is the clean set, whatever the kind).
    """
    config = plain(run)
    del config["device"]
    for section, names in WHEREABOUTS.items():
        for name in names:
            (config[section] or {}).pop(name, None)
    text = canonical_plain({"recipe": recipe_version(run), **config})
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def stream_seed(root: int, purpose: str, *names: object) -> int:
    """A 63-bit seed for one purpose of one replicate, from names only: objective and beta never enter."""
    return int(content_hash([root, purpose, *map(str, names)])[:16], 16) >> 1


def run_stream(run: RunSpec, purpose: str) -> int:
    """The seed of a stream that belongs to one run of a replicate, not to its data: replicas of a run differ in it."""
    return stream_seed(run.seed, purpose, *(("replica", run.replica) if run.replica else ()))


def uniform(seed: int, kind: str, identity: str) -> float:
    """A number strictly inside (0, 1), fixed by (seed, kind, identity), independent of any order.

    BLAKE2b over a length-prefixed encoding; the top 52 bits x give (x + 1/2) / 2**52 (53 bits could round to 1.0).
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in (str(seed), kind, identity):
        raw = part.encode("utf-8", "surrogatepass")
        digest.update(struct.pack("<Q", len(raw)))
        digest.update(raw)
    return ((int.from_bytes(digest.digest(), "big") >> 12) + 0.5) / 2.0**52

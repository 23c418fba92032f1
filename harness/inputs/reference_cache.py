"""The cache of reference log-probs: safetensors files, by reference model."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock

from harness.data.rows import TokenisedPair
from harness.identity import content_hash
from harness.inputs.run_inputs import RunInputs
from harness.models.reference_logps import ReferenceTable, merged, pair_keys, score_responses
from harness.storage.arrays import load_arrays, once, save_arrays
from harness.storage.logps_file import StoredReference
from harness.types import InputError

# Scores the distinct responses of pairs under the reference of the inputs.
Scorer = Callable[[RunInputs, Sequence[TokenisedPair]], ReferenceTable]

NUMBERS = ("offsets", "values", "pairs", "products")  # the arrays of a table, in the order of its fields


def scorer(cache: Path, device: torch.device) -> Scorer:
    """A scorer that looks in the cache first, by model and dtype.

    Pairs scored in one width are stored by their set, as that is as wide as their longest. With a ladder there is one
    table a model, and what is not in it yet is added.
    """

    def score(inputs: RunInputs, pairs: Sequence[TokenisedPair]) -> ReferenceTable:
        if inputs.stored is not None:
            return stored_table(inputs.stored, pairs)
        chosen, rejected = pair_keys(pairs)
        wanted = {*zip(chosen, rejected, strict=True)}
        path, key = _place(cache, inputs, [] if inputs.ladder else sorted(wanted))

        def load() -> dict[str, np.ndarray] | None:
            arrays = load_arrays(path, key)
            return arrays if arrays is not None and wanted <= _table(arrays).scored.keys() else None

        def build() -> None:
            arrays = load_arrays(path, key)
            known = None if arrays is None else _table(arrays)
            places = zip(chosen, rejected, pairs, strict=True)
            missing = [pair for one, two, pair in places if known is None or (one, two) not in known.scored]
            frozen = inputs.reference
            table = score_responses(frozen.architecture, frozen.weights, missing, device, inputs.ladder)
            table = table if known is None else merged(known, table)
            _save(path, key, table)

        return _table(once(path, load, build))

    return score


def unscored(cache: Path, inputs: RunInputs, pairs: Sequence[TokenisedPair]) -> list[TokenisedPair]:
    """Those of `pairs` that the reference's table does not hold yet; none where a file holds its scores."""
    if inputs.stored is not None:
        return []
    path, key = _place(cache, inputs, [])
    arrays = load_arrays(path, key)
    known: Collection[tuple[str, str]] = () if arrays is None else _table(arrays).scored
    return [pair for pair, *keys in zip(pairs, *pair_keys(pairs), strict=True) if tuple(keys) not in known]


def add(cache: Path, inputs: RunInputs, table: ReferenceTable) -> None:
    """Add what was scored to the table of the inputs' reference."""
    path, key = _place(cache, inputs, [])
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock", mode=0o600):
        arrays = load_arrays(path, key)
        _save(path, key, table if arrays is None else merged(_table(arrays), table))


def _place(cache: Path, inputs: RunInputs, together: Sequence[tuple[str, str]]) -> tuple[Path, str]:
    """The file and the key of a table: of these pairs, or with a ladder of all that this number of threads scores."""
    threads = torch.get_num_threads()
    # The ladder's number goes up when widths change: values move by rounding.
    ladder = "ladder 1" if threads == 1 else ["ladder 1", threads]
    key = content_hash(
        ["reference", inputs.reference_sha256, ladder if inputs.ladder else together, "float32", torch.__version__]
    )
    return cache / "reference" / f"{key[:32]}.safetensors", key


def _save(path: Path, key: str, table: ReferenceTable) -> None:
    names = np.frombuffer("".join(table.keys).encode("ascii"), dtype=np.uint8)
    save_arrays(path, {"keys": names, **{name: getattr(table, name) for name in NUMBERS}}, {"key": key})


def stored_table(stored: StoredReference, pairs: Sequence[TokenisedPair]) -> ReferenceTable:
    """Pairs as a log-prob file has them: one value per response, its sum. Raises InputError where one is not there."""
    chosen, rejected = pair_keys(pairs)
    try:
        stored.check_holds({*chosen, *rejected})
    except InputError as error:
        raise InputError(*(f"model.reference_logps: {line}" for line in error.problems)) from None
    keys = tuple(sorted({*chosen, *rejected}))
    place = {key: row for row, key in enumerate(keys)}
    together = sorted({*zip(chosen, rejected, strict=True)})
    unknown = (math.nan,) * 3
    return ReferenceTable(
        keys,
        np.arange(len(keys) + 1),
        np.array([stored.sums[key] for key in keys], np.float32),
        np.array([(place[one], place[two]) for one, two in together], np.int64).reshape(-1, 2),
        np.array([stored.hidden.get(pair, unknown) for pair in together], np.float32).reshape(-1, 3),
    )


def _table(arrays: Mapping[str, np.ndarray]) -> ReferenceTable:
    text = arrays["keys"].tobytes().decode("ascii")
    names = tuple(text[i : i + 32] for i in range(0, len(text), 32))
    return ReferenceTable(names, *(arrays[name] for name in NUMBERS))

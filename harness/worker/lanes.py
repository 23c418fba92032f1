"""From a training set to a lane: batches, evaluation sets, and the columns of their records that no step changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from harness.data.order import batch_ids, probe_ids
from harness.identity import content_hash, run_stream
from harness.inputs.encoded import EncodedInputs, EncodedPairs
from harness.metrics.hidden_similarity import ches_columns
from harness.metrics.slices import SLICE
from harness.models.pack import EvalSet, Lane
from harness.types import PreferencePair, RunSpec, Split
from harness.worker.datasets import VALIDATION, TrainingSet, gold_margins


def build_lane(
    key: str, run: RunSpec, encoded: EncodedInputs, data: TrainingSet, base: int, extra: int
) -> tuple[Lane, dict[str, np.ndarray]]:
    """The lane of a run, and the fixed columns of its records, its evaluation sets one behind the other.

    `base` and `extra` are the corpus offsets of the inputs' pairs and of the training set's extra ones.
    """
    rows = torch.from_numpy(data.rows + np.where(data.changed, extra, base))
    flipped = torch.from_numpy(data.flipped)
    order = torch.from_numpy(_batches(run, data).copy())
    splits = _splits(run, encoded, data)
    for part, read in _rows_read(encoded.pairs, data, np.unique(order.numpy()), splits):
        part.score_rows(read)
    offset = {id(encoded.pairs): base, id(data.extra): extra}
    lane = Lane(
        key=key,
        objective=run.objective,
        training=run.training,
        weights=encoded.inputs.weights,
        batches=rows[order],
        flipped=flipped[order],
        evals=tuple(
            EvalSet(
                s.name,
                tuple(pair.id for pair in s.pairs),
                torch.tensor([row + offset[id(part)] for part, row in s.places], dtype=torch.int64),
                torch.from_numpy(s.flipped),
            )
            for s in splits
        ),
    )
    slices = run.data.slices.split(", ") if run.data is not None and run.data.slices else []
    parts = [_columns(split, slices) for split in splits]
    return lane, {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def rows_read(run: RunSpec, encoded: EncodedInputs, data: TrainingSet) -> Iterator[tuple[EncodedPairs, list[int]]]:
    """The rows that a run trains on and is measured on, by the pairs that hold them."""
    yield from _rows_read(encoded.pairs, data, np.unique(_batches(run, data)), _splits(run, encoded, data))


def _rows_read(
    pairs: EncodedPairs, data: TrainingSet, trained: np.ndarray, splits: Sequence[_Split]
) -> Iterator[tuple[EncodedPairs, list[int]]]:
    """`trained` `(m,)`: positions in the training set."""
    for part in (pairs, data.extra):
        if part is not None:
            own = trained[data.changed[trained] == (part is data.extra)]
            measured = [row for split in splits for of, row in split.places if of is part]
            yield part, [*data.rows[own].tolist(), *measured]


def _batches(run: RunSpec, data: TrainingSet) -> np.ndarray:
    """Positions `(steps, B)` in the training set."""
    return _order(data.ids, run_stream(run, "order"), run.training.steps, run.training.batch_size)


# Runs of a pack differ in objective and beta, rarely in their order, and hashing every id of every epoch takes a while.
_order = lru_cache(maxsize=32)(batch_ids)


@dataclass(frozen=True, eq=False)
class _Split:
    """One evaluation set before it becomes tensors: the row of each pair, and what is known of it; arrays `(n,)`."""

    name: str
    pairs: Sequence[PreferencePair]
    places: list[tuple[EncodedPairs, int]]
    flipped: np.ndarray
    clean_label: np.ndarray
    gold_margin: np.ndarray
    kinds: Sequence[str]
    validation_label: np.ndarray | None = None  # None: no noisy labels for this split


def _splits(run: RunSpec, encoded: EncodedInputs, data: TrainingSet) -> list[_Split]:
    """The probe of training pairs as observed (and as they were, where text changed), then the untouched splits."""
    place = {identity: i for i, identity in enumerate(data.ids)}
    probe = [place[identity] for identity in probe_ids(data.ids, run.evaluation.probe)]
    parts = [data.extra if data.changed[i] and data.extra is not None else encoded.pairs for i in probe]
    splits = [
        _Split(
            Split.TRAIN_OBSERVED,
            [data.pairs[i] for i in probe],
            [(part, int(data.rows[i])) for part, i in zip(parts, probe, strict=True)],
            data.flipped[probe],
            data.clean_label[probe],
            data.gold_margin[probe],
            [data.kinds[i] for i in probe],
        )
    ]
    if data.changed.any():
        train = encoded.inputs.train
        # A copy that a corruption added was no pair of the clean set.
        known = [i for i in probe if data.ids[i] == train[data.origin[i]].id]
        rows = [int(data.origin[i]) for i in known]
        kinds = [data.kinds[i] for i in known]
        splits.append(_untouched(Split.TRAIN_CLEAN, [train[row] for row in rows], encoded.pairs, rows, kinds))
    for name, span in encoded.evals.items():
        pairs = encoded.inputs.evals[name]
        labels = data.validation_label if name == VALIDATION else None
        splits.append(_untouched(name, pairs, encoded.pairs, span, [""] * len(pairs), labels))
    return splits


def _untouched(
    name: str,
    pairs: Sequence[PreferencePair],
    encoded: EncodedPairs,
    rows: Sequence[int],
    kinds: Sequence[str],
    validation_label: np.ndarray | None = None,
) -> _Split:
    """A split in the clean orientation."""
    n = len(pairs)
    places = [(encoded, row) for row in rows]
    clean = np.zeros(n, bool), np.ones(n, np.int8), gold_margins(pairs)
    return _Split(name, pairs, places, *clean, kinds, validation_label)


def _columns(split: _Split, slices: Sequence[str]) -> dict[str, np.ndarray]:
    """What the records of a split say of each pair at every step, `(n,)` each."""
    pairs = split.pairs
    products = np.array([part.products[row] for part, row in split.places], np.float32).reshape(-1, 3)
    lengths = np.array(
        [(part.rows.chosen_len[row], part.rows.rejected_len[row]) for part, row in split.places], np.float64
    ).reshape(-1, 2)
    products = np.where(split.flipped[:, None], products[:, [0, 2, 1]], products)
    lengths = np.where(split.flipped[:, None], lengths[:, ::-1], lengths)
    noisy = np.zeros(len(pairs), np.int8) if split.validation_label is None else split.validation_label
    return {
        "observed_label": np.ones(len(pairs), np.int8),
        "clean_label": split.clean_label,
        "validation_label": noisy,
        "corrupted": np.array([kind != "" for kind in split.kinds], dtype=bool),
        "corruption_kind": np.array(split.kinds, dtype=object),
        "gold_margin": split.gold_margin,
        "group": np.array([str(pair.meta.get("group", "")) for pair in pairs], dtype=object),
        "prompt_id": np.array([prompt_id(pair) for pair in pairs], dtype=object),
        **{
            SLICE + name: np.array([pair.meta.get("slices", {}).get(name, "") for pair in pairs], dtype=object)
            for name in slices
        },
        "vacuous": np.array([pair.chosen == pair.rejected for pair in pairs], dtype=bool),
        **ches_columns(products, lengths),
    }


def prompt_id(pair: PreferencePair) -> str:
    """12 characters that tell prompts apart: of the source's prompt id where it has one, else of the prompt."""
    return content_hash(str(pair.meta.get("prompt_id") or pair.prompt))[:12]

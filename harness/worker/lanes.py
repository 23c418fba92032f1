"""From a training set to a lane: batches, evaluation sets, and the columns of their records that no step changes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch

from harness.data.order import batch_ids, probe_ids
from harness.identity import content_hash, run_stream
from harness.metrics.hidden_similarity import ches_columns
from harness.models.pack import EvalSet, Lane
from harness.types import PreferencePair, RunSpec
from harness.worker.datasets import EncodedInputs, EncodedPairs, TrainingSet
from harness.worker.validation_labels import VALIDATION


def build_lane(
    key: str, run: RunSpec, prepared: EncodedInputs, data: TrainingSet, base: int, extra: int
) -> tuple[Lane, dict[str, np.ndarray]]:
    """The lane of a run, and the fixed columns of its records, its evaluation sets one behind the other.

    `base` and `extra` are the corpus offsets of the setting's block and of the training set's extra block.
    """
    rows = torch.from_numpy(np.where(data.in_extra, data.rows + extra, data.rows + base))
    flipped = torch.from_numpy(data.flipped)
    order = torch.from_numpy(
        _order(data.ids, run_stream(run, "order"), run.training.steps, run.training.batch_size).copy()
    )
    splits = _splits(run, prepared, data)
    offset = {id(prepared.block): base, id(data.extra): extra}
    lane = Lane(
        key=key,
        objective=run.objective,
        training=run.training,
        weights=prepared.setting.weights,
        batches=rows[order],
        flipped=flipped[order],
        evals=tuple(
            EvalSet(
                s.name,
                tuple(pair.id for pair in s.pairs),
                torch.tensor([row + offset[id(block)] for block, row in s.places], dtype=torch.int64),
                torch.from_numpy(s.flipped),
            )
            for s in splits
        ),
    )
    parts = [_columns(split) for split in splits]
    return lane, {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


# Runs of a pack differ in objective and beta, rarely in their order, and hashing every id of every epoch takes a while.
_order = lru_cache(maxsize=32)(batch_ids)


@dataclass(frozen=True, eq=False)
class _Split:
    """One evaluation set before it becomes tensors: where each pair stands, and what is known of it; arrays `(n,)`."""

    name: str
    pairs: list[PreferencePair]
    places: list[tuple[EncodedPairs, int]]
    flipped: np.ndarray
    clean_label: np.ndarray
    gold_margin: np.ndarray
    corrupted: np.ndarray
    kinds: list[str]
    validation_label: np.ndarray | None = None  # None: no noisy labels for this split


def _splits(run: RunSpec, prepared: EncodedInputs, data: TrainingSet) -> list[_Split]:
    """The probe of training pairs as observed (and as they were, where text changed), then the untouched splits."""
    place = {identity: i for i, identity in enumerate(data.ids)}
    probe = [place[identity] for identity in probe_ids(data.ids, run.evaluation.probe)]
    blocks = [data.extra if data.in_extra[i] and data.extra is not None else prepared.block for i in probe]
    splits = [
        _Split(
            "train_observed",
            [data.pairs[i] for i in probe],
            [(block, int(data.rows[i])) for block, i in zip(blocks, probe, strict=True)],
            data.flipped[probe],
            data.clean_label[probe],
            data.gold_margin[probe],
            data.corrupted[probe],
            [data.kinds[i] for i in probe],
        )
    ]
    if data.in_extra.any():
        known = [i for i in probe if data.ids[i] in prepared.train_rows]
        clean = {pair.id: pair for pair in prepared.setting.train}
        at = [prepared.train_rows[data.ids[i]] for i in known]
        pairs, kinds = [clean[data.ids[i]] for i in known], [data.kinds[i] for i in known]
        splits.append(_untouched("train_clean", pairs, prepared.block, at, data.corrupted[known], kinds))
    for name, span in prepared.evals.items():
        pairs = list(prepared.setting.evals[name])
        nothing = np.zeros(len(pairs), bool)
        split = _untouched(name, pairs, prepared.block, list(span), nothing, [""] * len(pairs))
        splits.append(replace(split, validation_label=data.validation_label) if name == VALIDATION else split)
    return splits


def _untouched(
    name: str,
    pairs: list[PreferencePair],
    block: EncodedPairs,
    rows: list[int],
    corrupted: np.ndarray,
    kinds: list[str],
) -> _Split:
    """A split in the clean orientation."""
    gold = np.array([np.nan if p.gold_margin is None else p.gold_margin for p in pairs], np.float32)
    places = [(block, row) for row in rows]
    return _Split(name, pairs, places, np.zeros(len(pairs), bool), np.ones(len(pairs), np.int8), gold, corrupted, kinds)


def _columns(split: _Split) -> dict[str, np.ndarray]:
    """What the records of a split say of each pair at every step, `(n,)` each."""
    pairs = split.pairs
    products = np.array([block.products[row] for block, row in split.places], np.float32).reshape(-1, 3)
    lengths = np.array(
        [(block.rows.chosen_len[row], block.rows.rejected_len[row]) for block, row in split.places], np.float64
    ).reshape(-1, 2)
    products = np.where(split.flipped[:, None], products[:, [0, 2, 1]], products)
    lengths = np.where(split.flipped[:, None], lengths[:, ::-1], lengths)
    noisy = np.zeros(len(pairs), np.int8) if split.validation_label is None else split.validation_label
    return {
        "observed_label": np.ones(len(pairs), np.int8),
        "clean_label": split.clean_label,
        "validation_label": noisy,
        "corrupted": split.corrupted,
        "corruption_kind": np.array(split.kinds, dtype=object),
        "gold_margin": split.gold_margin,
        "group": np.array([str(pair.meta.get("group", "")) for pair in pairs], dtype=object),
        "prompt_id": np.array([prompt_id(pair) for pair in pairs], dtype=object),
        "vacuous": np.array([pair.chosen == pair.rejected for pair in pairs], dtype=bool),
        **ches_columns(products, lengths),
    }


def prompt_id(pair: PreferencePair) -> str:
    """12 characters that tell prompts apart: of the source's own prompt id where it has one, else of the prompt."""
    return content_hash(str(pair.meta.get("prompt_id") or pair.prompt))[:12]

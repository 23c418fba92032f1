"""The training set of a run, corrupted and as rows, and the noisy labels of its held-out pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.corruptions.apply import Corrupted, apply_spec
from harness.corruptions.registry import needs
from harness.data.rows import CHOSEN, PROMPT, TokenisedPair, pack_rows
from harness.identity import stream_seed
from harness.inputs.encoded import EncodedInputs, EncodedPairs, encode_pairs
from harness.inputs.reference_cache import Scorer
from harness.inputs.run_inputs import RunInputs
from harness.metrics.vote_table import vote_table
from harness.types import CorruptionSpec, InputError, PreferencePair, Split

if TYPE_CHECKING:
    import pandas

VALIDATION = Split.HELDOUT


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """A corrupted training set of n pairs; arrays `(n,)`.

    Pair i comes from the clean training pair `origin[i]` and stands in row `rows[i]` of the inputs' pairs, or of
    `extra` where its text is `changed`; `flipped` where it is that row with its sides exchanged. `clean_label` +1/-1:
    whether the observed orientation is the true one. `gold_margin` is of the observed orientation, NaN where unknown.
    `kinds` are the corruptions that touched the pairs last, "" for none. `validation_label` `(m,)`: how the same noise
    labels the held-out pairs. `votes`: how many of those a table of the training labels ranks right, by column of
    `results.csv`; empty where the source does not know what a pair is about.
    """

    pairs: tuple[PreferencePair, ...]
    origin: np.ndarray
    rows: np.ndarray
    changed: np.ndarray
    flipped: np.ndarray
    clean_label: np.ndarray
    gold_margin: np.ndarray
    kinds: tuple[str, ...]
    extra: EncodedPairs | None
    ledger: pandas.DataFrame | None
    validation_label: np.ndarray
    votes: Mapping[str, float]

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """The pairs' ids."""
        return tuple(pair.id for pair in self.pairs)

    @property
    def corrupted(self) -> np.ndarray:
        """`(n,)`: whether a corruption touched the pair."""
        return np.array([kind != "" for kind in self.kinds], dtype=bool)


def training_set(encoded: EncodedInputs, spec: CorruptionSpec, seed: int, score: Scorer) -> TrainingSet:
    """Corrupt the training pairs. A relabelled pair is its clean row, flipped; only changed text makes a new row."""
    inputs = encoded.inputs
    done, label = corrupt_training_pairs(encoded, spec, seed)
    new = [inputs.encode(pair) for pair, changed in zip(done.pairs, done.changed, strict=True) if changed]
    return TrainingSet(
        pairs=done.pairs,
        origin=done.origin,
        rows=np.where(done.changed, np.cumsum(done.changed) - 1, done.origin),
        changed=done.changed,
        flipped=(label < 0) & ~done.changed,
        clean_label=label,
        # What a response is worth once its text has changed is not known.
        gold_margin=np.where(done.changed, np.nan, gold_margins(inputs.train)[done.origin] * label),
        kinds=done.kind,
        extra=encode_pairs(inputs, new, score) if new else None,
        ledger=done.ledger,
        validation_label=validation_labels(encoded, spec, seed),
        votes=_votes(inputs, done.pairs),
    )


def labelled_training_pairs(inputs: RunInputs) -> list[PreferencePair]:
    """The training pairs as the source labels them."""
    return _labelled(inputs.train, inputs.label_flips)


def corrupt_training_pairs(encoded: EncodedInputs, spec: CorruptionSpec, seed: int) -> tuple[Corrupted, np.ndarray]:
    """The labelled training pairs, corrupted; and +1/-1 `(n,)`, whether each has the true orientation."""
    inputs = encoded.inputs
    done, label = _corrupt(encoded, inputs.train, inputs.label_flips, 0, spec, stream_seed(seed, "corruption"))
    if not done.pairs:
        raise InputError(f"corruption '{spec.kind}' leaves no training pair; lower its rate or its parameters")
    return done, label


def _votes(inputs: RunInputs, pairs: Sequence[PreferencePair]) -> dict[str, float]:
    held_out = inputs.evals.get(Split.HELDOUT, ())
    if inputs.vote is None or not held_out:
        return {}
    train, asked = [inputs.vote(pair) for pair in pairs], [inputs.vote(pair) for pair in held_out]
    return {
        "vote_table": vote_table(train, asked),
        "vote_table_backoff": vote_table(train, asked, levels=len(asked[0].question)),
    }


def validation_labels(encoded: EncodedInputs, spec: CorruptionSpec, seed: int) -> np.ndarray:
    """+1, -1 or 0 `(n,)` per held-out pair: the source's labels, corrupted by `spec` in a draw of its own.

    What a user with noisy labels could validate on; no pair, no other measure and no run is changed by it. -1 where
    the noisy label prefers the truly rejected response, 0 where a noisy set would not hold the pair as it is (dropped,
    or with other texts).
    """
    pairs = encoded.inputs.evals.get(VALIDATION, ())
    labels = np.zeros(len(pairs), dtype=np.int8)
    if not pairs:
        return labels
    flips = encoded.inputs.validation_flips
    flips = np.zeros(len(pairs), bool) if flips is None else flips
    draw = stream_seed(seed, "validation corruption")
    done, label = _corrupt(encoded, pairs, flips, encoded.evals[VALIDATION].start, spec, draw)
    itself = [pair.id == pairs[i].id for pair, i in zip(done.pairs, done.origin, strict=True)]  # no added copy
    kept = np.array(itself, dtype=bool) & ~done.changed
    labels[done.origin[kept]] = label[kept]
    return labels


def _corrupt(
    encoded: EncodedInputs,
    pairs: Sequence[PreferencePair],
    flips: np.ndarray,
    start: int,
    spec: CorruptionSpec,
    draw: int,
) -> tuple[Corrupted, np.ndarray]:
    """Clean pairs as the source labels them, corrupted; and +1/-1 `(n,)`, whether the outcome has the true orientation.

    The source labels pair i the other way round where `flips[i]`; its row is `start + i` of the inputs' pairs.
    """
    labelled = _labelled(pairs, flips)
    if "delta_ref" in needs(spec):
        encoded.pairs.score_rows(range(start, start + len(labelled)))
    facts = _facts(labelled, flips, encoded.pairs, start) if needs(spec) else None
    done = apply_spec(spec, labelled, draw, facts)
    return done, np.where(flips, -1, 1).astype(np.int8)[done.origin] * done.label


def _labelled(pairs: Sequence[PreferencePair], flips: np.ndarray) -> list[PreferencePair]:
    return [_swap(pair) if flip else pair for pair, flip in zip(pairs, flips, strict=True)]


def _swap(pair: PreferencePair) -> PreferencePair:
    """The same comparison labelled the other way round, scores included."""
    meta = dict(pair.meta)
    if "score_chosen" in meta and "score_rejected" in meta:
        meta["score_chosen"], meta["score_rejected"] = meta["score_rejected"], meta["score_chosen"]
    margin = None if pair.gold_margin is None else -pair.gold_margin
    return replace(pair, chosen=pair.rejected, rejected=pair.chosen, gold_margin=margin, meta=meta)


def _facts(
    labelled: Sequence[PreferencePair], flips: np.ndarray, encoded: EncodedPairs, start: int
) -> Mapping[str, Sequence[Any]]:
    """What a corruption may know of each pair, in the orientation the source labels it."""
    span = slice(start, start + len(labelled))
    chosen_len, rejected_len = encoded.rows.chosen_len[span], encoded.rows.rejected_len[span]
    chosen, rejected = (side[span].astype(np.float64) for side in encoded.reference)
    facts: dict[str, Any] = {
        "id": [pair.id for pair in labelled],
        "chosen_len": np.where(flips, rejected_len, chosen_len),
        "rejected_len": np.where(flips, chosen_len, rejected_len),
        "delta_ref": np.where(flips, -1.0, 1.0) * (chosen - rejected),
    }
    for name in ("prompt_id", "score_chosen", "score_rejected"):
        if all(name in pair.meta for pair in labelled):
            facts[name] = [pair.meta[name] for pair in labelled]
    if all(pair.gold_margin is not None for pair in labelled):
        facts["gold_margin"] = [pair.gold_margin for pair in labelled]
    return facts


def gold_margins(pairs: Sequence[PreferencePair]) -> np.ndarray:
    """`(n,)`, NaN where unknown."""
    return np.array([np.nan if pair.gold_margin is None else pair.gold_margin for pair in pairs], np.float32)


def with_mismatches(parts: Sequence[EncodedPairs]) -> tuple[list[EncodedPairs], np.ndarray]:
    """The parts of a corpus with one more for each, and `mismatched` `(N,)`: the row with row n's prompt and a foreign
    response.

    The foreign response is the chosen one of the next row (in order of pair id, round the end) that has another
    prompt: one fixed derangement of the part, so kto's z0 sees the same mismatches in every run.
    """
    added = [_mismatched(part) for part in parts]
    total = sum(len(part.rows.pair_ids) for part in parts)
    return [*parts, *added], np.concatenate([np.arange(total, 2 * total), np.arange(total, 2 * total)])


def _mismatched(part: EncodedPairs) -> EncodedPairs:
    rows, count = part.rows, len(part.rows.pair_ids)
    prompts = [tuple(ids[mask]) for ids, mask in zip(rows.ids, rows.segment == PROMPT, strict=True)]
    order = sorted(range(count), key=lambda i: rows.pair_ids[i])
    donor_of: dict[int, int] = {}
    for position, row in enumerate(order):
        others = (order[(position + k) % count] for k in range(1, count))
        donor = next((other for other in others if prompts[other] != prompts[row]), None)
        if donor is None:
            raise InputError("objective 'kto' needs at least two different prompts in the data")
        donor_of[row] = donor
    tokenised = []
    for row in range(count):
        response = rows.ids[donor_of[row]][rows.segment[donor_of[row]] == CHOSEN].astype(np.int32)
        prompt = np.array(prompts[row], dtype=np.int32)
        tokenised.append(TokenisedPair(rows.pair_ids[row], prompt, response, np.zeros(0, np.int32)))
    packed = pack_rows(tokenised)
    nothing = np.zeros(count, np.float32)  # only ever read through the live models
    return EncodedPairs(packed, (nothing, nothing))

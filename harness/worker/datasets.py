"""From a setting to what a lane trains on: rows, stored reference, observed orientation, batches, evaluation sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from harness.corruptions.apply import apply_spec
from harness.corruptions.ledger import kinds, orientation, origins
from harness.corruptions.registry import needs
from harness.data.rows import CHOSEN, PROMPT, PairRows, TokenisedPair, pack_rows
from harness.identity import stream_seed
from harness.inputs.run_inputs import RunInputs
from harness.models.reference import ReferenceTable, pair_keys
from harness.types import CorruptionSpec, InputError, PreferencePair
from harness.worker.validation_labels import facts_table, swap, validation_labels

if TYPE_CHECKING:
    import pandas

# Scores the distinct responses of pairs under a setting's reference, from the store where it has them.
Scorer = Callable[[RunInputs, Sequence[TokenisedPair]], ReferenceTable]


@dataclass(frozen=True, eq=False)
class EncodedPairs:
    """Some pair rows with their reference log-probs `(n,)`, chosen and rejected.

    `products` `(n, 3)`: <H_w, H_l>, |H_w|^2, |H_l|^2 of the reference's summed hidden states; empty where unknown.
    """

    rows: PairRows
    reference: tuple[np.ndarray, np.ndarray]
    products: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.float32))


@dataclass(frozen=True, eq=False)
class EncodedInputs:
    """A setting as rows: train pairs first (`train_rows[id]`), then the evaluation splits (`evals[split]`).

    `answers` keeps what the reference itself answers to a split's prompts, drawn when it is first asked for.
    """

    setting: RunInputs
    block: EncodedPairs
    labelled: tuple[PreferencePair, ...]  # train pairs as the source labels them
    train_rows: dict[str, int]
    evals: dict[str, range]
    answers: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """A corrupted training set: pair i is row `rows[i]` of its block (`extra` where that is set), flipped or not.

    `clean_label` +1/-1: whether the observed orientation is the true one; `gold_margin` stands in the observed
    orientation (NaN where unknown); `corrupted`: whether the ledger touched it; `kinds`: the corruption that
    touched it last, "" for none. `validation_label` `(m,)`: how the same noise labels the held-out pairs.
    """

    ids: tuple[str, ...]
    rows: np.ndarray
    in_extra: np.ndarray
    flipped: np.ndarray
    clean_label: np.ndarray
    gold_margin: np.ndarray
    corrupted: np.ndarray
    kinds: tuple[str, ...]
    pairs: tuple[PreferencePair, ...]
    extra: EncodedPairs | None
    ledger: pandas.DataFrame | None
    validation_label: np.ndarray


def prepare(setting: RunInputs, score: Scorer) -> EncodedInputs:
    """Tokenise every clean pair of a setting and attach the stored reference."""
    splits = {"train": setting.train, **setting.evals}
    tokenised = [setting.encode(pair) for split in splits.values() for pair in split]
    labelled = tuple(
        swap(pair) if flip else pair for pair, flip in zip(setting.train, setting.label_flips, strict=True)
    )
    evals, start = {}, 0
    for name, pairs in splits.items():
        evals[name] = range(start, start + len(pairs))
        start += len(pairs)
    train = evals.pop("train")
    return EncodedInputs(
        setting,
        _block(setting, tokenised, score),
        labelled,
        {pair.id: row for pair, row in zip(setting.train, train, strict=True)},
        evals,
    )


def _block(setting: RunInputs, tokenised: Sequence[TokenisedPair], score: Scorer) -> EncodedPairs:
    table = score(setting, tokenised)
    chosen, rejected = pair_keys(tokenised)
    rows = pack_rows(tokenised, tokens=setting.tokens, responses=setting.responses)
    return EncodedPairs(rows, (table.sums(chosen), table.sums(rejected)), table.hidden_products(chosen, rejected))


def with_mismatches(blocks: Sequence[EncodedPairs]) -> tuple[list[EncodedPairs], np.ndarray]:
    """The blocks with one more for each, and `mismatched` `(N,)`: where row n's prompt stands with a foreign response.

    The foreign response is the chosen one of the next row (in order of pair id, round the end) that has another
    prompt: one fixed derangement of the block, so kto's z0 sees the same mismatches in every run.
    """
    added: list[EncodedPairs] = []
    place = np.concatenate([np.arange(len(block.rows.pair_ids)) for block in blocks])
    total = len(place)
    start = total
    at = 0
    for block in blocks:
        rows, count = block.rows, len(block.rows.pair_ids)
        prompt = rows.segment == PROMPT
        texts = [tuple(ids[mask]) for ids, mask in zip(rows.ids, prompt, strict=True)]
        order = sorted(range(count), key=lambda i: rows.pair_ids[i])
        tokenised: list[TokenisedPair] = [None] * count  # type: ignore[list-item]
        for position, row in enumerate(order):
            donors = (order[(position + k) % count] for k in range(1, count))
            donor = next((other for other in donors if texts[other] != texts[row]), None)
            if donor is None:
                raise InputError("objective 'kto' needs at least two different prompts in the data")
            response = rows.ids[donor][rows.segment[donor] == CHOSEN].astype(np.int32)
            own = np.array(texts[row], dtype=np.int32)
            tokenised[row] = TokenisedPair(rows.pair_ids[row], own, response, np.zeros(0, np.int32))
        packed = pack_rows(tokenised, tokens=rows.ids.shape[1], responses=rows.target.shape[1])
        nothing = np.zeros(count, np.float32)  # only ever read through the live models
        added.append(EncodedPairs(packed, (nothing, nothing)))
        place[at : at + count] = np.arange(start, start + count)
        at, start = at + count, start + count
    return [*blocks, *added], np.concatenate([place, np.arange(total, start)])


def corrupted_set(prepared: EncodedInputs, spec: CorruptionSpec, seed: int, score: Scorer) -> TrainingSet:
    """Corrupt the training pairs. A relabelled pair is its clean row, flipped; only changed text makes a new row."""
    pairs, ledger = list(prepared.labelled), None
    if spec.kind != "none":
        flips = prepared.setting.label_flips
        facts = facts_table(prepared.labelled, flips, prepared.block, 0) if needs(spec) else None
        pairs, ledger = apply_spec(spec, pairs, stream_seed(seed, "corruption"), facts)
        if not pairs:
            raise InputError(f"corruption '{spec.kind}' leaves no training pair; lower its rate or its parameters")
    clean = {pair.id: pair for pair in prepared.setting.train}
    turned, source = _turned(prepared, ledger), {} if ledger is None else origins(ledger)
    rows, in_extra, flipped, labels, margins = [], [], [], [], []
    changed: list[PreferencePair] = []
    for pair in pairs:
        origin = clean[source.get(pair.id, pair.id)]
        same = (pair.chosen, pair.rejected) == (origin.chosen, origin.rejected)
        swapped = (pair.chosen, pair.rejected) == (origin.rejected, origin.chosen)
        new = not (same or swapped)
        in_extra.append(new)
        flipped.append(swapped and not same)
        labels.append(turned[pair.id] if new else -1 if flipped[-1] else 1)
        # What a response is worth once its text has changed is not known.
        margins.append(np.nan if new or origin.gold_margin is None else origin.gold_margin * labels[-1])
        rows.append(len(changed) if new else prepared.train_rows[origin.id])
        if new:
            changed.append(pair)
    extra = _block(prepared.setting, [prepared.setting.encode(p) for p in changed], score) if changed else None
    touched = {} if ledger is None else kinds(ledger)
    return TrainingSet(
        ids=tuple(pair.id for pair in pairs),
        rows=np.array(rows, dtype=np.int64),
        in_extra=np.array(in_extra, dtype=bool),
        flipped=np.array(flipped, dtype=bool),
        clean_label=np.array(labels, dtype=np.int8),
        gold_margin=np.array(margins, dtype=np.float32),
        corrupted=np.array([pair.id in touched for pair in pairs], dtype=bool),
        kinds=tuple(touched.get(pair.id, "") for pair in pairs),
        pairs=tuple(pairs),
        extra=extra,
        ledger=ledger,
        validation_label=validation_labels(prepared, spec, seed),
    )


def _turned(prepared: EncodedInputs, ledger: pandas.DataFrame | None) -> dict[str, int]:
    """+1 or -1 by pair id: whether source labels and corruption together leave the true orientation."""
    turned = {
        pair.id: -1 if flip else 1
        for pair, flip in zip(prepared.setting.train, prepared.setting.label_flips, strict=True)
    }
    if ledger is None:
        return turned
    source = origins(ledger)
    return turned | {name: label * turned[source.get(name, name)] for name, label in orientation(ledger).items()}

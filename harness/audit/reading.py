"""The pairs of an audit as token ids, and the reference that its models start from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from harness.audit.asked import Asked
from harness.audit.train_folds import Judged, Say
from harness.data.order import batch_ids
from harness.data.pairs import content_sha256, read_pairs
from harness.data.rows import TokenisedPair, pack_rows
from harness.data.tokenize import encode_pairs, train_tokenizer, vocabulary
from harness.identity import content_hash, plain, stream_seed
from harness.inputs.text import model_reading, text_architecture
from harness.metrics.slices import MAX_VALUES
from harness.model_files.location import HUB_ID, locate
from harness.models.architecture import Architecture, initial_weights
from harness.storage.arrays import load_arrays, save_arrays
from harness.training.sft import fit, likelihood_settings
from harness.types import DataSpec, InputError, LoraSpec, ModelSpec, PathModelSpec, PreferencePair

MOST = 0.5  # share of pairs whose own scores contradict their columns above which the columns are surely exchanged


@dataclass(frozen=True, eq=False)
class AuditPairs:
    """The pairs that can be audited, in file order, as token ids and as read; and notes on the others."""

    data: DataSpec
    pairs: tuple[PreferencePair, ...]
    judged: Judged
    slices: tuple[str, ...]
    notes: tuple[str, ...]


def read_audit(asked: Asked, device: torch.device, say: Say) -> AuditPairs:
    """Read and tokenise the pairs and open or build the reference. Raises InputError for what cannot be audited."""
    hub = not Path(asked.data).exists() and HUB_ID.fullmatch(asked.data) is not None
    data = DataSpec(
        path="" if hub else str(Path(asked.data).absolute()), hub=asked.data if hub else "", format=asked.form,
        sha256="" if hub or not Path(asked.data).exists() else content_sha256(asked.data),
        limit=asked.limit, max_length=asked.max_length, slices=", ".join(asked.slices),
    )  # fmt: skip
    model = _model(asked)
    words_of, render = model_reading(model) if isinstance(model, PathModelSpec) else (None, None)
    table = read_pairs(data, render)
    _check_labels(table.pairs, asked)
    if words_of is not None:
        words = words_of(table.templated)
    else:
        assert isinstance(model, ModelSpec)
        texts = (text for p in table.pairs for text in (p.prompt, p.chosen, p.rejected))
        words = vocabulary(train_tokenizer(texts, model.vocab_size))
    named = [_numbered(pair, at) for at, pair in enumerate(table.pairs)]
    kept, cut = encode_pairs(words, named, data.max_length, data.max_prompt_length)
    places = [int(one.id) for one in kept]
    pairs = tuple(table.pairs[at] for at in places)
    prompts = [str(pair.meta["prompt_id"]) for pair in pairs]
    if len(set(prompts)) < asked.folds:
        raise InputError(
            f"--data {asked.data}: {len(pairs)} pairs of {len(set(prompts))} prompts; {asked.folds} folds by prompt "
            f"need at least {asked.folds} prompts. Add prompts, or lower --folds"
        )
    if asked.rows >= len(pairs):
        raise InputError(f"--{asked.clean} {asked.rows}: {len(pairs)} pairs can be audited; expected fewer")
    architecture = text_architecture(data, model)
    weights = _reference(asked, architecture, model, kept, device, say)
    notes = tuple(note.text for note in (*table.notes, *cut))
    return AuditPairs(data, pairs, Judged(kept, prompts, architecture, weights, True), tuple(asked.slices), notes)


def _numbered(pair: PreferencePair, at: int) -> PreferencePair:
    """The pair under its place, as rows may say the same again."""
    return PreferencePair(str(at), pair.prompt, pair.chosen, pair.rejected, meta=pair.meta)


def _model(asked: Asked) -> ModelSpec | PathModelSpec:
    """The tiny model, or the one of `--model` with adapters."""
    if not asked.model:
        return ModelSpec()
    try:
        path, identity = locate(asked.model, "", Path.cwd(), {})
    except InputError as error:
        raise InputError(*(f"--model: {line}" for line in error.problems)) from None
    return PathModelSpec(path=path, sha256=identity, lora=LoraSpec())


def _check_labels(pairs: Sequence[PreferencePair], asked: Asked) -> None:
    """Raise InputError where most scores contradict the columns, or a slice column is an identifier."""
    scored = [pair.gold_margin for pair in pairs if pair.gold_margin is not None]
    against = sum(margin < 0 for margin in scored)
    if scored and against > MOST * len(scored):
        raise InputError(
            f"--data {asked.data}: of {len(scored)} pairs with scores {against} score the rejected answer higher; "
            "chosen and rejected are exchanged, or a lower score is better. Turn the columns or the scores round"
        )
    for name in asked.slices:
        values = len({pair.meta["slices"][name] for pair in pairs})
        if values > MAX_VALUES:
            raise InputError(f"--slices {name}: has {values} values; expected a column of at most {MAX_VALUES}")


def _reference(
    asked: Asked, architecture: Architecture, model: ModelSpec | PathModelSpec, kept: Sequence[TokenisedPair],
    device: torch.device, say: Say,
) -> Tensor:  # fmt: skip
    """The weights `(P,)` that every model starts from: of `--model`, or a tiny model fitted to all answers.

    Both answers of a pair alike, so that the reference knows no label.
    """
    start = initial_weights(architecture, stream_seed(asked.seed, "init"))
    if isinstance(model, PathModelSpec):
        return start
    nothing = np.zeros(0, dtype=np.int32)
    answers = [
        TokenisedPair(f"{one.id} {side}", one.prompt, getattr(one, side), nothing)
        for one in kept
        for side in ("chosen", "rejected")
    ]
    key = content_hash(
        [[[*row.prompt.tolist(), -1, *row.chosen.tolist()] for row in answers], plain(model), asked.seed]
    )
    path = asked.out / "scores" / f"{key[:32]}.safetensors"
    known = load_arrays(path, key)
    if known is not None:
        return torch.from_numpy(known["weights"])
    say(f"tiny model: {model.sft_steps} updates on {len(answers)} answers")
    order = batch_ids(
        [row.id for row in answers], stream_seed(asked.seed, "sft order"), model.sft_steps, model.sft_batch
    )
    widths = pack_rows(answers)
    [weights] = fit(
        architecture, [start], [[answers[i] for i in order.reshape(-1)]],
        likelihood_settings(model.sft_steps, model.sft_batch, model.sft_learning_rate), device, ["the tiny model"],
        tokens=widths.ids.shape[1], responses=widths.target.shape[1],
    )  # fmt: skip
    save_arrays(path, {"weights": weights.numpy()}, {"key": key})
    return weights

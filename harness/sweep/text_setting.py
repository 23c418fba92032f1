"""Real pairs with a tiny model trained on the data itself: tokenizer, SFT on the chosen side, and the setting."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from harness.data.order import batch_ids
from harness.data.rows import TokenisedPair, pack_rows
from harness.data.text import read_text
from harness.data.tokens import BOS_ID, EOS_ID, tokenise
from harness.models.load import Architecture, initial_weights
from harness.names import content_hash, plain, stream_seed
from harness.sweep.setting import Setting
from harness.training.prepare import fit, likelihood_settings
from harness.types import DataSpec, ModelSpec, PreferencePair, RunSpec

# Enters the recipe of every text reference: bump when reading, splitting, tokens or SFT change.
CODE_VERSION = 1


def text_reference_key(run: RunSpec) -> str:
    """What the SFT model depends on: the rows, how they are read, the architecture and its recipe, the seed."""
    data = plain(run.data)
    del data["path"]
    return content_hash(
        {"stage": "text", "code": CODE_VERSION, "data": data, "model": plain(run.model), "seed": run.seed}
    )


def text_architecture(data: DataSpec, model: ModelSpec) -> Architecture:
    """The tiny decoder of a text sweep."""
    return Architecture(
        vocab_size=model.vocab_size,
        hidden_size=model.hidden_size,
        layers=model.layers,
        heads=model.heads,
        intermediate_size=model.intermediate_size,
        max_positions=data.max_length,
    )


def fit_text_reference(run: RunSpec, device: torch.device) -> Tensor:
    """The reference of a text sweep: random weights, then maximum likelihood of the chosen training responses."""
    data, model = run.data, run.model
    assert data is not None and model is not None
    text = read_text(data, model, run.seed)
    architecture = text_architecture(data, model)
    nothing = np.zeros(0, dtype=np.int32)
    rows = [
        TokenisedPair(pair.id, text.tokens[pair.id].prompt, text.tokens[pair.id].chosen, nothing) for pair in text.train
    ]
    order = batch_ids([row.id for row in rows], stream_seed(run.seed, "sft order"), model.sft_steps, model.sft_batch)
    widths = pack_rows(rows)
    [weights] = fit(
        architecture,
        [initial_weights(architecture, stream_seed(run.seed, "init"))],
        [[rows[i] for i in order.reshape(-1)]],
        likelihood_settings(model.sft_steps, model.sft_batch, model.sft_learning_rate),
        device,
        [f"SFT of seed {run.seed}"],
        tokens=widths.ids.shape[1],
        responses=widths.target.shape[1],
    )
    return weights


def text_setting(run: RunSpec, weights: Tensor) -> Setting:
    """The setting of a text run, with the reference's weights `(P,)`."""
    data, model = run.data, run.model
    assert data is not None and model is not None
    text = read_text(data, model, run.seed)
    widths = pack_rows([text.tokens[pair.id] for pair in (*text.train, *text.heldout)])
    tokenizer = text.tokenizer

    def encode(pair: PreferencePair) -> TokenisedPair:
        known = text.tokens.get(pair.id)
        if known is not None and (pair.chosen, pair.rejected) == originals[pair.id]:
            return known
        [tokens], _ = tokenise(tokenizer, [pair], data.max_length, data.max_prompt_length, data.max_response_length)
        return tokens

    originals = {pair.id: (pair.chosen, pair.rejected) for pair in (*text.train, *text.heldout)}

    def judge(_: Sequence[str], responses: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        texts = [tokenizer.decode([i for i in ids.tolist() if i not in (BOS_ID, EOS_ID)]) for ids in responses]
        return {
            "response": np.array(texts, dtype=object),
            "group": np.array([""] * len(texts), dtype=object),
            "gold_reward": np.full(len(texts), np.nan, np.float32),
        }

    heldout = text.heldout[: run.evaluation.heldout]
    return Setting(
        name=f"data seed {run.seed}",
        architecture=text_architecture(data, model),
        weights=weights,
        train=text.train,
        label_flips=np.zeros(len(text.train), dtype=bool),
        evals={"eval_clean": heldout},
        encode=encode,
        judge=judge,
        eos=EOS_ID,
        tokens=widths.ids.shape[1],
        responses=widths.target.shape[1],
        prompt_width=data.max_prompt_length,
        max_new_tokens=64,
        notes=tuple(note.text for note in (*text.file_notes, *text.notes)),
        tokenizer=tokenizer.to_str(),
    )

"""The inputs of runs on a user's pairs, with a tiny model trained on them or a model from a path; its SFT."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from harness.data.chat import chat_renderer
from harness.data.order import batch_ids
from harness.data.prompts import read_prompts
from harness.data.rows import TokenisedPair, pack_rows
from harness.data.splits import Reading, TextData, read_text
from harness.data.tokenize import BOS_ID, EOS_ID, model_vocabulary, tokenise
from harness.identity import WHEREABOUTS, content_hash, file_sha256, plain, stream_seed
from harness.inputs.run_inputs import RunInputs
from harness.model_files.location import model_folder
from harness.models.architecture import Architecture, Frozen, initial_weights, path_architecture
from harness.models.folder import open_tokenizer, source_of
from harness.storage.logps_file import StoredReference, read_reference
from harness.text import before
from harness.training.sft import fit, likelihood_settings
from harness.types import DataSpec, InputError, ModelSpec, PathModelSpec, PreferencePair, RunSpec, Split

# Enters the recipe of every text reference: bump when reading, splitting, tokens or SFT change.
CODE_VERSION = 1
MAX_NEW_TOKENS = 64  # of a sampled response


def text_reference_key(run: RunSpec) -> str:
    """What the SFT model depends on: the rows, how they are read, the architecture and its recipe, the seed."""
    data, model = plain(run.data), plain(run.model)
    del data["path"]
    if isinstance(run.model, PathModelSpec):
        model = {name: value for name, value in model.items() if name not in WHEREABOUTS["model"]}
    return content_hash({"stage": "text", "code": CODE_VERSION, "data": data, "model": model, "seed": run.seed})


def text_architecture(data: DataSpec, model: ModelSpec | PathModelSpec) -> Architecture:
    """The decoder of a text sweep: a tiny one, or that of the path."""
    if isinstance(model, PathModelSpec):
        return path_architecture(model)
    return Architecture(
        vocab_size=model.vocab_size,
        hidden_size=model.hidden_size,
        layers=model.layers,
        heads=model.heads,
        intermediate_size=model.intermediate_size,
        max_positions=data.max_length,
    )


def model_reading(model: PathModelSpec) -> Reading:
    """How a model from a path reads texts: its tokenizer's vocabulary, and its chat template unless that is off."""
    tokenizer = open_tokenizer(source_of(model))
    render = None
    if model.template == "auto":
        render = chat_renderer(tokenizer, model.template_date, model.template_arguments)
    return lambda templated: model_vocabulary(tokenizer, templated), render


def _read(run: RunSpec) -> tuple[TextData, Callable[[Sequence[int]], str]]:
    """The data of a run, and how token ids become text again."""
    data, model = run.data, run.model
    assert data is not None and model is not None
    if isinstance(model, PathModelSpec):
        tokenizer = open_tokenizer(source_of(model))
        text = read_text(data, model, run.seed, *model_reading(model))
        return text, lambda ids: str(tokenizer.decode(ids, skip_special_tokens=True))
    text = read_text(data, model, run.seed)
    trained = text.tokenizer
    assert trained is not None
    return text, lambda ids: str(trained.decode([i for i in ids if i not in (BOS_ID, EOS_ID)]))


def starting_weights(run: RunSpec) -> Tensor:
    """The row `(P,)` before any training: random weights, a model's own, or fresh adapters drawn from the seed."""
    assert run.data is not None and run.model is not None
    return initial_weights(text_architecture(run.data, run.model), stream_seed(run.seed, "init"))


def fit_text_reference(run: RunSpec, device: torch.device) -> Tensor:
    """The reference of a text sweep: starting weights, then maximum likelihood of the chosen training responses."""
    data, model = run.data, run.model
    assert data is not None and model is not None
    text, _ = _read(run)
    nothing = np.zeros(0, dtype=np.int32)
    rows = [
        TokenisedPair(pair.id, text.tokens[pair.id].prompt, text.tokens[pair.id].chosen, nothing) for pair in text.train
    ]
    order = batch_ids([row.id for row in rows], stream_seed(run.seed, "sft order"), model.sft_steps, model.sft_batch)
    widths = pack_rows(rows)
    [weights] = fit(
        text_architecture(data, model),
        [starting_weights(run)],
        [[rows[i] for i in order.reshape(-1)]],
        likelihood_settings(model.sft_steps, model.sft_batch, model.sft_learning_rate),
        device,
        [f"SFT of seed {run.seed}"],
        tokens=widths.ids.shape[1],
        responses=widths.target.shape[1],
    )
    return weights


def _stored(model: ModelSpec | PathModelSpec) -> StoredReference | None:
    """The log-prob file of a spec; None where it names none. Raises InputError where it is not the planned one."""
    if not isinstance(model, PathModelSpec) or not model.reference_logps:
        return None
    path = Path(model.reference_logps)
    try:
        if file_sha256(path) != model.reference_logps_sha256:
            raise InputError(f"model.reference_logps: {path} changed since the sweep was planned; plan it again")
        return read_reference(path)
    except OSError as error:
        raise InputError(f"model.reference_logps: {path} cannot be read ({error.strerror})") from None


def _asked(run: RunSpec, text: TextData) -> tuple[PreferencePair, ...]:
    """The prompts of `evaluation.prompts`, their kind as `group`; two answers make pairs of them, and are not read."""
    evaluation = run.evaluation
    if not evaluation.prompts:
        return ()
    path = Path(evaluation.prompts)
    if file_sha256(path) != evaluation.prompts_sha256:
        raise InputError(f"evaluation.prompts: {path} changed since the sweep was planned; plan it again")
    return tuple(
        PreferencePair(
            content_hash([one.kind, one.text]), text.write(one.text), " yes", " no",
            meta={"row": one.row, "group": str(one.kind)},
        )
        for one in read_prompts(path)
    )  # fmt: skip


def text_inputs(run: RunSpec, weights: Tensor, other: Frozen | None = None) -> RunInputs:
    """The inputs of a run on a user's pairs, with the weights `(P,)` that policies start from.

    `other`: the reference, where it is not the start.
    """
    data, model = run.data, run.model
    assert data is not None and model is not None
    text, decode = _read(run)
    everything = (*text.train, *text.heldout, *text.test)
    widths = pack_rows([text.tokens[pair.id] for pair in everything])

    def encode(pair: PreferencePair) -> TokenisedPair:
        known = text.tokens.get(pair.id)
        if known is not None and (pair.chosen, pair.rejected) == originals[pair.id]:
            return known
        [tokens], _ = tokenise(text.words, [pair], data.max_length, data.max_prompt_length, data.max_response_length)
        return tokens

    originals = {pair.id: (pair.chosen, pair.rejected) for pair in everything}

    stops = run.evaluation.answers.stop

    def stop(ids: Sequence[int]) -> int | None:
        if not any(one in decode(ids) for one in stops):
            return None
        return next(n for n in range(1, len(ids) + 1) if any(one in decode(ids[:n]) for one in stops))

    def judge(_: Sequence[str], responses: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        texts = [before(decode(ids.tolist()), stops) for ids in responses]
        return {
            "response": np.array(texts, dtype=object),
            "group": np.array([""] * len(texts), dtype=object),
            "gold_reward": np.full(len(texts), np.nan, np.float32),
        }

    heldout = text.heldout[: run.evaluation.heldout]
    from_path = isinstance(model, PathModelSpec)
    model_notes = model_folder(model.path, model.sha256).notes if isinstance(model, PathModelSpec) else ()
    return RunInputs(
        name=f"data seed {run.seed}",
        architecture=text_architecture(data, model),
        weights=weights,
        train=text.train,
        label_flips=np.zeros(len(text.train), dtype=bool),
        evals={Split.HELDOUT: heldout} | ({"test": text.test[: run.evaluation.heldout]} if text.test else {}),
        encode=encode,
        judge=judge,
        eos=text.words.eos,
        tokens=widths.ids.shape[1],
        responses=widths.target.shape[1],
        prompt_width=data.max_prompt_length,
        # A model from a path has no positions beyond those that the spec was checked for.
        max_new_tokens=min(MAX_NEW_TOKENS, data.max_length - data.max_prompt_length) if from_path else MAX_NEW_TOKENS,
        notes=(*model_notes, *(note.text for note in (*text.file_notes, *text.notes))),
        tokenizer="" if text.tokenizer is None else text.tokenizer.to_str(),
        stop=stop if stops else None,
        prompts=_asked(run, text),
        ladder=True,
        tuned=not from_path or model.sft_steps > 0,
        other=other,
        stored=_stored(model),
    )

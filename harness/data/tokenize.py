"""Pairs as token ids under a stated length policy: by a byte-level BPE trained on the data, or a model's tokenizer.

Prompt `<bos> ...`, response `... <eos>`. A prompt longer than `max_prompt_length` keeps `<bos>` and its end. A response
that does not fit into `max_length` less the prompt keeps its start and has no `<eos>`: the model is not taught to stop
where the text was cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer as Tokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

from harness.data.notes import Note, make_note
from harness.data.rows import TokenisedPair
from harness.model_files.folder import ModelFolder
from harness.types import InputError, PreferencePair

SPECIALS = ("<pad>", "<bos>", "<eos>")
PAD_ID, BOS_ID, EOS_ID = range(3)
MIN_VOCABULARY = 256 + len(SPECIALS)  # every byte has a token, so any text can be written
_CHUNK = 1024  # texts encoded at a time: bounds the memory of the encodings
_SHOWN_PROBLEMS = 20


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """A byte-level BPE tokenizer of at most `vocab_size` tokens (fewer where the texts give fewer merges).

    Ids 0, 1, 2 are `<pad>`, `<bos>`, `<eos>`; decoding an encoded text gives back the text. The result is a function
    of the texts and their counts. Raises InputError for a vocabulary that cannot hold all bytes.
    """
    if vocab_size < MIN_VOCABULARY:
        raise InputError(f"model.vocab_size: {vocab_size} is too small; use at least {MIN_VOCABULARY}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _literal(tokenizer)


def _literal(tokenizer: Tokenizer) -> Tokenizer:
    """Make `<eos>` written out in a text mean these five characters: data must not end a response."""
    tokenizer.encode_special_tokens = True
    return tokenizer


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """A tokenizer as pairs are written with it: `encode` adds nothing to a text; `bos` None: prompts begin without.

    `decode` gives back the text with all special tokens written out. `written_bos` is the token that a chat template
    may begin a prompt with: the prompt keeps it when it is cut.
    """

    encode: Callable[[Sequence[str]], list[list[int]]]
    bos: int | None
    eos: int
    decode: Callable[[Sequence[int]], str]
    written_bos: int | None = None


def vocabulary(tokenizer: Tokenizer | Vocabulary) -> Vocabulary:
    """The vocabulary of a tokenizer that `train_tokenizer` has made."""
    if isinstance(tokenizer, Vocabulary):
        return tokenizer
    return Vocabulary(
        _encoder(tokenizer), BOS_ID, EOS_ID, lambda ids: str(tokenizer.decode(ids, skip_special_tokens=False))
    )


def model_vocabulary(tokenizer: Any, templated: bool) -> Vocabulary:
    """The vocabulary of a transformers tokenizer, for texts of its chat template or for plain ones.

    A template writes special tokens itself, so they are read as such and no `<bos>` is put before them. In plain text
    a special token written out means its characters, and `<bos>` comes first where the tokenizer itself would put it.
    Raises InputError where the tokenizer has no end-of-sequence token.
    """
    if tokenizer.eos_token_id is None:
        raise InputError("model.path: the tokenizer has no end-of-sequence token; no response could end")

    def encode(texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        ids = tokenizer(list(texts), add_special_tokens=False, split_special_tokens=not templated)["input_ids"]
        return [list(row) for row in ids]

    first = tokenizer("a")["input_ids"][:1]
    own = tokenizer.bos_token_id is not None and first == [tokenizer.bos_token_id] and not templated

    def decode(ids: Sequence[int]) -> str:
        return str(tokenizer.decode(ids, skip_special_tokens=False))

    bos = tokenizer.bos_token_id
    return Vocabulary(encode, bos if own else None, tokenizer.eos_token_id, decode, bos if templated else None)


def folder_vocabulary(folder: ModelFolder) -> Vocabulary | None:
    """The vocabulary of a model's folder without transformers, for counting: None where it has no `tokenizer.json`.

    Special tokens in a text are read as such, and no `<bos>` is put before it.
    """
    path = folder.path / "tokenizer.json"
    if not path.is_file():
        return None
    tokenizer = file_tokenizer(path)
    return Vocabulary(_encoder(tokenizer), None, folder.eos, lambda ids: str(tokenizer.decode(ids)), folder.bos)


@lru_cache(maxsize=2)
def file_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a `tokenizer.json`."""
    return Tokenizer.from_file(str(path))


def _encoder(tokenizer: Tokenizer) -> Callable[[Sequence[str]], list[list[int]]]:
    def encode(texts: Sequence[str]) -> list[list[int]]:
        chunks = (texts[at : at + _CHUNK] for at in range(0, len(texts), _CHUNK))
        return [e.ids for chunk in chunks for e in tokenizer.encode_batch_fast(chunk, add_special_tokens=False)]

    return encode


def _response(ids: list[int], budget: int, eos: int) -> NDArray[np.int32]:
    """A response with one end-of-sequence; a template may have written it already."""
    whole = ids if ids and ids[-1] == eos else [*ids, eos]
    return np.array(whole if len(whole) <= budget else whole[: max(budget, 0)], dtype=np.int32)


def tokenise(
    tokenizer: Tokenizer | Vocabulary,
    pairs: Sequence[PreferencePair],
    max_length: int,
    max_prompt_length: int,
    max_response_length: int = 0,
) -> tuple[list[TokenisedPair], list[bool]]:
    """Each pair as token ids, and whether its prompt was cut. All pairs come back, in their order.

    `max_length` and `max_prompt_length` count tokens with `<bos>` and `<eos>`; each response has `max_length` less the
    prompt to itself, and at most `max_response_length` where that is not 0. A response is cut where its last id is not
    `<eos>`, and is empty where the prompt fills `max_length`. For sets whose rows must all stay (corrupted ones);
    `encode_pairs` is for fresh data.
    """
    if max_prompt_length < 2 or max_length < 2:
        raise InputError("data: max_length and max_prompt_length must be at least 2 tokens")
    words = vocabulary(tokenizer)
    prompts = words.encode([pair.prompt for pair in pairs])
    chosen = words.encode([pair.chosen for pair in pairs])
    rejected = words.encode([pair.rejected for pair in pairs])
    prompts = prompts if words.bos is None else [[words.bos, *p] for p in prompts]
    begin = words.written_bos if words.bos is None else words.bos
    tokenised = []
    for pair, p, c, r in zip(pairs, prompts, chosen, rejected, strict=True):
        head = p[:1] if len(p) > max_prompt_length and p[0] == begin else []
        prompt = np.array([*head, *p[-(max_prompt_length - len(head)) :]], dtype=np.int32)
        budget = min(max_length - len(prompt), max_response_length or max_length)
        sides = (_response(ids, budget, words.eos) for ids in (c, r))
        tokenised.append(TokenisedPair(pair.id, prompt, *sides))
    return tokenised, [len(p) > max_prompt_length for p in prompts]


def encode_pairs(
    tokenizer: Tokenizer | Vocabulary,
    pairs: Sequence[PreferencePair],
    max_length: int,
    max_prompt_length: int,
    on_bad_row: str = "drop",
    max_response_length: int = 0,
    place: str = "",
) -> tuple[tuple[TokenisedPair, ...], tuple[Note, ...]]:
    """The pairs that can be trained on as token ids, in their order, and notes on what was cut or dropped.

    A pair whose response has no tokens left, or whose responses are equal once cut, is dropped and counted
    (`on_bad_row: drop`) or named in an InputError (`error`). Cut prompts and responses are kept and counted under
    either policy. Raises InputError where no pair is left. Rows are named by `meta["row"]`, else counted from 1, and
    stand behind `place`, their source.
    """
    tokenised, cut_prompts = tokenise(tokenizer, pairs, max_length, max_prompt_length, max_response_length)
    numbers = [int(pair.meta.get("row", at)) for at, pair in enumerate(pairs, 1)]
    eos = vocabulary(tokenizer).eos
    vanished, equal, kept = [], [], []
    for at, pair in enumerate(tokenised):
        if not (len(pair.chosen) and len(pair.rejected)):
            vanished.append(at)
        elif np.array_equal(pair.chosen, pair.rejected):
            equal.append(at)
        else:
            kept.append(at)
    total = len(pairs)
    found = (
        ("vanished", vanished, f"of {total} pairs dropped: the prompt leaves a response no room"),
        ("identical_after_truncation", equal, f"of {total} pairs dropped: chosen equals rejected once cut"),
        ("truncated_prompt", [at for at in kept if cut_prompts[at]], "prompts cut, their end is kept"),
        (
            "truncated_chosen",
            [at for at in kept if tokenised[at].chosen[-1] != eos],
            "chosen responses cut, their start is kept",
        ),
        (
            "truncated_rejected",
            [at for at in kept if tokenised[at].rejected[-1] != eos],
            "rejected responses cut, their start is kept",
        ),
    )
    notes = tuple(make_note(kind, [numbers[at] for at in rows], text) for kind, rows, text in found if rows)
    fix = f"raise data.max_length (now {max_length}) or lower data.max_prompt_length (now {max_prompt_length})"
    if on_bad_row == "error" and (bad := sorted({*vanished, *equal})):
        why = {**dict.fromkeys(vanished, "a response has no room"), **dict.fromkeys(equal, "responses equal once cut")}
        rows = [f"{place}:{numbers[at]}" if place else f"row {numbers[at]}" for at in bad[:_SHOWN_PROBLEMS]]
        more = [f"and {len(bad) - _SHOWN_PROBLEMS} more"] if len(bad) > _SHOWN_PROBLEMS else []
        lines = (f"{row}: chosen, rejected: {why[at]}; {fix}" for row, at in zip(rows, bad, strict=False))
        raise InputError(*lines, *more)
    if not kept:
        raise InputError(f"data: none of {total} pairs is left at these lengths; {fix}", *(note.text for note in notes))
    return tuple(tokenised[at] for at in kept), notes

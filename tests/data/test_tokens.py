"""The trained tokenizer and the length policy."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data.tokenize import BOS_ID, EOS_ID, MIN_VOCABULARY, PAD_ID, encode_pairs, tokenise, train_tokenizer
from harness.types import InputError, PreferencePair

TEXTS = ["the cat sat on the mat <eos> <eos> <eos>", "the dog ate the cat's hat, 猫 ate it", "no\n\nHuman: yes"] * 20


@cache
def tokenizer() -> Any:
    return train_tokenizer(TEXTS, 300)


@cache
def byte_tokenizer() -> Any:
    """No merges: a token a byte, so that lengths can be counted by hand."""
    return train_tokenizer(["a"], MIN_VOCABULARY)


def pair(prompt: str, chosen: str, rejected: str, row: int = 1) -> PreferencePair:
    return PreferencePair(f"id{row}", prompt, chosen, rejected, meta={"row": row})


def written(ids: np.ndarray) -> str:
    return str(byte_tokenizer().decode([i for i in ids.tolist() if i not in (BOS_ID, EOS_ID)]))


@settings(deadline=None, max_examples=200)
@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=40))
def test_any_text_comes_back_and_never_holds_a_special_token(text: str) -> None:
    ids = tokenizer().encode(text).ids
    assert tokenizer().decode(ids) == text
    assert not {PAD_ID, BOS_ID, EOS_ID} & set(ids)


@pytest.mark.parametrize("text", ["<eos>", "a<bos>b", "<pad><pad>", " <eos> <eos>"])
def test_special_tokens_written_out_in_data_are_plain_text(text: str) -> None:
    ids = tokenizer().encode(text).ids
    assert not {PAD_ID, BOS_ID, EOS_ID} & set(ids) and tokenizer().decode(ids) == text


def test_vocabulary() -> None:
    assert [tokenizer().token_to_id(t) for t in ("<pad>", "<bos>", "<eos>")] == [PAD_ID, BOS_ID, EOS_ID] == [0, 1, 2]
    assert MIN_VOCABULARY < tokenizer().get_vocab_size() <= 300
    assert byte_tokenizer().get_vocab_size() == MIN_VOCABULARY
    with pytest.raises(InputError, match=r"model\.vocab_size: 258 is too small; use at least 259"):
        train_tokenizer(TEXTS, 258)


def test_training_does_not_depend_on_order_process_or_threads() -> None:
    code = f"from harness.data.tokenize import *\nprint(train_tokenizer({TEXTS[::-1]!r}, 300).to_str())"
    for environment in ({"PYTHONHASHSEED": "1", "RAYON_NUM_THREADS": "1"}, {"PYTHONHASHSEED": "2"}):
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
        assert run.stdout.strip() == tokenizer().to_str()
    assert train_tokenizer(TEXTS, 265).to_str() != tokenizer().to_str()


def test_pair_that_fits() -> None:
    (only,), notes = encode_pairs(byte_tokenizer(), [pair("ask", "yes", "no")], 8, 4)
    assert notes == ()
    assert (only.prompt[0], only.chosen[-1], only.rejected[-1]) == (BOS_ID, EOS_ID, EOS_ID)
    assert [len(part) for part in (only.prompt, only.chosen, only.rejected)] == [4, 4, 3]
    assert [written(part) for part in (only.prompt, only.chosen, only.rejected)] == ["ask", "yes", "no"]
    assert only.prompt.dtype == only.chosen.dtype == only.rejected.dtype == np.int32


def test_long_prompt_keeps_its_end_and_long_responses_their_start_without_eos() -> None:
    (only,), notes = encode_pairs(byte_tokenizer(), [pair("question", "abcdef", "wxyz", row=7)], 8, 4)
    assert (written(only.prompt), written(only.chosen), written(only.rejected)) == ("ion", "abcd", "wxyz")
    assert only.prompt[0] == BOS_ID and EOS_ID not in only.chosen and EOS_ID not in only.rejected
    assert [(n.kind, n.count, n.rows) for n in notes] == [
        ("truncated_prompt", 1, (7,)),
        ("truncated_chosen", 1, (7,)),
        ("truncated_rejected", 1, (7,)),
    ]


DROPPED = {
    "vanished": pair("question", "a", "b", row=2),
    "identical_after_truncation": pair("q", "abcdefgX", "abcdefgY", row=2),
}


@pytest.mark.parametrize(("kind", "lengths"), [("vanished", (6, 6)), ("identical_after_truncation", (6, 4))])
def test_pairs_with_nothing_left_to_compare(kind: str, lengths: tuple[int, int]) -> None:
    pairs = [pair("q", "a", "b"), DROPPED[kind]]
    kept, notes = encode_pairs(byte_tokenizer(), pairs, *lengths)
    assert [p.id for p in kept] == ["id1"] and [(n.kind, n.count, n.rows) for n in notes] == [(kind, 1, (2,))]
    with pytest.raises(InputError, match=r"^row 2: .*raise data\.max_length"):
        encode_pairs(byte_tokenizer(), pairs, *lengths, on_bad_row="error")
    with pytest.raises(InputError, match="none of 1 pairs is left"):
        encode_pairs(byte_tokenizer(), pairs[1:], *lengths)


def test_lengths_that_hold_nothing_are_refused() -> None:
    with pytest.raises(InputError, match="must be at least 2 tokens"):
        encode_pairs(byte_tokenizer(), [pair("q", "a", "b")], 1, 1)


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.tuples(*[st.text("ab", min_size=1, max_size=12)] * 3), min_size=1, max_size=4),
    st.integers(2, 14),
    st.integers(2, 14),
)
def test_length_policy(texts: list[tuple[str, str, str]], max_length: int, max_prompt_length: int) -> None:
    pairs = [pair(*three, row=i) for i, three in enumerate(texts)]
    tokenised, cut = tokenise(byte_tokenizer(), pairs, max_length, max_prompt_length)
    assert [t.id for t in tokenised] == [p.id for p in pairs]
    for source, made, was_cut in zip(pairs, tokenised, cut, strict=True):
        assert made.prompt[0] == BOS_ID and len(made.prompt) <= max_prompt_length
        assert source.prompt.endswith(written(made.prompt)) and was_cut == (written(made.prompt) != source.prompt)
        for text, ids in ((source.chosen, made.chosen), (source.rejected, made.rejected)):
            assert len(made.prompt) + len(ids) <= max(max_length, len(made.prompt))
            whole = len(ids) > 0 and ids[-1] == EOS_ID
            assert text.startswith(written(ids)) and whole == (written(ids) == text and EOS_ID in ids)
            assert whole or len(ids) == max(0, max_length - len(made.prompt))

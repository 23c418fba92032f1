"""The pair-shared layout says exactly what two plain rows `prompt | response` would say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data.rows import CHOSEN, PAD, PROMPT, REJECTED, PairRows, TokenisedPair, pack_rows


def make(name: str, prompt: list[int], chosen: list[int], rejected: list[int]) -> TokenisedPair:
    return TokenisedPair(name, *(np.array(part, dtype=np.int32) for part in (prompt, chosen, rejected)))


token = st.integers(1, 90)
pair_parts = st.tuples(
    st.lists(token, min_size=1, max_size=6), st.lists(token, min_size=1, max_size=5), st.lists(token, max_size=5)
)
sets = st.lists(pair_parts, min_size=1, max_size=6).map(
    lambda parts: [make(str(i), *three) for i, three in enumerate(parts)]
)


def plain_predictions(rows: PairRows, n: int, side: int) -> list[tuple[tuple[int, ...], tuple[int, ...], int]]:
    """(visible tokens, their positions, target) of each prediction of one side, by the layout's attention rule."""
    found = []
    for k in np.flatnonzero(rows.side[n] == side):
        at = rows.source[n, k]
        # The prediction of a response's first token is made by the prompt, which sees only itself.
        seen = [j for j in range(at + 1) if rows.segment[n, j] in (PROMPT, rows.segment[n, at])]
        found.append((tuple(rows.ids[n, seen]), tuple(rows.position[n, seen]), int(rows.target[n, k])))
    return found


@settings(deadline=None, max_examples=150)
@given(sets)
def test_each_prediction_equals_that_of_a_plain_row(pairs: list[TokenisedPair]) -> None:
    rows = pack_rows(pairs)
    for n, pair in enumerate(pairs):
        for side, response in ((CHOSEN, pair.chosen), (REJECTED, pair.rejected)):
            plain = [*pair.prompt, *response]
            expected = [
                (tuple(plain[:end]), tuple(range(end)), plain[end]) for end in range(len(pair.prompt), len(plain))
            ]
            assert plain_predictions(rows, n, side) == expected


@settings(deadline=None, max_examples=100)
@given(sets, st.integers(0, 3))
def test_round_trip_lengths_and_padding(pairs: list[TokenisedPair], extra: int) -> None:
    tight = pack_rows(pairs)
    rows = pack_rows(pairs, tokens=tight.ids.shape[1] + extra, responses=tight.side.shape[1] + extra, pad_id=7)
    assert rows.ids.shape == (len(pairs), max(len(p.prompt) + len(p.chosen) + len(p.rejected) for p in pairs) + extra)
    assert rows.side.shape == (len(pairs), max(len(p.chosen) + len(p.rejected) for p in pairs) + extra)
    for n, pair in enumerate(pairs):
        for segment, part in ((PROMPT, pair.prompt), (CHOSEN, pair.chosen), (REJECTED, pair.rejected)):
            np.testing.assert_array_equal(rows.ids[n, rows.segment[n] == segment], part)
    assert rows.pair_ids == tuple(p.id for p in pairs)
    assert rows.chosen_len.tolist() == [len(p.chosen) for p in pairs]
    assert rows.rejected_len.tolist() == [len(p.rejected) for p in pairs]
    assert (rows.ids[rows.segment == PAD] == 7).all() and (rows.position[rows.segment == PAD] == 0).all()
    assert (rows.target[rows.side == 0] == 7).all() and (rows.source[rows.side == 0] == 0).all()


def test_hand_example() -> None:
    rows = pack_rows([make("a", [1, 2], [3, 4], [5, 6, 7]), make("b", [1], [9], [])], tokens=8)
    assert rows.ids.tolist() == [[1, 2, 3, 4, 5, 6, 7, 0], [1, 9, 0, 0, 0, 0, 0, 0]]
    assert rows.segment.tolist() == [[0, 0, 1, 1, 2, 2, 2, -1], [0, 1, -1, -1, -1, -1, -1, -1]]
    assert rows.position.tolist() == [[0, 1, 2, 3, 2, 3, 4, 0], [0, 1, 0, 0, 0, 0, 0, 0]]
    assert rows.source.tolist() == [[1, 2, 1, 4, 5], [0, 0, 0, 0, 0]]
    assert rows.target.tolist() == [[3, 4, 5, 6, 7], [9, 0, 0, 0, 0]]
    assert rows.side.tolist() == [[1, 1, 2, 2, 2], [1, 0, 0, 0, 0]]
    assert [a.dtype for a in (rows.ids, rows.segment, rows.position, rows.source, rows.target, rows.side)] == [
        np.int64, np.int8, np.int64, np.int64, np.int64, np.int8,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("pair", "options", "message"),
    [
        (make("a", [], [1], [1]), {}, "pair a: prompt has no tokens"),
        (make("a", [1], [], [1]), {}, "pair a: chosen has no tokens"),
        (make("a", [1], [1], [1]), {"tokens": 2}, "tokens=2 is too small: the longest row needs 3"),
        (make("a", [1], [1], [1]), {"responses": 1}, "responses=1 is too small: the longest row needs 2"),
    ],
)
def test_refuses(pair: TokenisedPair, options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pack_rows([pair], **options)


def test_no_rows() -> None:
    rows = pack_rows([], tokens=4, responses=3)
    assert rows.ids.shape == (0, 4) and rows.side.shape == (0, 3)

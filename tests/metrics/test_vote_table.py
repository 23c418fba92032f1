"""The vote table by hand, and in both versions of the embedded world."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.data.mythworld import pairs as mythpairs
from harness.data.mythworld import world as mw
from harness.identity import uniform
from harness.metrics.vote_table import Vote, vote_table

SEEN, OTHER, NEW = ("what tail fox", "what"), ("what tail owl", "what"), ("what egg fox", "what")


def test_by_hand():
    training = [Vote(SEEN, "red", "blue"), Vote(SEEN, "red", ""), Vote(SEEN, "blue", "red"), Vote(OTHER, "red", "")]
    assert vote_table(training, [Vote(SEEN, "red", "blue")]) == 1.0  # one net vote against none
    assert vote_table(training, [Vote(SEEN, "blue", "red")]) == 0.0
    assert vote_table(training, [Vote(NEW, "red", "")]) == 0.5  # never asked
    assert vote_table(training, [Vote(NEW, "red", "")], levels=2) == 1.0
    assert vote_table(training, [Vote(NEW, "gold", "grey")], levels=2) == 0.5
    assert vote_table(training, [Vote(SEEN, "red", "blue"), Vote(NEW, "red", "")]) == 0.75
    assert math.isnan(vote_table(training, []))


def tables(version: int, rate: float) -> tuple[float, float]:
    world = mw.draw_world(0, version)
    train, test = (mythpairs.preference_pairs(world, split, 1024) for split in ("train", "test"))

    def vote(pair, flipped=False):
        question, chosen, rejected = mw.vote(pair, world.language)
        return Vote(question, rejected, chosen) if flipped else Vote(question, chosen, rejected)

    votes = [vote(pair, uniform(0, "flip", pair.id) < rate) for pair in train]
    asked = [vote(pair) for pair in test]
    return vote_table(votes, asked), vote_table(votes, asked, levels=3)


def test_version_1_is_answered_by_a_table_and_version_2_is_not():
    clean, flipped, worst = (tables(1, rate)[0] for rate in (0.0, 0.2, 0.4))
    assert clean > 0.99 and flipped > 0.95 and 0.6 < worst < 0.9
    assert tables(2, 0.0)[0] == tables(2, 0.2)[0] == 0.5  # no held-out fact is in training
    assert 0.5 < tables(2, 0.0)[1] < 0.75  # kinds of questions are told apart, facts are not


def test_a_response_that_cannot_be_parsed_votes_as_it_is():
    world = mw.draw_world(0, 2)
    pair = mythpairs.preference_pairs(world, "train", 1)[0]
    broken = type(pair)(pair.id, pair.prompt, "the the", pair.rejected)
    assert mw.vote(broken, world.language)[1] == "the the"


@pytest.mark.parametrize("levels", [1, 2])
def test_turning_every_vote_turns_the_table(levels):
    rng = np.random.default_rng(0)
    contents = ["red", "blue", ""]
    votes = []
    for _ in range(60):
        a, b = rng.choice(3, 2, replace=False)
        votes.append(Vote((f"what {rng.integers(8)}", "what"), contents[a], contents[b]))
    turned = [Vote(vote.question, vote.rejected, vote.chosen) for vote in votes]
    right, wrong = vote_table(votes, votes, levels), vote_table(turned, votes, levels)
    assert right + wrong == pytest.approx(1.0)

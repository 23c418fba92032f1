"""A data format: two answers and the votes for each."""

from __future__ import annotations

from harness.data.formats.row import Format, Pair, Row, better, number, text


def votes(row: Row) -> Pair:
    """The answer with more votes is chosen; the difference is the gold margin."""
    lead = number(row, "votes_a") - number(row, "votes_b")
    return better(text(row, "answer_a"), text(row, "answer_b"), lead, text(row, "question"), abs(lead))


VOTES = Format(
    name="votes",
    doc="question, answer_a, answer_b, votes_a, votes_b: the answer with more votes is chosen",
    needs={"question": "text", "answer_a": "text", "answer_b": "text", "votes_a": "number", "votes_b": "number"},
    read=votes,
    example=[{"question": "Where is it?", "answer_a": "In the drawer.", "answer_b": "No.", "votes_a": 5, "votes_b": 2}],
)

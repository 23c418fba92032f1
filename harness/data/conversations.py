"""Pairs before any template: each prompt as the turns that the data has, or as its text, and the answers as they stand.

What reads answers with a template of its own (a reward model) or writes conversations again needs them so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from harness.data.chat import Rendered
from harness.data.pairs import PairTable, read_pairs
from harness.data.transcripts import Turn
from harness.types import DataSpec, PreferencePair


@dataclass(frozen=True)
class KeptTurns:
    """A renderer that leaves answers as they are, and gives each list of turns a text of its own."""

    by_text: dict[str, Sequence[Turn]] = field(default_factory=dict)

    def __call__(self, context: Sequence[Turn], chosen: str, rejected: str) -> Rendered:
        """The answers as they are, and a text that stands for the turns."""
        parts = [f"{turn['role']}: {turn['content']}" for turn in context]
        more = [turn for turn in context if len(turn) > 2]  # calls of tools and the like
        text = "\n\n".join([*parts, json.dumps(more, sort_keys=True)] if more else parts)
        while self.by_text.setdefault(text, context) != context:  # a message that holds what looks like turns
            text += " "
        return Rendered(text, chosen, rejected)

    def prompt(self, pair: PreferencePair) -> str | Sequence[Turn]:
        """The prompt of a pair that was read with this renderer: its turns, or the text of a row without turns."""
        return self.by_text.get(pair.prompt, pair.prompt)


@dataclass(frozen=True)
class Conversations:
    """The pairs of a data set by id, and their prompts by row of the source."""

    pairs: Mapping[str, PreferencePair]
    turns: KeptTurns
    by_row: Mapping[int, str | Sequence[Turn]]


def read_conversations(data: DataSpec) -> Conversations:
    """The pairs of the split that is measured on, with the ids that they have under any model."""
    turns = KeptTurns()
    table: PairTable = read_pairs(data, turns, data.heldout_split or None)
    by_row = {int(pair.meta["row"]): turns.prompt(pair) for pair in table.pairs}
    return Conversations({pair.id: pair for pair in table.pairs}, turns, by_row)

"""What a check says, and what it may look at. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from harness.data.rows import PairRows, TokenisedPair
from harness.data.splits import TextData
from harness.types import CorruptionSpec, DataSpec, InputError, PreferencePair

SEVERITIES = ("error", "warning", "note")  # an error stops the sweep (exit 2), a warning is told, a note informs
_SHOWN_ROWS = 10


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: `severity: place:row field: text; fix`. `rows` are the first rows meant, `count` how many there are."""

    severity: str
    check: str
    text: str
    place: str = ""
    rows: tuple[int, ...] = ()
    field: str = ""
    fix: str = ""
    count: int = 0

    @property
    def line(self) -> str:
        """The finding as a user reads it."""
        rows = ", ".join(map(str, self.rows[:_SHOWN_ROWS])) + (", ..." if self.count > _SHOWN_ROWS else "")
        where = f"{self.place}:{self.rows[0]}" if len(self.rows) == 1 else self.place
        named = f" (rows {rows})" if len(self.rows) > 1 else ""
        head = " ".join(part for part in (where, self.field) if part)
        fix = f"; {self.fix}" if self.fix else ""
        return f"{self.severity}: {head}{': ' if head else ''}{self.text}{named}{fix}"


def stop_at_errors(findings: Iterable[Finding]) -> None:
    """Raises InputError with the lines of all errors among the findings."""
    if errors := [finding.line for finding in findings if finding.severity == "error"]:
        raise InputError(*errors)


@dataclass(frozen=True, eq=False)
class Reference:
    """Log-probs `(n, 2)` in nats, chosen and rejected, of `pairs` as labelled: `stored` in the reference table, `live`
    of the reference's model as training computes them. `lengths` `(n, 2)` in tokens; `dtype` is the coarser one of the
    two forward passes; `file` is the log-prob file that `stored` comes from, empty where the product scored them."""

    pairs: tuple[PreferencePair, ...]
    stored: np.ndarray
    live: np.ndarray
    lengths: np.ndarray
    dtype: str = "float32"
    file: str = ""

    def of(self, pairs: Sequence[PreferencePair]) -> np.ndarray:
        """delta_ref `(m,)` in nats, chosen less rejected, of those of `pairs` that were looked at."""
        wanted = {pair.id for pair in pairs}
        own = np.array([pair.id in wanted for pair in self.pairs], dtype=bool)
        return np.asarray(self.stored[own, 0] - self.stored[own, 1])


@dataclass(frozen=True, eq=False)
class Evidence:
    """One replicate's data as it will be trained on. `rows` are the packed rows of `text.train`; `reference` is None
    where its model does not stand yet. `batch` is the largest batch size of the runs. `shared` are pairs of the same
    texts in the training split and in `data.heldout_split`, (training, held-out). `corruptions` are those of the
    runs."""

    data: DataSpec
    text: TextData
    rows: PairRows
    batch: int = 1
    reference: Reference | None = None
    shared: tuple[tuple[PreferencePair, PreferencePair], ...] = ()
    corruptions: tuple[CorruptionSpec, ...] = ()

    @property
    def place(self) -> str:
        """The source as lines name it."""
        return self.data.path or self.data.hub

    @property
    def pairs(self) -> tuple[PreferencePair, ...]:
        """Training pairs, then held-out ones."""
        return (*self.text.train, *self.text.heldout)

    def token_pairs(self) -> list[tuple[PreferencePair, TokenisedPair]]:
        """The training pairs with their tokens."""
        return [(pair, self.text.tokens[pair.id]) for pair in self.text.train]

    def mean_row(self) -> float:
        """Mean tokens of a training row: prompt and both responses."""
        lengths = [len(row.prompt) + len(row.chosen) + len(row.rejected) for _, row in self.token_pairs()]
        return sum(lengths) / max(len(lengths), 1)


@dataclass(frozen=True, slots=True)
class Check:
    """`about` says what is checked; `run` returns one finding per problem, none if all is well."""

    name: str
    about: str
    run: Callable[[Evidence], list[Finding]]


def row_numbers(pairs: Sequence[PreferencePair]) -> tuple[int, ...]:
    """The first rows of pairs, for a finding."""
    return tuple(int(pair.meta["row"]) for pair in pairs[:_SHOWN_ROWS])

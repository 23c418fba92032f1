"""The nouns of the harness: frozen dataclasses, shapes and units stated once. Imports no torch.

What a spec settles about a run stands in `settings.py` and is imported from here, as all the rest.

Log-probabilities are natural logarithms (nats), summed over response tokens unless a name says otherwise.
`K` lanes (runs trained in lockstep), `B` pairs, `T` tokens. Lane-shaped hyperparameters broadcast as `(K, 1)`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.settings import (
    CorruptionSpec,
    DataSpec,
    EvaluationSpec,
    LmEvalSpec,
    LoraSpec,
    ModelSpec,
    ObjectiveSpec,
    PathModelSpec,
    RunSpec,
    TrainingSpec,
    WorldSpec,
)

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

__all__ = [
    "CorruptionSpec",
    "DataSpec",
    "EvaluationSpec",
    "InputError",
    "LmEvalSpec",
    "LoraSpec",
    "LossOutput",
    "ModelSpec",
    "NoRoom",
    "ObjectiveSpec",
    "PairLogps",
    "Parameter",
    "PathModelSpec",
    "PreferencePair",
    "Record",
    "Records",
    "RunSpec",
    "TrainingSpec",
    "WorldSpec",
]


class InputError(ValueError):
    """What the user gave cannot be used. `problems` holds one line each, naming the key or row and the fix."""

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class NoRoom(Exception):  # noqa: N818 - says what happened
    """The disk is full: the command ends, nothing finished is lost. `problems` holds the lines to show."""

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


@dataclass(frozen=True, slots=True)
class Parameter:
    """One named knob of an objective or a corruption: default, what is allowed, where a search may look.

    `kind` is float, int, bool, choice or table (a structure the row's own function checks). Bounds are inclusive
    unless the matching `*_open` is set. `search` is the range a study draws from, under `prior` (log or linear).
    """

    default: Any
    kind: str = "float"
    low: float | None = None
    high: float | None = None
    low_open: bool = False
    high_open: bool = False
    choices: tuple[str, ...] = ()
    search: tuple[float, float] | None = None
    prior: str = "linear"
    doc: str = ""

    def problem(self, value: Any) -> str | None:
        """Why `value` cannot be used, with the allowed range; None where it can."""
        if self.kind == "table":
            return None
        if self.kind == "bool":
            return None if isinstance(value, bool) else f"expected true or false, got {value!r}"
        if self.kind == "choice":
            return None if value in self.choices else f"expected one of {', '.join(self.choices)}, got {value!r}"
        number = int if self.kind == "int" else (int, float)
        if isinstance(value, bool) or not isinstance(value, number) or not math.isfinite(value):
            return f"expected a finite {'integer' if self.kind == 'int' else 'number'}, got {value!r}"
        below = self.low is not None and (value <= self.low if self.low_open else value < self.low)
        above = self.high is not None and (value >= self.high if self.high_open else value > self.high)
        return f"{value!r} is outside {self.interval()}" if below or above else None

    def interval(self) -> str:
        """The allowed range as text, e.g. `(0, 0.5)` or `[0, inf)`."""
        left = "(-inf" if self.low is None else f"{'(' if self.low_open else '['}{self.low:g}"
        right = "inf)" if self.high is None else f"{self.high:g}{')' if self.high_open else ']'}"
        return f"{left}, {right}"


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """One comparison. `id` is the content hash of the clean pair and survives every corruption.

    `gold_margin` is r(chosen) - r(rejected) under a known reward (None where there is none); `meta` may hold
    `prompt_id`, `score_chosen`, `score_rejected` and whatever else the source knows.
    """

    id: str
    prompt: str
    chosen: str
    rejected: str
    source: str = ""
    gold_margin: float | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PairLogps:
    """Log-probs of a batch of pairs under one model: every field is `(..., B)`, nats, summed over response tokens.

    `chosen_len`, `rejected_len` count the scored tokens (end-of-sequence included). `extra` carries only what an
    objective's row names in `needs`.
    """

    chosen: Tensor
    rejected: Tensor
    chosen_len: Tensor
    rejected_len: Tensor
    extra: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LossOutput:
    """What an objective returns, every field `(..., B)`.

    The mean of `loss` over B is minimised (batch-level objectives repeat the batch value). `base_loss` is the
    per-pair loss of the records. Rewards are what the objective itself calls the implicit reward of each side.
    `state` is carried to the next step (running shift, multipliers); None where the objective keeps none.
    """

    loss: Tensor
    base_loss: Tensor
    chosen_reward: Tensor
    rejected_reward: Tensor
    state: Mapping[str, Tensor] | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """One evaluation of a run on one split at one step: `columns` maps a name to a `(B,)` array, row i is `ids[i]`."""

    run_key: str
    step: int
    split: str
    ids: tuple[str, ...]
    columns: Mapping[str, np.ndarray]
    scalars: Mapping[str, float] = field(default_factory=dict)


Records = Iterator[Record]

"""What a measure is: a function of the records of one split at one step, with its unit, range and reading."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harness.metrics.margin_columns import TIE_TOL
from harness.metrics.records import Columns, column, numbers, size
from harness.types import InputError

LOGPS = ("policy_chosen", "policy_rejected", "reference_chosen", "reference_rejected")
LENGTHS = ("chosen_len", "rejected_len")
INF = math.inf


@dataclass(frozen=True, slots=True)
class View:
    """What a measure reads: the columns and the settings of the run. `beta` and `gamma` are NaN where not given.

    `objective` with its resolved `hyperparameters` is for measures that follow from the loss (targets, the pull).
    """

    columns: Columns
    beta: float = math.nan
    tie_tol: float = TIE_TOL
    gamma: float = math.nan
    flip_rate: float = 0.0
    objective: str = ""
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)


Function = Callable[[View], float]


@dataclass(frozen=True, slots=True)
class Metric:
    """One measure. `direction`: up (larger is better), down (smaller is), none. `low`, `high`: range, ends included.

    `needs` names the columns it reads, `settings` what it cannot do without (beta, gamma, objective). `splits` where it
    means something: O train_observed, C train_clean, E eval_clean, D ood, S free-running samples, P gradient probe. A
    measure that is not `beta_neutral` may only be compared within one beta.
    """

    name: str
    function: Function
    unit: str
    direction: str
    low: float
    high: float
    needs: tuple[str, ...]
    splits: str
    summary: str
    settings: tuple[str, ...] = ()
    beta_neutral: bool = True

    @property
    def share(self) -> bool:
        """Whether it is a share of pairs or samples in [0, 1]: its interval must respect its items."""
        return (self.unit, self.low, self.high) == ("share", 0.0, 1.0)

    def compute(
        self,
        columns: Columns,
        beta: float | None = None,
        tie_tol: float = TIE_TOL,
        gamma: float | None = None,
        flip_rate: float = 0.0,
        objective: str | None = None,
        hyperparameters: Mapping[str, Any] | None = None,
    ) -> float:
        """The measure over all rows given: cut to one step and one split first.

        `tie_tol` in nats, `flip_rate` shrinks the true gap by uniform flips, `hyperparameters` are the objective's,
        resolved. NaN for no rows, for unknown inputs (no gold margin, an objective without a target) and where a
        log-prob is not finite: a diverged policy has no accuracy. Raises InputError naming a missing column or setting.
        """
        given = {"beta": beta, "gamma": gamma, "objective": objective}
        absent = [name for name in self.settings if given[name] is None]
        if absent:
            raise InputError(*(f"measure '{self.name}' needs {name}: give {name}=..." for name in absent))
        for name in self.needs:
            column(columns, name)
        if size(columns) == 0 or not all(
            np.isfinite(numbers(columns, name)).all() for name in self.needs if name in LOGPS
        ):
            return math.nan
        view = View(
            columns,
            math.nan if beta is None else beta,
            tie_tol,
            math.nan if gamma is None else gamma,
            flip_rate,
            objective or "",
            hyperparameters or {},
        )
        return float(self.function(view))

    def known(self, columns: Columns) -> bool:
        """Whether these records have every column it reads: real data has no gold rewards or flags."""
        return all(name in columns for name in self.needs)

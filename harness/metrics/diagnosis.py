"""The divergence types (D1 converged too early, D2 reversed, D3 learned noise) of one run, from step 0 to its end.

The two checkpoints are fixed in advance; the ids are those of the records, the same at every step. D1 is a rule and is
also looked for at the checkpoints between, to say where it starts; D2 and D3 are tests of this one run, over its pairs
(clustered by prompt where pairs share one), corrected over a family of runs by `divergence.confirmed`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.metrics import divergence, targets
from harness.metrics.divergence import Convergence, Divergence
from harness.metrics.margin_columns import TIE_TOL
from harness.metrics.records import Columns, column, flags, numbers, rows, size, steps
from harness.metrics.row import LENGTHS, LOGPS
from harness.types import Split

PROMPT = "prompt_id"
# What a diagnosis reads of the example table: cutting rows is most of its work.
READ = (
    *("step", "split", "id", *LOGPS, *LENGTHS, "base_loss", "grad_w", "grad_l"),
    *("multiplier", "clean_label", "corrupted", PROMPT),
)


@dataclass(frozen=True, slots=True)
class Premature:
    """D1 on one split: the rule at the last step, and the first checkpoint at which it holds (None: at none)."""

    last: Convergence
    starts: int | None


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Everything by split; a split is missing where its rows, or what the rule needs of them, are.

    `premature`: D1 on train_observed and eval_clean. `reversal`: D2 on the same. `memorisation`: D3, observed losses
    and accuracies against train_clean and eval_clean; empty where no training label is corrupted. `finite` is False
    for a run that diverged numerically: nothing else is known.
    """

    finite: bool
    premature: Mapping[str, Premature]
    reversal: Mapping[str, Divergence]
    memorisation: Mapping[str, Divergence]

    @property
    def types(self) -> tuple[str, ...]:
        """The types that fire for this run looked at on its own: D1, D2, D3 in that order."""
        fired = {
            "D1": any(one.last.fires() for one in self.premature.values()),
            "D2": any(one.fires() for one in self.reversal.values()),
            "D3": any(one.fires() for one in self.memorisation.values()),
        }
        return tuple(name for name, fires in fired.items() if fires)


def diagnose(
    examples: Columns,
    objective: str,
    hyperparameters: Mapping[str, Any],
    tie_tol: float = TIE_TOL,
) -> Diagnosis:
    """The diagnosis of one run from its whole example table.

    `hyperparameters` are the objective's, resolved. A policy learnt by reinforcement has no loss of given pairs that
    could part from its ranking, so no type applies to it. Raises InputError where checkpoints hold different ids.
    """
    examples = {name: examples[name] for name in READ if name in examples}
    every = steps(examples)
    first, last = every[0], every[-1]
    splits: tuple[str, ...] = (Split.TRAIN_OBSERVED, Split.HELDOUT)
    ends = {split: (rows(examples, split, first), rows(examples, split, last)) for split in splits}
    finite = all(_finite(columns) for pair in ends.values() for columns in pair)
    if not finite or "base_loss" not in examples:
        return Diagnosis(finite, {}, {}, {})
    usable = {split: pair for split, pair in ends.items() if size(pair[0]) and size(pair[1])}
    premature = {
        split: one
        for split in usable
        if (one := _premature(examples, split, every, objective, hyperparameters, tie_tol)) is not None
    }
    reversal = {split: divergence.true_reversal(*pair, _cluster(*pair)) for split, pair in usable.items()}
    return Diagnosis(True, premature, reversal, _memorisation(examples, usable, first, last))


def _finite(columns: Columns) -> bool:
    return all(np.isfinite(numbers(columns, n)).all() for n in (*LOGPS, "base_loss") if n in columns or n in LOGPS)


def _cluster(*tables: Columns) -> str | None:
    """The prompt column where every table has one and pairs share prompts in any of them, else None."""
    if not all(PROMPT in columns for columns in tables):
        return None
    shared = any(len(np.unique(np.asarray(c[PROMPT]).astype(str))) < size(c) for c in tables)
    return PROMPT if shared else None


def _memorisation(
    examples: Columns, usable: Mapping[str, tuple[Columns, Columns]], first: int, last: int
) -> dict[str, Divergence]:
    """D3 against each clean set there is, where some training pair is wrongly labelled or damaged."""
    if Split.TRAIN_OBSERVED not in usable:
        return {}
    observed = usable[Split.TRAIN_OBSERVED]
    if not (flags(observed[0], "corrupted").any() or (column(observed[0], "clean_label") < 0).any()):
        return {}
    by_split: dict[str, Divergence] = {}
    for split in (Split.TRAIN_CLEAN, Split.HELDOUT):
        clean = rows(examples, split, first), rows(examples, split, last)
        if size(clean[0]) and size(clean[1]):
            by_split[split] = divergence.noise_memorisation(*observed, *clean, _cluster(*observed, *clean))
    return by_split


def _premature(
    examples: Columns,
    split: str,
    every: list[int],
    objective: str,
    hyperparameters: Mapping[str, Any],
    tie_tol: float,
) -> Premature | None:
    """D1 on a split; None where a pull is not finite, or zero at step 0."""
    start = rows(examples, split, every[0])
    by_step: dict[int, Convergence] = {}
    for step in every[1:]:
        now = rows(examples, split, step)
        if not size(now) or not _finite(now):
            continue
        before, after = divergence.matched(start, now, split)
        pull_first, pull_now = (targets.pull(objective, columns, hyperparameters) for columns in (before, after))
        if not np.isfinite(pull_first + pull_now).all():
            return None
        if pull_first.mean() == 0:  # nothing to be relative to
            return None
        by_step[step] = divergence.premature_convergence(after, pull_first, pull_now, tie_tol, _cluster(after))
    if every[-1] not in by_step:
        return None
    return Premature(by_step[every[-1]], next((step for step, one in by_step.items() if one.fires()), None))

"""The measured columns of `results.csv`, from a run's records."""

from __future__ import annotations

import math

from harness.metrics import safety
from harness.metrics.margin_columns import TIE_TOL
from harness.metrics.records import Columns, rows, size, steps, where
from harness.metrics.registry import METRICS
from harness.metrics.samples import of_evaluation
from harness.types import InputError, Split

# Further measures of samples; those whose columns a source does not have (flags of real data) are left out.
SAMPLED = (
    "correct", "malformed", "over_refusal", "sycophancy", "harmful", "mean_length", "entropy", "reference_gold_reward"
)  # fmt: skip


def results_row(
    examples: Columns, samples: Columns | None, beta: float | None, tie_tol: float = TIE_TOL
) -> dict[str, float | None]:
    """The measured columns of `results.csv` from a run's whole example table and its samples (None: not drawn).

    First and last step are those of the whole table; what was not measured there, or is not finite, is None. Losses
    are means of `loss` over the training probe set (None for RL, which has no loss of given pairs), `ood_` is split
    `ood`, the rest is held-out clean; gold reward, KL and `SAMPLED` come from samples of evaluation prompts,
    `ood_gold_reward` from those of OOD prompts.
    Raises InputError on an empty table or samples without evaluation prompts.
    """
    if size(examples) == 0:
        raise InputError("examples: no rows; a run without records has no results")
    every = steps(examples)
    first, last = every[0], every[-1]
    held_out, other = where(examples, last, Split.HELDOUT), where(examples, last, Split.OOD)

    def compute(name: str, columns: Columns) -> float:
        return METRICS[name].compute(columns, beta=beta, tie_tol=tie_tol)

    def loss(step: int) -> float:
        return compute("loss", where(examples, step, Split.TRAIN_OBSERVED)) if "loss" in examples else math.nan

    names = ("reward_accuracy", "ranking_accuracy", "undesirable_zone", "chosen_displacement", "rejected_displacement")
    row = {
        "train_loss_first": loss(first),
        "train_loss_last": loss(last),
        **{name: compute(name, held_out) for name in names},
        "gold_reward": math.nan,
        "kl": math.nan,
        "ood_ranking_accuracy": compute("ranking_accuracy", other),
        "ref_accuracy": compute("ref_accuracy", held_out),
        "train_ranking_accuracy": compute("ranking_accuracy", rows(examples, Split.TRAIN_OBSERVED, last)),
        "train_clean_ranking_accuracy": compute("ranking_accuracy", rows(examples, Split.TRAIN_CLEAN, last)),
    }
    if samples is not None:
        drawn, elsewhere = of_evaluation(samples), where(samples, split=Split.OOD)
        row |= {name: compute(name, drawn) for name in ("gold_reward", "kl")}
        row |= {name: compute(name, drawn) for name in SAMPLED if METRICS[name].known(drawn)}
        row["ood_gold_reward"] = compute("gold_reward", elsewhere)
        if size(asked := where(samples, split=Split.BEHAVIOUR)):
            row |= {one.name: compute(one.name, asked) for one in safety.ROWS}
    return {name: value if math.isfinite(value) else None for name, value in row.items()}

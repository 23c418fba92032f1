"""What the report needs from one run's per-example records beyond its row of `results.csv`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.measure import records
from harness.report.reading import Run
from harness.tracking.store import read_table


@dataclass(frozen=True, slots=True)
class Facts:
    """Numbers over a run's clean held-out pairs at its last step; shares in [0, 1], log-probs in nats.

    `fell_while_wrong`: share of pairs whose own loss lies below its value at the first checkpoint while the policy
    ranks them wrong (None where pairs have no loss). `predicted`: share with delta_ref + gold_margin / beta < 0, the
    pairs that the objective's own optimum ranks wrong (None without gold margins or beta); `violated`: the share with
    delta < 0, measured.
    `groups` maps a pair's group to (pairs, ranking accuracy). `audited`: wrong labels among the first 50 training probe
    pairs, and how many those are (None where the true labels are not known). `delta_ref`, `delta` are `(n,)` in the
    order of the ids.
    """

    items: int
    ood_items: int
    reference_accuracy: float
    fell_while_wrong: float | None
    violated: float
    predicted: float | None
    groups: Mapping[str, tuple[int, float]]
    audited: tuple[int, int] | None
    delta_ref: NDArray[np.float64]
    delta: NDArray[np.float64]


def read_facts(run: Run) -> Facts | None:
    """Facts of a finished run; None where it left no per-example records of held-out pairs."""
    path = None if run.folder is None else run.folder / "examples.parquet"
    if path is None or run.status != "done" or not path.is_file():
        return None
    table = read_table(path)
    if "policy_chosen" not in table:  # a reward model: it scores responses and has no policy
        return None
    ood = records.where(table, split="ood")
    heldout = records.where(table, split="eval_clean")
    steps = records.steps(heldout)
    if not steps:
        return None
    last = _sorted(records.where(heldout, step=steps[-1]))
    before, after = records.by_id(records.where(heldout, step=steps[0]), last)
    delta, delta_ref = _margin(last, "policy"), _margin(last, "reference")
    fell = None
    if "base_loss" in table:  # a policy learnt by reinforcement has no loss of given pairs
        fell = records.numbers(after, "base_loss") < records.numbers(before, "base_loss")
    groups = np.asarray(last["group"]).astype(str)
    return Facts(
        items=records.size(last),
        ood_items=records.size(records.where(ood, step=max(records.steps(ood), default=0))),
        reference_accuracy=float(np.mean(delta_ref > 0)),
        fell_while_wrong=None if fell is None else float(np.mean(fell & (_margin(after, "policy") <= 0))),
        violated=float(np.mean(delta < 0)),
        predicted=_predicted(last, delta_ref, _gold_beta(run)),
        groups={
            str(name): (int((groups == name).sum()), float(np.mean(delta[groups == name] > 0)))
            for name in np.unique(groups)
        },
        audited=_audited(records.where(table, step=steps[-1], split="train_observed")),
        delta_ref=delta_ref,
        delta=delta,
    )


def _gold_beta(run: Run) -> float | None:
    """Beta where it weighs the true reward: of an RL run only if that is what it learns from, undivided."""
    own = run.hyperparameters
    return None if own.get("reward") == "model" or own.get("reward_scale") else run.beta


def _audited(probe: records.Columns, count: int = 50) -> tuple[int, int] | None:
    """(wrong labels, pairs) of the first probe pairs, which stand in the order of their hash."""
    if not records.size(probe) or not np.isfinite(records.numbers(probe, "gold_margin")).any():
        return None
    labels = records.numbers(probe, "clean_label")[:count]
    return int((labels < 0).sum()), len(labels)


def _sorted(rows: records.Columns) -> dict[str, records.Array]:
    """Rows in the order of their ids, so that no sum depends on the order in the file."""
    return records.select(rows, np.argsort(np.asarray(rows["id"]).astype(str), kind="stable"))


def _margin(rows: records.Columns, model: str) -> NDArray[np.float64]:
    return records.numbers(rows, f"{model}_chosen") - records.numbers(rows, f"{model}_rejected")


def _predicted(rows: records.Columns, delta_ref: NDArray[np.float64], beta: float | None) -> float | None:
    gap = records.numbers(rows, "gold_margin")
    if beta is None or not np.isfinite(gap).all():
        return None
    return float(np.mean(delta_ref + gap / beta < 0))

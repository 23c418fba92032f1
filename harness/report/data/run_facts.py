"""What the report needs from one run's per-example records beyond its row of `results.csv`: each file is read once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.metrics import records
from harness.metrics.diagnosis import READ, Diagnosis, diagnose
from harness.metrics.divergence import Divergence, confirmed
from harness.metrics.margin_columns import TIE_TOL, chosen_log_ratio, delta, delta_ref, margins, rejected_log_ratio
from harness.metrics.pair_measures import RATES
from harness.metrics.slices import SLICE
from harness.metrics.theory import Theory, theory
from harness.report.data.sweep import Run
from harness.types import InputError, Split

NEEDED = (
    *("step", "split", "id", "policy_chosen", "policy_rejected", "reference_chosen", "reference_rejected"),
    *("clean_label", "corrupted", "gold_margin", "group", "corruption_kind"),
)
LOSSES = ("loss", "base_loss")  # NaN for a policy trained by reinforcement learning: it has no loss of single pairs
COLUMNS = (*NEEDED, *LOSSES, "chosen_len", "rejected_len", "multiplier", "grad_w", "grad_l", "prompt_id")
TRACKED = (
    *("ranking_accuracy", "reward_accuracy", "zone_z1", "zone_z2", "undesirable_zone", "zone_z4"),
    *("disp_rate", "both_down"),
)
REWARD_MODEL = "reward_model"
DIVERGENCES = {"D1": "satisfied too early", "D2": "reversed", "D3": "memorised noise"}
AUDITED = 50  # pairs a person would check by hand

Series = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Track:
    """One split over its checkpoints: `steps` ascending and, by name, one mean per step `(len(steps),)`.

    Names: those of `TRACKED`, `chosen_displacement` and `rejected_displacement` (nats), `loss`.
    """

    steps: tuple[int, ...]
    means: Mapping[str, Series]


@dataclass(frozen=True, slots=True)
class Probe:
    """Training probe pairs at the last step, arrays `(n,)` in the order of their `ids`.

    `margin` and `before` are the policy's and the reference's, in nats, in the direction of the label the optimiser
    saw; `wrong` where that label is not the true one; `kinds` the corruption that touched the pair, "" for none.
    """

    ids: NDArray[np.object_]
    margin: NDArray[np.float32]
    before: NDArray[np.float32]
    wrong: NDArray[np.bool_]
    kinds: NDArray[np.object_]

    @property
    def reference(self) -> float:
        """Share of the wrongly labelled pairs that the reference already ranks as their label says, NaN without any."""
        return float(np.mean(self.before[self.wrong] > 0)) if self.wrong.any() else math.nan


@dataclass(frozen=True, slots=True)
class Facts:
    """Numbers over a run's clean held-out pairs at its last step; shares in [0, 1], log-probs in nats.

    `fell_while_wrong`: share of pairs whose own loss lies below its value at the first checkpoint while the policy
    ranks them wrong (None where pairs have no loss). `theory`: closed forms beside what was measured (None without gold
    margins). `memorised`: share of wrongly labelled training probe pairs that the policy ranks as the wrong label says
    (None without any). `groups` maps a pair's group to (pairs, ranking accuracy). `audited`: wrong labels among the
    first 50 training probe pairs, and how many those are (None where the true labels are not known). `ids` and, beside
    them, `delta_ref`, `delta`, `gap` (gold, NaN if unknown), the `prompts` and by column the values of `slices` are
    `(n,)`. `diagnosis` compares the first and the last checkpoint.
    """

    items: int
    ood_items: int
    reference_accuracy: float
    fell_while_wrong: float | None
    theory: Theory | None
    memorised: float | None
    groups: Mapping[str, tuple[int, float]]
    audited: tuple[int, int] | None
    ids: NDArray[np.object_]
    delta_ref: NDArray[np.float32]
    delta: NDArray[np.float32]
    gap: NDArray[np.float32]
    prompts: NDArray[np.object_]
    slices: Mapping[str, NDArray[np.object_]]
    heldout: Track
    train: Track
    probe: Probe | None
    diagnosis: Diagnosis


# Which held-out pairs count, of the shares whose records are kept: what pairs two methods item by item.
COUNTED: Mapping[str, Callable[[Facts], NDArray[np.bool_]]] = {
    "ranking_accuracy": lambda facts: facts.delta > 0,
    "ref_accuracy": lambda facts: facts.delta_ref > 0,
    "reward_accuracy": lambda facts: facts.delta - facts.delta_ref > TIE_TOL,
    "undesirable_zone": lambda facts: (facts.delta < 0) & (facts.delta - facts.delta_ref > TIE_TOL),
}


def read_facts(run: Run) -> Facts | None:
    """Facts of a finished run; None where it left no per-example records of held-out pairs.

    Raises OSError where the file does not match its checksum, InputError where it lacks one of `NEEDED`.
    """
    sliced = [SLICE + name for name in run.slices]
    table = run.table("examples.parquet", (*COLUMNS, *sliced)) if run.done else None
    if table is None:
        return None
    for name in NEEDED:
        records.column(table, name)
    table |= {name: np.full(records.size(table), math.nan) for name in LOSSES if name not in table}
    blocks = _blocks(table)
    heldout = {step: rows for (split, step), rows in blocks.items() if split == Split.HELDOUT}
    train = {step: rows for (split, step), rows in blocks.items() if split == Split.TRAIN_OBSERVED}
    ood = [rows for (split, _), rows in blocks.items() if split == Split.OOD]
    if not heldout:
        return None
    tie_tol = float((run.provenance.get("machine") or {}).get("tie_tol") or TIE_TOL)
    last = heldout[max(heldout)]
    before, after = records.by_id(heldout[min(heldout)], last)
    moved, reference = delta(last), delta_ref(last)
    loss_before, loss_after = (records.numbers(rows, "base_loss") for rows in (before, after))
    fell = loss_after < loss_before
    probe = _probe(train[max(train)]) if train else None
    return Facts(
        items=records.size(last),
        ood_items=records.size(ood[-1]) if ood else 0,
        reference_accuracy=float(np.mean(reference > 0)),
        fell_while_wrong=float(np.mean(fell & (delta(after) <= 0))) if np.isfinite(loss_after).all() else None,
        theory=_theory(run, last),
        memorised=None if probe is None or not probe.wrong.any() else float(np.mean(probe.margin[probe.wrong] > 0)),
        groups=_by_group(last, moved),
        audited=_audited(train[max(train)]) if train else None,
        ids=last["id"].copy(),  # not a view: it would keep the whole table alive
        delta_ref=reference.astype(np.float32),
        delta=moved.astype(np.float32),
        gap=records.numbers(last, "gold_margin").astype(np.float32),
        prompts=last["prompt_id" if "prompt_id" in last else "id"].copy(),
        slices={name.removeprefix(SLICE): last[name].copy() for name in sliced if name in last},
        diagnosis=_diagnosis(run, blocks, tie_tol),
        heldout=_track(heldout, tie_tol),
        train=_track(train, tie_tol),
        probe=probe,
    )


def _blocks(table: records.Columns) -> dict[tuple[str, int], dict[str, records.Array]]:
    """Rows by split and step, steps ascending, each in the order of the ids: no sum depends on the file's order."""
    ids, splits = _ranks(table["id"]), _ranks(table["split"])
    steps = np.asarray(table["step"])
    order = np.lexsort((ids, steps, splits))
    ordered = records.select(table, order)
    new = np.flatnonzero(np.diff(splits[order]) | np.diff(steps[order])) + 1
    starts, ends = [0, *new.tolist()], [*new.tolist(), len(order)]
    return {
        (str(ordered["split"][a]), int(ordered["step"][a])): {name: v[a:b] for name, v in ordered.items()}
        for a, b in zip(starts, ends, strict=True)
        if b > a
    }


def _diagnosis(run: Run, blocks: Mapping[tuple[str, int], records.Columns], tie_tol: float) -> Diagnosis:
    """Of the first and last checkpoint alone: what happened between them is drawn, not tested."""
    ends = {min(step for _, step in blocks), max(step for _, step in blocks)}
    parts = [rows for (split, step), rows in blocks.items() if step in ends and split != Split.OOD]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0] if name in READ}
    return diagnose(columns, run.objective, run.hyperparameters, tie_tol)


def _ranks(texts: records.Array) -> NDArray[np.int64]:
    """The rank of each text among the distinct ones: few repeat often, so only those are sorted."""
    ranks = {text: rank for rank, text in enumerate(sorted(set(texts.tolist())))}
    return np.fromiter((ranks[text] for text in texts.tolist()), np.int64, len(texts))


def _track(blocks: Mapping[int, records.Columns], tie_tol: float) -> Track:
    means: dict[str, list[float]] = {}
    for rows in blocks.values():
        parts = margins(rows, tie_tol)
        values: dict[str, records.Array] = {name: RATES[name].holds(parts) for name in TRACKED}
        values |= {"chosen_displacement": chosen_log_ratio(rows), "rejected_displacement": rejected_log_ratio(rows)}
        values["loss"] = records.numbers(rows, "loss")
        for name, column in values.items():
            means.setdefault(name, []).append(float(column.mean()))
    return Track(tuple(blocks), {name: np.array(series) for name, series in means.items()})


def _probe(rows: records.Columns) -> Probe:
    wrong, kinds = np.asarray(rows["clean_label"]) < 0, rows["corruption_kind"].copy()
    margins = delta(rows).astype(np.float32), delta_ref(rows).astype(np.float32)
    return Probe(rows["id"].copy(), *margins, wrong, kinds)


def _audited(probe: records.Columns) -> tuple[int, int] | None:
    """(wrong labels, pairs) of the first probe pairs, which stand in the order of their hash."""
    if not records.size(probe) or not np.isfinite(records.numbers(probe, "gold_margin")).any():
        return None
    labels = records.numbers(probe, "clean_label")[:AUDITED]
    return int((labels < 0).sum()), len(labels)


def _by_group(rows: records.Columns, moved: Series) -> dict[str, tuple[int, float]]:
    groups, right = _ranks(rows["group"]), moved > 0
    names = sorted(set(rows["group"].tolist()))
    counts, sums = np.bincount(groups), np.bincount(groups, weights=right)
    return {str(name): (int(counts[i]), float(sums[i] / counts[i])) for i, name in enumerate(names)}


def _theory(run: Run, rows: records.Columns) -> Theory | None:
    """Closed forms need known labels: the clean set's, or uniform flips of them at a planned rate."""
    if run.labels is None or run.corruption not in ("none", "uniform_flip"):
        return None
    hyperparameters = run.hyperparameters
    if hyperparameters.get("reward") == "model" or hyperparameters.get("reward_scale"):
        hyperparameters = hyperparameters | {"beta": None}  # beta weighs another reward than the true gap
    return theory(rows, run.objective, hyperparameters, min(run.rate or 0.0, 0.5), run.labels)


def read_all(runs: Sequence[Run], limit: int) -> tuple[dict[str, Facts], tuple[str, ...]]:
    """Facts by run key, and what a reader must know about records that could not be read: one sentence each.

    Above `limit` runs no per-example record is read at all.
    """
    # A reward model scores responses and has no policy: its numbers stand in its result.
    done = [run for run in runs if run.done and run.objective != REWARD_MODEL]
    if len(runs) > limit:
        return {}, (
            f"{len(runs)} runs: above {limit} the report reads no per-example records; what needs them is left out and"
            " intervals of shares rest on the planned number of pairs",
        )
    facts: dict[str, Facts] = {}
    absent: list[str] = []
    damaged: list[str] = []
    for run in done:
        try:
            one = read_facts(run)
        except (OSError, InputError, ValueError) as problem:
            damaged.append(f"{run.key[:8]} ({type(problem).__name__})")
            continue
        if one is None:
            absent.append(run.key[:8])
        else:
            facts[run.key] = one
    problems = []
    if absent:
        problems.append(f"no per-example records of {_some(absent, len(done))}: their share of the figures is missing")
    if damaged:
        problems.append(
            f"per-example records of {_some(damaged, len(done))} cannot be read; `harness verify` names them"
        )
    return facts, tuple(problems)


def _some(keys: Sequence[str], of: int) -> str:
    more = ", \u2026" if len(keys) > 3 else ""
    return f"{len(keys)} of {of} finished runs ({', '.join(keys[:3])}{more})"


def divergence_types(facts: Mapping[str, Facts]) -> dict[str, tuple[str, ...]]:
    """The divergence types of each run by its key: D1 by its rule, D2 and D3 where Holm over all runs confirms them."""
    tests: dict[tuple[str, str, str], Divergence] = {}
    for key, one in facts.items():
        for kind, by_split in (("D2", one.diagnosis.reversal), ("D3", one.diagnosis.memorisation)):
            tests |= {(key, kind, split): divergence for split, divergence in by_split.items()}
    sure = {(key, kind) for key, kind, _ in confirmed(tests)} if tests else set()
    types = {}
    for key, one in facts.items():
        early = any(premature.last.fires() for premature in one.diagnosis.premature.values())
        types[key] = (*(["D1"] if early else []), *(kind for kind in ("D2", "D3") if (key, kind) in sure))
    return types

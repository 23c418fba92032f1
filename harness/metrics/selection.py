"""Model selection is a named rule: what each rule would have picked, side by side, and what it costs on test.

The rules differ in what they may look at. The oracle sees true labels of validation pairs, as no user can; the
practitioner sees validation labels as noisy as the training labels (column `validation_label` of held-out pairs); the
last rule looks at no checkpoint but the last. Held-out pairs are cut in two by the hash of their prompt, one half to
choose on and one to report, so that no rule is judged on the prompts it chose by.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.identity import uniform
from harness.metrics.margin_columns import delta
from harness.metrics.records import Bools, Columns, column, numbers, select, size, steps, where
from harness.metrics.statistics import Estimate, cell_estimate, paired_difference
from harness.types import InputError, Split


@dataclass(frozen=True, slots=True)
class Candidate:
    """One checkpoint of one run that a rule may pick. `label` names its settings (objective, beta), `step` where it is.

    `clean`, `test`: ranking accuracy on the two halves of the held-out pairs under their true labels; `observed`: on
    the first half under its noisy labels, None where the records have none. `items`: pairs of the test half.
    """

    label: str
    step: int
    clean: float
    observed: float | None
    test: float
    items: int


def _oracle(candidates: Sequence[Candidate]) -> list[tuple[float, Candidate]]:
    return [(c.clean, c) for c in candidates]


def _practitioner(candidates: Sequence[Candidate]) -> list[tuple[float, Candidate]]:
    return [(_observed(c), c) for c in candidates]


def _last(candidates: Sequence[Candidate]) -> list[tuple[float, Candidate]]:
    ends = {c.label: max(o.step for o in candidates if o.label == c.label) for c in candidates}
    last = [c for c in candidates if c.step == ends[c.label]]
    return [(_observed(c) if len(last) > 1 else 0.0, c) for c in last]


def _observed(candidate: Candidate) -> float:
    if candidate.observed is None:
        raise InputError(
            f"{candidate.label} step {candidate.step}: no validation_label in its records; run the sweep "
            "under another --out to let a rule choose on noisy validation"
        )
    return candidate.observed


# Each rule scores the candidates it may choose among; the highest wins, then the earlier step, then the first label.
RULES: Mapping[str, Callable[[Sequence[Candidate]], list[tuple[float, Candidate]]]] = {
    "oracle": _oracle,
    "practitioner": _practitioner,
    "last": _last,
}
READINGS: Mapping[str, str] = {
    "oracle": "best checkpoint and setting on clean held-out pairs: more than any user can know",
    "practitioner": "best checkpoint and setting on held-out pairs labelled as noisily as the training set",
    "last": "the last checkpoint; settings chosen on noisily labelled held-out pairs",
}


def choose(candidates: Sequence[Candidate], rule: str) -> Candidate:
    """What `rule` picks. InputError for an unknown rule, no candidates, or noisy labels that it needs and lacks."""
    if rule not in RULES:
        raise InputError(f"unknown selection rule '{rule}' (known: {', '.join(RULES)})")
    if not candidates:
        raise InputError("nothing to choose from: no checkpoint has records of held-out pairs")
    scored = RULES[rule](candidates)
    return min(scored, key=lambda pair: (-pair[0], pair[1].step, pair[1].label))[1]


def regret(candidates: Sequence[Candidate], rule: str) -> float:
    """Best test accuracy of any candidate minus that of the rule's pick, in accuracy, at least 0.

    The best is picked with hindsight on the test pairs themselves, so with many candidates it is optimistic and the
    regret too large, for every rule alike: compare rules by their difference.
    """
    return max(c.test for c in candidates) - choose(candidates, rule).test


@dataclass(frozen=True, slots=True)
class RuleResult:
    """One rule over the seeds: `test` accuracy of its picks, `regret`, and `behind`: the oracle's test accuracy minus
    its own, paired by seed (may be below 0: the oracle is lucky only on average). `picks` by seed."""

    rule: str
    test: Estimate
    regret: Estimate
    behind: Estimate
    picks: Mapping[int, Candidate]


def compare_rules(
    candidates: Mapping[int, Sequence[Candidate]], rules: Sequence[str] = tuple(RULES), shared: bool = True
) -> list[RuleResult]:
    """Every rule side by side over the `candidates` by seed, intervals over seeds; `shared`: seeds may share pairs."""
    seeds = sorted(candidates)
    oracle = {seed: choose(candidates[seed], "oracle").test for seed in seeds}
    out = []
    for rule in rules:
        picks = {seed: choose(candidates[seed], rule) for seed in seeds}
        tests = {seed: pick.test for seed, pick in picks.items()}
        test = cell_estimate(list(tests.values()), [pick.items for pick in picks.values()], shared=shared)
        lost = paired_difference({s: regret(candidates[s], rule) for s in seeds}, dict.fromkeys(seeds, 0.0))
        out.append(RuleResult(rule, test, lost, paired_difference(oracle, tests), picks))
    return out


def candidates_of(columns: Columns, label: str) -> list[Candidate]:
    """The checkpoints of one run from its example table: every step with held-out pairs, steps ascending.

    Test pairs are those of split `test` where there are any, else half of `eval_clean`, the same half in every run that
    holds the same pairs. Checkpoints with a log-prob that is not finite are left out: nobody would pick them.
    """
    own_test = bool(size(where(columns, split="test")))
    out = []
    for step in steps(where(columns, split=Split.HELDOUT)):
        held = where(columns, step, Split.HELDOUT)
        chosen_on = np.ones(size(held), dtype=bool) if own_test else validation_half(_prompts(held))
        validation = select(held, chosen_on)
        test = where(columns, step, "test") if own_test else select(held, ~chosen_on)
        if size(validation) and size(test) and np.isfinite(delta(held)).all() and np.isfinite(delta(test)).all():
            clean, reported = float(np.mean(delta(validation) > 0)), float(np.mean(delta(test) > 0))
            out.append(Candidate(label, step, clean, _observed_accuracy(validation), reported, size(test)))
    return out


def _prompts(held: Columns) -> np.ndarray:
    """The ids that halves are cut by; of records older than the column, each pair counts as a prompt of its own."""
    return column(held, "prompt_id" if "prompt_id" in held else "id")


def validation_half(prompts: Sequence[str] | np.ndarray) -> Bools:
    """Which rows `(n,)` belong to the half to choose on, by the id of their prompt: all pairs of a prompt together."""
    side = {str(name): uniform(0, "validation half", str(name)) < 0.5 for name in dict.fromkeys(map(str, prompts))}
    return np.array([side[str(name)] for name in prompts], dtype=bool)


def _observed_accuracy(validation: Columns) -> float | None:
    """Ranking accuracy under `validation_label` (+1, -1; 0: would not be in a noisy set); None without the column."""
    if "validation_label" not in validation:
        return None
    labels = numbers(validation, "validation_label")
    known = labels != 0
    if not known.any():
        return None
    share = float(np.mean(labels[known] * delta(validation)[known] > 0))
    return share if math.isfinite(share) else None

"""Each verdict on a planted log-prob file, and the same file without what makes it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from harness.diagnose.diagnosis import Diagnosis, Labels
from harness.diagnose.verdict import KINDS
from tests.diagnose.planted_logps import PAIRS, columns, diagnosed, joined, margins


def kind(found: Diagnosis) -> str:
    return found.policies[0].verdict.kind


def rescued(reference: Any, share: float, beyond: float = 3.0) -> Any:
    """Gains that turn a share of the wrong pairs and improve the others a little."""
    wrong = np.flatnonzero(reference < 0)
    gain = np.full(len(reference), 1.0)
    turned = wrong[: round(share * len(wrong))]
    gain[turned] = beyond - reference[turned]
    return gain


def test_healthy() -> None:
    reference = margins(0.4)
    found = diagnosed(columns(reference, rescued(reference, 0.95)))
    assert kind(found) == "healthy"
    assert found.policies[0].estimates["ranking_accuracy"].mean == pytest.approx(0.98, abs=0.005)


def test_premature_convergence_and_its_interval_holds_the_share() -> None:
    reference = margins(0.6)
    rows = columns(reference, np.full(PAIRS, 1.5))
    found = diagnosed(rows, beta=5.0)
    said = found.policies[0].verdict
    assert said.kind == "premature_convergence"
    assert said.what == "undesirable_zone"
    assert said.interval is not None
    assert said.interval.low < 0.6 < said.interval.high
    for part in ("60 % of the pairs were misranked", "reward accuracy is 100 %", "beta 5"):
        assert part in said.text


def test_the_same_margins_at_a_beta_that_still_pulls_are_not_finished() -> None:
    found = diagnosed(columns(margins(0.6), np.full(PAIRS, 1.5)), beta=0.1)
    assert kind(found) == "inconclusive"
    assert "train longer" in found.policies[0].verdict.text


def test_reversal() -> None:
    reference = margins(0.2)
    right = np.flatnonzero(reference > 0)
    gain = np.where(reference > 0, 8.0, 1.0)
    gain[right[:100]] = -8.0
    found = diagnosed(columns(reference, gain))
    assert kind(found) == "reversal"
    assert "the reference 80 %" in found.policies[0].verdict.text


def test_reversal_since_an_earlier_checkpoint() -> None:
    reference = margins(0.5)
    good, worse = rescued(reference, 1.0), rescued(reference, 0.6)
    rows = joined(*(columns(reference, gain, step=step) for step, gain in ((10, good), (20, good), (30, worse))))
    found = diagnosed(rows)
    assert kind(found) == "reversal"
    assert found.policies[0].fall is not None
    assert "at step 10" in found.policies[0].verdict.text
    assert [point.step for point in found.policies[0].trajectory] == [10, 20, 30]


def noisy(followed: float) -> dict[str, Any]:
    """Held-out pairs that are fine, and training pairs of which the first 90 have wrong labels."""
    reference = margins(0.4)
    train = np.full(PAIRS, 3.0)
    train[:90] = -3.0  # the reference ranks against the wrong label
    gain = np.full(PAIRS, 2.0)
    gain[: round(90 * followed)] = 6.0
    heldout = columns(reference, rescued(reference, 0.97), gold_margin=1.0)
    trained = columns(train, gain, split="train", name="t", gold_margin=1.0)
    trained["gold_margin"] = [-1.0] * 90 + [1.0] * (PAIRS - 90)
    return joined(heldout, trained)


@pytest.mark.parametrize(("followed", "expected"), [(0.9, "memorised_noise"), (0.2, "healthy")])
@pytest.mark.parametrize("by_ledger", [False, True])
def test_memorised_noise(followed: float, expected: str, by_ledger: bool) -> None:
    rows = noisy(followed)
    ledger = None
    if by_ledger:
        rows["gold_margin"] = [None] * len(rows["id"])
        ledger = Labels({f"t{i}": -1 for i in range(90)}, {})
    found = diagnosed(rows, ledger=ledger)
    assert kind(found) == expected
    memory = found.policies[0].memorised
    assert memory is not None
    assert memory.wrong == 90
    assert memory.followed is not None
    assert memory.followed.mean == pytest.approx(followed, abs=0.01)


def test_a_ledger_of_the_measured_set_itself_splits_it() -> None:
    reference = margins(0.4)
    gain = rescued(reference, 1.0)
    reference[:60], gain[:60] = -3.0, 6.0
    found = diagnosed(columns(reference, gain), ledger=Labels({f"p{i}": -1 for i in range(60)}, {}))
    assert kind(found) == "memorised_noise"
    assert found.pairs == PAIRS - 60


def test_displaced() -> None:
    reference = margins(0.4)
    gain = rescued(reference, 0.97)
    found = diagnosed(columns(reference, gain, chosen_shift=-15.0))
    assert kind(found) == "displaced"
    assert "15.0 nats" in found.policies[0].verdict.text
    # As many nats over far longer answers are nothing.
    longer = columns(reference, gain, chosen_shift=-15.0) | {
        "chosen_len": [2000] * PAIRS,
        "rejected_len": [2000] * PAIRS,
    }
    assert kind(diagnosed(longer)) == "healthy"


@pytest.mark.parametrize(
    ("rows", "beta", "said"),
    [
        (columns(margins(0.4), np.zeros(PAIRS)), 0.1, "same log-probs on every pair"),
        (columns(margins(0.4, 12), np.full(12, 3.0)), 5.0, "more prompts are needed"),
        (columns(margins(0.4), np.full(PAIRS, 0.5)), None, "give --beta"),
        (columns(margins(0.1), np.full(PAIRS, -0.1), chosen_shift=0.0), 0.1, "no improvement"),
        (columns([1.0, 2.0], [1.0, 1.0]), 0.1, "1 prompt"),
    ],
)
def test_inconclusive_says_why(rows: dict[str, Any], beta: float | None, said: str) -> None:
    found = diagnosed(rows, beta)
    assert kind(found) == "inconclusive"
    assert said in found.policies[0].verdict.text


def test_without_a_reference_only_the_ranking_is_said() -> None:
    rows = {name: values for name, values in columns(margins(0.3), np.ones(PAIRS)).items() if "reference" not in name}
    found = diagnosed(rows)
    assert kind(found) == "inconclusive"
    assert set(found.policies[0].estimates) == {"ranking_accuracy"}
    assert "give --reference" in found.policies[0].verdict.text
    assert found.policies[0].charts["rewards/accuracies"] == found.policies[0].estimates["ranking_accuracy"].mean
    assert all(math.isfinite(value) for value in found.policies[0].metrics.values())


def test_every_kind_has_a_test_here() -> None:
    text = open(__file__, encoding="utf-8").read()  # noqa: SIM115, PTH123
    assert all(f'"{name}"' in text for name in KINDS)

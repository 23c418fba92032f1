"""The audit against the embedded world, where the wrong labels are known: what docs/audit.md says of chance errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.audit.audit import first_sentence
from tests.audit_science.world_audits import WorldAudit, world_audit

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("references")


def predicted(one: WorldAudit) -> list[tuple[float, float]]:
    """Predicted and true precision at cuts of 5, 10 and 20 %."""
    cuts = [cut for cut in one.found.cuts if cut.share in (0.05, 0.1, 0.2)]
    assert len(cuts) == 3
    return [(cut.precision.mean, one.precision(cut.rows)) for cut in cuts]


@pytest.mark.parametrize(
    ("name", "least", "reference"), [("uniform-0", 0.95, (0.9, 1.0)), ("uniform", 0.9, (0.4, 0.6))]
)
def test_errors_of_chance_are_found_and_counted(
    cache: Path, name: str, least: float, reference: tuple[float, float]
) -> None:
    one = world_audit(name, cache)
    assert one.auroc >= least and reference[0] <= one.reference <= reference[1]
    assert abs(one.found.fit.share.mean - one.wrong.mean()) <= 0.03
    assert all(abs(a - b) <= 0.05 for a, b in predicted(one))
    assert one.found.advice.action in ("drop", "relabel") and one.precision(one.found.advice.rows) > 0.9


@pytest.mark.parametrize("name", ["clean-0", "clean"])
def test_clean_labels_are_left_alone(cache: Path, name: str) -> None:
    one = world_audit(name, cache)
    assert one.found.advice.rows <= 0.02 * len(one.wrong) and one.found.fit.share.mean <= 0.03


def test_bradley_terry_errors_are_counted(cache: Path) -> None:
    one = world_audit("bt", cache)
    assert one.auroc >= 0.9 and abs(one.found.fit.share.mean - one.wrong.mean()) <= 0.03
    assert all(abs(a - b) <= 0.05 for a, b in predicted(one))


def test_errors_that_follow_a_rule_are_missed_and_the_first_sentence_says_that_it_may_be_so(cache: Path) -> None:
    one = world_audit("hard", cache)
    assert one.found.fit.share.high < one.wrong.mean()  # it does not see them
    assert "Errors that follow a rule are not seen" in first_sentence(one.found)

"""The checks, in the order of their report: a new one is a pure function of the evidence and a row."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from harness.preflight import labels, tokens
from harness.preflight import reference as step0
from harness.preflight.row import SEVERITIES, Evidence, Finding


@dataclass(frozen=True, slots=True)
class Check:
    """`about` says what is looked at; `run` gives a finding for each thing to say, none where all is well."""

    name: str
    about: str
    run: Callable[[Evidence], list[Finding]]


CHECKS: tuple[Check, ...] = (
    Check("swapped_columns", "chosen and rejected in each other's column", labels.swapped_columns),
    Check("contradictions", "pairs in both orders", labels.contradictions),
    Check("duplicates", "repeated pairs", labels.duplicates),
    Check("dropped_rows", "unusable rows", tokens.dropped_rows),
    Check("truncation", "responses and prompts that are cut", tokens.truncation),
    Check("end_of_sequence", "responses that do not end, or whose end is not scored", tokens.end_of_sequence),
    Check("few_pairs", "too few pairs for a batch or a measure", tokens.few_pairs),
    Check("policy_is_reference", "policy and reference before the first step", step0.policy_is_reference),
    Check("assumption", "pairs that the reference ranks the other way", step0.assumption),
)


def run_checks(evidence: Evidence, checks: Iterable[Check] = CHECKS) -> list[Finding]:
    """What every check finds, worst first, in the order of the table within a severity."""
    found = [finding for check in checks for finding in check.run(evidence)]
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))

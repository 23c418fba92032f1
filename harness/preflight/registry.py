"""The checks before training, in the order of their report. A new one is a function and a row in one of the files."""

from __future__ import annotations

from collections.abc import Iterable

from harness.preflight import corruptions, labels, reference, tokens
from harness.preflight.row import SEVERITIES, Check, Evidence, Finding

CHECKS: tuple[Check, ...] = (*labels.ROWS, *corruptions.ROWS, *tokens.ROWS, *reference.ROWS)


def run_checks(evidence: Evidence, checks: Iterable[Check] = CHECKS) -> list[Finding]:
    """The findings of every check, worst first, in the order of the table within a severity."""
    findings = [finding for check in checks for finding in check.run(evidence)]
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))

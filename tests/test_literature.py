"""docs/literature.md says what the gallery's reports say: its tables are made from them, its numbers stand in them."""

from __future__ import annotations

import re

from harness.report.sections.claims import CLAIMS
from tests.literature import PAGE, REPORTS, rendered, verdicts

TEXT = PAGE.read_text(encoding="utf-8")


def test_the_tables_are_current() -> None:
    assert rendered(TEXT) == TEXT, "run `python -m tests.readme`"


def test_every_interval_in_the_words_stands_in_the_report_they_name() -> None:
    words = re.sub(r"<!-- (\w+):.*?<!-- /\1 -->", "", TEXT, flags=re.DOTALL)
    items = [item for item in words.split("\n- ") if re.search(r"\d \[", item)]
    assert len(items) >= 5
    for item in items:
        named = re.findall(r"reports/(\w+)/report\.md", item)
        told = "".join((REPORTS / name / "report.md").read_text(encoding="utf-8") for name in named)
        told = " ".join(told.replace("\\", "").split())
        for value, interval in re.findall(r"([−\d.]+)\s+(\[[^\]]+\])(?!\()", item):
            shown = f"{value} {' '.join(interval.split())}"
            assert shown in told, f"{value} {interval}: in none of {named}"


def test_every_claim_is_either_judged_or_named_as_untested() -> None:
    for claim in CLAIMS:
        assert (claim.name in TEXT.split("## Not tested here")[1]) == (not verdicts()[claim.name])

"""The tables of docs/literature.md, from the gallery; `python -m tests.readme` puts them in, the words stand there."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pandas as pd

from harness.metrics.statistics import t_interval
from harness.report.sections.claims import CLAIMS, UNPUBLISHED
from tests.readme import ROOT, table

PAGE = ROOT / "docs" / "literature.md"
REPORTS = ROOT / "reports"
GALLERY = ("quick", "beta", "reversal", "rlhf", "corruption", "real")
UNDECIDED = "interval only"  # fewer than 6 seeds
LENGTHENING = ("length_biased", "adversarial_easy", "uniform_flip")


def verdicts() -> dict[str, dict[str, tuple[str, str, str, str]]]:
    """Claim -> report -> (verdict, interval, what is measured, source cited), where a report gives a verdict on it."""
    found: dict[str, dict[str, tuple[str, str, str, str]]] = {claim.name: {} for claim in CLAIMS}
    for name in GALLERY:
        text = (REPORTS / name / "report.md").read_text(encoding="utf-8").replace("\\[", "[").replace("\\]", "]")
        lines = text.partition("## Claims tested")[2].partition("\n## ")[0].splitlines()
        for title, verdict, measured, _ in (line.strip("| ").split(" | ") for line in lines if line[:1] == "|"):
            claim = next((claim for claim in CLAIMS if title.startswith(f"{claim.name} (")), None)
            if claim is not None and verdict != UNDECIDED:
                interval, _, what = measured.partition(" (")
                cited = title[len(claim.name) + 2 : -1]
                found[claim.name][name] = verdict.removesuffix(" here"), interval, what.rpartition(";")[0], cited
    return found


def claims() -> str:
    """One row a claim, one column a report that gives verdicts."""
    found = verdicts()
    names = [name for name in GALLERY if any(name in seen for seen in found.values())]

    def rows() -> Iterator[tuple[str, ...]]:
        for claim in CLAIMS:
            if seen := found[claim.name]:
                what = re.sub(
                    r"beta [\d.]+ minus at [\d.]+", "its highest beta minus at its lowest", next(iter(seen.values()))[2]
                )
                what = re.sub(r" at beta [\d.]+", "", what)
                cells = (f"{seen[name][0]}: {seen[name][1]}" if name in seen else "-" for name in names)
                cited = {one[3] for one in seen.values()}
                source = claim.source if claim.source in cited else UNPUBLISHED
                yield f"{claim.name} ({source}): {what}", *cells

    return table(("claim: what is measured", *(f"[{name}](../reports/{name}/report.md)" for name in names)), rows())


def untested() -> str:
    """The claims on which no report of the gallery gives a verdict, a line each."""
    found = verdicts()
    return "\n".join(f"- {claim.name} ({claim.source})." for claim in CLAIMS if not found[claim.name])


def lengths() -> str:
    """Mean length of free-running answers less the clean run's of the same seed, tokens, in the corruption gallery."""
    runs = pd.read_csv(REPORTS / "corruption" / "results.csv").set_index("seed")
    clean = runs[runs.corruption == "none"]

    def rows() -> Iterator[tuple[str, ...]]:
        for objective in dict.fromkeys(runs.objective):
            own, base = runs[runs.objective == objective], clean[clean.objective == objective].mean_length
            changes = (t_interval((own[own.corruption == kind].mean_length - base).to_numpy()) for kind in LENGTHENING)
            yield f"`{objective}`", *(f"{e.mean:.2f} [{e.low:.2f}, {e.high:.2f}]".replace("-", "−") for e in changes)

    return table(("answers, tokens longer than on clean labels", *(f"`{kind}`" for kind in LENGTHENING)), rows())


def rendered(text: str) -> str:
    """The page with its tables made anew."""
    for what, made in (("claims", claims()), ("untested", untested()), ("lengths", lengths())):
        pattern = rf"(<!-- {what}:[^\n]*-->\n).*?(<!-- /{what} -->)"
        text = re.sub(pattern, lambda m, made=made: f"{m[1]}{made}\n{m[2]}", text, flags=re.DOTALL)
    return text

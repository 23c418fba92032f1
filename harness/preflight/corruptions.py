"""Do the pairs bring what the sweep's corruptions read: scores, gold margins, columns of markers."""

from __future__ import annotations

from collections.abc import Sequence

from harness.corruptions.apply import apply_spec
from harness.corruptions.registry import needs
from harness.identity import stream_seed
from harness.preflight.row import Check, Evidence, Finding, row_numbers
from harness.types import InputError, PreferencePair

# Facts that tokens and the reference give to every pair, whatever the data.
GIVEN = frozenset(("chosen_len", "rejected_len", "delta_ref", "prompt_id"))


def corruption_facts(e: Evidence) -> list[Finding]:
    """Corruptions that cannot be drawn on these pairs: each is drawn once, on both sides, before anything trains."""
    findings: dict[Finding, None] = {}
    for spec in e.corruptions:
        wanted = sorted(needs(spec) - GIVEN)
        for side in (e.text.train, e.text.heldout) if wanted else ():
            facts = {
                pair.id: {
                    "chosen_len": len(e.text.tokens[pair.id].chosen),
                    "rejected_len": len(e.text.tokens[pair.id].rejected),
                    "delta_ref": 0.0,
                }
                for pair in side
            }
            try:
                apply_spec(spec, side, stream_seed(0, "corruption"), facts)
            except InputError as error:
                lacking = _lacking(side, wanted)
                for line in error.problems:
                    finding = Finding(
                        "error", "corruption_facts", line, e.place, row_numbers(lacking), wanted[0], count=len(lacking)
                    )
                    findings[finding] = None
                break  # the other side would say the same
    return list(findings)


def _lacking(pairs: Sequence[PreferencePair], names: Sequence[str]) -> list[PreferencePair]:
    def has(pair: PreferencePair, name: str) -> bool:
        return (pair.gold_margin if name == "gold_margin" else pair.meta.get(name)) is not None

    return [pair for pair in pairs if not all(has(pair, name) for name in names)]


ROWS = (Check("corruption_facts", "pairs that lack what a corruption reads", corruption_facts),)

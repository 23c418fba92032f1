"""Laws of corruptions, on planted pairs with every fact: the same bytes each time, untouched pairs, declared counts."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from harness.corruptions import CORRUPTIONS, corrupt
from harness.corruptions.ledger import row_hash, set_hash
from harness.corruptions.registry import resolve
from harness.corruptions.row import Corruption
from harness.identity import content_hash
from harness.laws import hold
from harness.types import InputError, PreferencePair

WORDS = [f"word{i}" for i in range(40)] + ["für", "naïve", "日本", "🙂"]
RATES = (0.0, 0.1, 0.3, 0.5, 1.0)
Pairs = Sequence[PreferencePair]
Params = Mapping[str, Any]


def planted(n: int, seed: int = 0, prompts: int | None = None) -> tuple[list[PreferencePair], pd.DataFrame]:
    """`n` pairs with positive gold margins, texts of 3 to 12 words, and a full table of facts."""
    rng = random.Random(seed)  # noqa: S311 - texts, no secrets
    pairs, facts = [], []
    for i in range(n):
        prompt = f"prompt {i % (prompts or max(4, n // 3))}"
        chosen = " ".join(rng.choice(WORDS) for _ in range(rng.randint(3, 12)))
        rejected = " ".join(rng.choice(WORDS) for _ in range(rng.randint(3, 12)))
        margin = abs(rng.gauss(1, 1)) + 1e-3
        identity = content_hash([prompt, chosen, rejected, i])
        pairs.append(PreferencePair(identity, prompt, chosen, rejected, "made", margin, {"row": i}))
        facts.append(
            {
                "id": identity,
                "prompt_id": prompt,
                "score_chosen": margin,
                "score_rejected": 0.0,
                "chosen_len": len(chosen.split()) + 1,
                "rejected_len": len(rejected.split()) + 1,
                "delta_ref": rng.gauss(0, 3),
                "gold_margin": margin,
                "marker_chosen": float(rng.random() < 0.3),
                "marker_rejected": float(rng.random() < 0.3),
                "generator_chosen": f"other good {i}",
                "generator_rejected": f"other bad {i}",
            }
        )
    return pairs, pd.DataFrame(facts)


def run(
    kind: str, params: Params, pairs: Pairs, facts: Any, rate: float = 0.3, seed: int = 0
) -> tuple[list[PreferencePair], pd.DataFrame]:
    """`corrupt` with the rate where the kind takes one under these parameters."""
    share = rate if CORRUPTIONS[kind].takes_rate(params) else None
    return corrupt(pairs, kind=kind, rate=share, seed=seed, facts=facts, **params)


def declared(kind: str, params: Params) -> set[str]:
    """The laws that the row names for these parameters."""
    row = CORRUPTIONS[kind]
    return set(row.rated_laws if row.rate == "derived" and row.takes_rate(params) else row.laws)


def half_up(share: float, n: int) -> int:
    """The count that a share of n pairs means."""
    return math.floor(share * n + 0.5)


def by_id(pairs: Pairs) -> dict[str, PreferencePair]:
    """Pairs by their id, which must be unique."""
    out = {pair.id: pair for pair in pairs}
    hold(len(out) == len(pairs), "two pairs have one id")
    return out


def touches_what_the_ledger_says(kind: str, params: Params, n: int = 41, rate: float = 0.3, seed: int = 0) -> None:
    """The same arguments give the same bytes; pairs outside the ledger stay as they are, and every pair's prompt."""
    pairs, facts = planted(n)
    out, ledger = run(kind, params, pairs, facts, rate, seed)
    again, ledger_again = run(kind, params, pairs, facts, rate, seed)
    same = again == out and ledger.equals(ledger_again) and ledger.attrs == ledger_again.attrs
    hold(same, "two calls with the same arguments differ")
    hold(pairs == planted(n)[0], "changes the pairs that it was given")
    before, after, touched = by_id(pairs), by_id(out), set(ledger["id"])
    hold(
        bool(ledger["id"].is_unique) and touched <= set(before),
        "the ledger names a pair twice, or one that is not there",
    )
    hold(all(after.get(name) == before[name] for name in before.keys() - touched), "changes a pair that no row names")
    for name, pair in after.items():
        clean = before[name.split("#")[0]]
        kept = all(getattr(pair, key) == getattr(clean, key) for key in ("prompt", "source", "gold_margin", "meta"))
        hold(kept, "changes prompt, source, gold margin or meta of a pair")
    hashes = dict(zip(ledger["id"], ledger["before_hash"], strict=True))
    hold(all(hashes[name] == row_hash(before[name]) for name in hashes), "the ledger's hashes are of other pairs")
    acting = int((~ledger["vacuous"]).sum())
    hold((set_hash(pairs) == set_hash(out)) == (acting == 0), "the set changes without an acting row, or the other way")


def order_does_not_matter(kind: str, params: Params, n: int = 41, seed: int = 0, shuffle: int = 1) -> None:
    """Another order of pairs and facts gives the same pairs and the same ledger."""
    pairs, facts = planted(n)
    out, ledger = run(kind, params, pairs, facts, 0.3, seed)
    order = list(range(n))
    random.Random(shuffle).shuffle(order)  # noqa: S311
    moved, ledger_moved = run(kind, params, [pairs[i] for i in order], facts.iloc[::-1], 0.3, seed)
    same = by_id(out) == by_id(moved) and ledger.equals(ledger_moved) and ledger.attrs == ledger_moved.attrs
    hold(same, "depends on the order of the pairs or of the facts")
    known, kept = set(by_id(pairs)), by_id(out)
    wanted = [pairs[i].id for i in order if pairs[i].id in kept]
    hold([pair.id for pair in moved if pair.id in known] == wanted, "changes the order of the pairs")


def rate_zero_is_the_identity(kind: str, params: Params) -> None:
    """At rate 0 nothing happens."""
    if CORRUPTIONS[kind].takes_rate(params):
        pairs, facts = planted(30)
        out, ledger = run(kind, params, pairs, facts, 0.0)
        hold(out == pairs and len(ledger) == 0, "acts at rate 0")


def counts_are_exact(kind: str, params: Params, n: int = 41) -> None:
    """Law C: the share of n pairs, halves rounded up, in rank order."""
    if "C" in declared(kind, params):
        pairs, facts = planted(n)
        for rate in (*RATES, 0.25, 0.75):
            ledger = run(kind, params, pairs, facts, rate)[1]
            hold(
                len(ledger) == half_up(rate, n), f"touches {len(ledger)} of {n} pairs at rate {rate:g}, declares law C"
            )
            hold(ledger["rank"].tolist() == list(range(len(ledger))), "ranks are not 0, 1, 2, ...")


def sets_are_nested(kind: str, params: Params) -> None:
    """Law N: a lower rate touches a subset of what a higher rate touches."""
    if "N" in declared(kind, params):
        pairs, facts = planted(200)
        grid = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0)
        touched = [set(run(kind, params, pairs, facts, rate, 5)[1]["id"]) for rate in grid]
        nested = all(small <= large for small, large in itertools.pairwise(touched))
        hold(nested, "a lower rate touches pairs that a higher rate does not, declares law N")
        hold(not touched[0] and len(touched[-1]) == len(pairs), "rate 0 touches none and rate 1 all")


def twice_is_the_identity(kind: str, params: Params, n: int = 41, rate: float = 0.3, seed: int = 0) -> None:
    """Law I: done twice, in two calls or in one sequence, it undoes itself."""
    if "I" in declared(kind, params):
        pairs, facts = planted(n)
        once, ledger = run(kind, params, pairs, facts, rate, seed)
        touched = set(ledger["id"])
        hold(
            all((p.id in touched) == (q != p) for p, q in zip(pairs, once, strict=True)), "touched pairs are as before"
        )
        hold(run(kind, params, once, facts, rate, seed)[0] == pairs, "twice is not the identity, declares law I")
        step = (kind, rate if CORRUPTIONS[kind].takes_rate(params) else None, params)
        both = corrupt(pairs, kind="sequence", steps=(step, step), seed=seed, facts=facts)[0]
        hold(both == pairs, "twice in a sequence is not the identity, declares law I")


def rates_are_as_declared(kind: str, params: Params) -> None:
    """A derived rate (law D) is refused where it is given, a fixed one has laws C and N; severities resolve."""
    row, laws = CORRUPTIONS[kind], declared(kind, params)
    hold(bool(row.name and row.summary and row.rank), "name, summary and rank must not be empty")
    hold(("D" in laws) == (row.rate == "derived" and not row.takes_rate(params)), "law D goes with a derived rate")
    hold(({"C", "N"} <= laws) == row.takes_rate(params), "laws C and N go with a rate that is set")
    if row.rate == "derived" and not params:
        pairs, facts = planted(10)
        try:
            corrupt(pairs, kind=kind, rate=0.2, seed=0, facts=facts)
        except InputError:
            pass
        else:
            hold(False, "takes a rate although it derives its own")
    for word, values in row.severities.items():
        rate = {"rate": 0.3} if "rate" not in values and row.takes_rate(values) else {}
        resolve({"kind": kind, "severity": word, **rate})


CASE_LAWS = (
    touches_what_the_ledger_says, order_does_not_matter, rate_zero_is_the_identity, counts_are_exact, sets_are_nested,
    twice_is_the_identity, rates_are_as_declared,
)  # fmt: skip


def forms(row: Corruption) -> list[Params]:
    """The parameters under which a row is tried: its defaults, and the form that takes a rate."""
    return [{}, *([{"form": "rate"}] if row.rated_laws else [])]

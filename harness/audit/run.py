"""`harness audit` as a function: gathers evidence, then writes the files of an audit, and a cleaned set on request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from harness.audit.asked import Asked, near
from harness.audit.audit import Audit, Evidence, audit, plain
from harness.audit.cards import cards
from harness.audit.duplicates import contradicted, near_duplicates
from harness.audit.page import build_page
from harness.audit.reading import AuditPairs, read_audit
from harness.audit.train_folds import (
    Judged,
    Say,
    folds_by_prompt,
    head_margins,
    out_of_fold,
    read_by_reference,
    recipes,
)
from harness.data.export_pairs import check_output, export_cleaned
from harness.identity import stream_seed, uniform
from harness.metrics.records import Bools, Floats
from harness.report.render.blocks import stated
from harness.report.sections.row import write_page
from harness.storage.atomic import write_atomic, write_json
from harness.storage.output import check_own
from harness.types import InputError
from harness.worker.prepare import pick_device

TABLE, JSON = "audit.parquet", "audit.json"


def run(asked: Asked, say: Say) -> tuple[dict[str, Any], Path | None]:
    """Write `audit.json`, `audit.parquet`, `index.html` and `report.md` into `asked.out`, and the cleaned set that was
    asked for; returns the content of `audit.json` and the path of the set. `say` shows progress.

    Raises InputError for what cannot be used, before anything is trained where that can be told.
    """
    _check(asked)
    device = pick_device(asked.device)
    known = read_audit(asked, device, say)
    judged = known.judged
    evidence = gather(judged, asked, device, say)
    lengths = np.array([(len(one.chosen), len(one.rejected)) for one in judged.tokens], np.float64).T
    columns = {
        name: np.array([pair.meta["slices"][name] for pair in known.pairs], dtype=object) for name in known.slices
    }
    scores = np.array([np.nan if p.gold_margin is None else p.gold_margin for p in known.pairs], np.float64)
    meta = {
        "model": near(asked.model) or "tiny", "folds": asked.folds, "steps": asked.steps, "seed": asked.seed,
        "sha256": known.data.sha256, "evidence": list(evidence.names),
    }  # fmt: skip
    say("near-duplicates")
    found = audit(
        evidence, np.array(judged.prompts, dtype=object), lengths, contradicted(known.pairs),
        near_duplicates(known.pairs), scores < 0, columns, known.notes, meta,
    )  # fmt: skip
    asked.out.mkdir(parents=True, exist_ok=True)
    _write_table(found, known, evidence, asked)
    rows = np.array([int(pair.meta["row"]) for pair in known.pairs])
    made = cards(found, rows, asked)
    facts = plain(found) | {"cards": stated(made)}
    ids = [pair.id for pair in known.pairs]
    write_page(asked.out, build_page(found, made, rows, ids, asked.data.rpartition("/")[2]))
    write_json(asked.out / JSON, facts)  # last: it says that the audit is whole
    return facts, _clean(asked, found, known)


def gather(judged: Judged, asked: Asked, device: torch.device, say: Say) -> Evidence:
    """The evidence on every pair: as labelled, and with errors planted among the labels."""
    n = len(judged.tokens)
    fold = folds_by_prompt(judged.prompts, asked.folds, asked.seed)
    say(f"reference: {n} pairs")
    reference = read_by_reference(judged, asked.out, device)
    planted = plant(n, asked.plant, asked.seed)
    labels = [np.zeros(n, dtype=bool), planted]
    margins: dict[str, Floats] = {}
    if asked.model:
        margins["head"] = np.stack([head_margins(reference.hidden, flipped, fold) for flipped in labels])
    rate = asked.learning_rate or (1e-3 if not asked.model else 3e-4)
    for recipe in recipes(asked.steps, asked.batch_size, rate) if asked.steps else ():
        margins[recipe.name] = out_of_fold(judged, reference, labels, fold, recipe, asked.out, device, say)
    return Evidence(
        tuple(margins),
        (reference.chosen - reference.rejected).astype(np.float64),
        np.stack([one[0] for one in margins.values()]),
        fold,
        planted,
        np.stack([one[1] for one in margins.values()]),
    )


def plant(n: int, rate: float, seed: int) -> Bools:
    """Which of n labels are turned round on purpose: a share `rate` of them, drawn by place."""
    order = sorted(range(n), key=lambda at: uniform(stream_seed(seed, "audit plant"), "plant", str(at)))
    planted = np.zeros(n, dtype=bool)
    planted[order[: max(1, round(rate * n))]] = True
    return planted


def _check(asked: Asked) -> None:
    """Raise InputError for options that do not go together, before anything is read."""
    if (asked.write is None) != (not asked.clean):
        raise InputError("--write needs one of --drop K, --relabel K and --advice, and each of them needs --write FILE")
    if asked.write is not None and asked.rows < 1 and asked.clean != "advice":
        raise InputError(f"--{asked.clean} {asked.rows}: expected at least 1 row")
    if asked.steps < 10 and (asked.steps or not asked.model):
        raise InputError(f"--steps {asked.steps}: expected at least 10, or with --model 0: no adapters are trained")
    if asked.folds < 2:
        raise InputError(f"--folds {asked.folds}: expected at least 2")
    check_own(asked.out, (JSON, TABLE))
    there = [str(path) for path in (asked.out / JSON, asked.out / TABLE) if path.exists()]
    if there and not asked.force:
        raise InputError(f"--out {asked.out}: {', '.join(there)} exists; choose another folder, or add --force")
    if asked.write is not None:
        check_output(asked.data, asked.write, asked.force)


def _write_table(found: Audit, known: AuditPairs, evidence: Evidence, asked: Asked) -> None:
    """`audit.parquet`: a row per audited pair, in file order."""
    judged = known.judged
    rows = [int(pair.meta["row"]) for pair in known.pairs]
    chances = np.stack([one.wrong(found.margin) for one in (found.fit.best, found.fit.low, found.fit.high)])
    columns = {
        "row": rows,
        "id": [pair.id for pair in known.pairs],
        "prompt_id": list(judged.prompts),
        "suspicion": -found.margin,
        "probability_wrong": found.wrong,
        "probability_wrong_low": chances.min(0),
        "probability_wrong_high": chances.max(0),
        "reference_margin": evidence.reference,
        **{f"{name}_margin": evidence.margins[at] for at, name in enumerate(evidence.names)},
        "fold": evidence.folds,
        "chosen_len": [len(one.chosen) for one in judged.tokens],
        "rejected_len": [len(one.rejected) for one in judged.tokens],
        "contradicted": found.contradicted,
        "near_duplicate_of": pa.array([None if at < 0 else rows[at] for at in found.near.tolist()], pa.int64()),
        "trivial": found.trivial,
        "undecidable": found.undecided,
        "score_against_label": found.scores_against,
    }
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    write_atomic(asked.out / TABLE, sink.getvalue().to_pybytes())


def _clean(asked: Asked, found: Audit, known: AuditPairs) -> Path | None:
    """Write the cleaned set that was asked for; with advice that asks for nothing, the set as it is."""
    if asked.write is None:
        return None
    action, rows = asked.clean, asked.rows
    if action == "advice":
        action, rows = (found.advice.action, found.advice.rows) if found.acts else ("drop", 0)
    margins = {
        (int(pair.meta["row"]), pair.id): float(margin)
        for pair, margin in zip(known.pairs, found.margin.tolist(), strict=True)
    }
    return export_cleaned(known.data, action, rows, margins, asked.write, asked.force).out

"""Audits of the embedded world, where it is known which labels are wrong: the table of docs/audit.md.

`python -m tests.audit_science.world_audits CACHE [NAME ...]` prints a row per set; CACHE keeps references and evidence.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.audit.asked import Asked
from harness.audit.audit import Audit, audit, ends, first_sentence
from harness.audit.run import gather
from harness.audit.train_folds import Judged
from harness.corruptions.registry import resolve
from harness.inputs.encoded import encode_inputs, open_inputs
from harness.inputs.reference_cache import scorer
from harness.inputs.reference_models import build_models, builds
from harness.metrics.records import Bools
from harness.metrics.suspicion import auroc
from harness.types import EvaluationSpec, ObjectiveSpec, RunSpec, TrainingSpec, WorldSpec
from harness.worker.datasets import corrupt_training_pairs

CPU = torch.device("cpu")
PAIRS = 2000
# Name -> the world's misalignment, and what was done to the labels.
SETS: Mapping[str, tuple[float, Mapping[str, Any]]] = {
    "uniform-0": (0.0, {"kind": "uniform_flip", "rate": 0.2}),
    "uniform": (0.5, {"kind": "uniform_flip", "rate": 0.2}),
    "clean-0": (0.0, {"kind": "none"}),
    "clean": (0.5, {"kind": "none"}),
    "bt": (0.5, {"kind": "bt_flip"}),
    "hard": (0.5, {"kind": "adversarial_hard", "rate": 0.2}),
    "easy": (0.5, {"kind": "adversarial_easy", "rate": 0.2}),
    "length": (0.5, {"kind": "length_biased"}),
    "clustered": (0.5, {"kind": "prompt_clustered", "rate": 0.2}),
}


@dataclass(frozen=True, eq=False)
class WorldAudit:
    """An audit, which labels are wrong `(n,)`, and the AUROC of the reference's margin alone."""

    found: Audit
    wrong: Bools
    reference: float

    @property
    def auroc(self) -> float:
        """That of suspicion against the true errors."""
        return auroc(-self.found.margin, self.wrong)

    def precision(self, rows: int) -> float:
        """The share of the most suspect `rows` that is wrong."""
        return float(self.wrong[np.argsort(self.found.margin, kind="stable")[:rows]].mean()) if rows else float("nan")


def world_audit(name: str, cache: Path, pairs: int = PAIRS, steps: int = 200, seed: int = 0) -> WorldAudit:
    """The audit of a set of `SETS`, of the world's first version, from its own reference."""
    misaligned, cell = SETS[name]
    world = WorldSpec(version=1, misaligned=misaligned, pairs=pairs)
    evaluation = EvaluationSpec(heldout=8, ood=4)
    run = RunSpec(ObjectiveSpec("dpo"), resolve(cell), TrainingSpec(), evaluation, seed, world=world, device="cpu")
    for stage in builds([run]):
        build_models(cache, stage, CPU)
    encoded = encode_inputs(open_inputs(run, cache), scorer(cache, CPU))
    inputs = encoded.inputs
    done, label = corrupt_training_pairs(encoded, run.corruption, seed)
    tokens = [inputs.encode(pair) for pair in done.pairs]
    prompts = [str(pair.meta["prompt_id"]) for pair in done.pairs]
    judged = Judged(tokens, prompts, inputs.architecture, inputs.weights, False)
    evidence = gather(judged, Asked("", cache / "audit", steps=steps, seed=seed), CPU, lambda _: None)
    none = np.zeros(len(tokens), dtype=bool)
    lengths = np.array([(len(one.chosen), len(one.rejected)) for one in tokens], np.float64).T
    found = audit(evidence, np.array(prompts, object), lengths, none, np.full(len(tokens), -1), none, {}, (), {})
    wrong = label < 0
    return WorldAudit(found, wrong, auroc(-evidence.reference, wrong))


def row(name: str, one: WorldAudit) -> str:
    """A row of the table in docs/audit.md."""
    misaligned, cell = SETS[name]
    found = one.found
    cuts = [
        f"{cut.precision.mean:.3f} / {one.precision(cut.rows):.3f}"
        for cut in found.cuts
        if cut.share in (0.05, 0.1, 0.2)
    ]
    what = cell["kind"] + (f" {cell['rate']:g}" if "rate" in cell else "")
    share = f"{found.fit.share.mean:.3f} {ends(found.fit.share)}"
    advice = found.advice.action + (f" {found.advice.rows}" if found.advice.rows else "")
    planted = f"{found.planted.auroc.mean:.3f} [{found.planted.auroc.low:.3f}, {found.planted.auroc.high:.3f}]"
    cells = [
        what,
        f"{misaligned:g}",
        f"{one.wrong.mean():.3f}",
        share,
        f"{one.auroc:.3f}",
        f"{one.reference:.3f}",
        *cuts,
    ]
    return "| " + " | ".join([*cells, advice, f"{one.precision(found.advice.rows):.3f}", planted]) + " |"


def main() -> None:
    cache, names = Path(sys.argv[1]), sys.argv[2:] or list(SETS)
    for name in names:
        start = time.process_time()
        one = world_audit(name, cache)
        print(row(name, one), f"  {time.process_time() - start:.0f} CPU s", flush=True)
        print(first_sentence(one.found), flush=True)


if __name__ == "__main__":
    main()

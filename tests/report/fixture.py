"""A plausible sweep folder, simulated: what a sweep leaves behind, written without training anything."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from harness.identity import canonical_json, plain, run_key, stream_seed
from harness.text import slug
from harness.types import (
    CorruptionSpec,
    DataSpec,
    EvaluationSpec,
    ModelSpec,
    ObjectiveSpec,
    RunSpec,
    TrainingSpec,
    WorldSpec,
)

STEPS = (0, 5, 20, 60, 120, 200)
BETAS = (0.5, 2.0, 5.0)
OBJECTIVES: Mapping[str, Sequence[float]] = {
    "dpo": BETAS,
    "ipo": (0.05, 0.1, 0.5),
    "robust_dpo": BETAS,
    "simpo": BETAS,
    "hypo": BETAS,
    "cpo_smooth": BETAS,
}
EXTRA: Mapping[str, tuple[tuple[str, Any], ...]] = {
    "robust_dpo": (("eps", 0.1),),
    "simpo": (("gamma_ratio", 0.5),),
    "cpo_smooth": (("alpha", 1.0), ("gamma", 1.0), ("reduction", "sum"), ("tau", 2.0)),
}


def grid(
    objectives: Sequence[str] = ("dpo", "ipo", "cpo_smooth"),
    betas: int = 2,
    dials: Sequence[float] | None = (0.0, 0.75),
    rates: Sequence[float] = (0.0, 0.2),
    seeds: int = 3,
    bradley_terry: bool = False,
    items: int = 64,
) -> list[RunSpec]:
    """Run specs in spec order; `dials=None` makes a sweep over real data."""
    common = EvaluationSpec(heldout=items, probe=items, ood=items // 2)
    runs = []
    for dial in dials or [None]:
        for rate in rates:
            corruption = CorruptionSpec("uniform_flip", rate) if rate else CorruptionSpec()
            for name in objectives:
                for beta in list(OBJECTIVES[name])[-betas:]:
                    objective = ObjectiveSpec(name, tuple(sorted((("beta", beta), *EXTRA.get(name, ())))))
                    for seed in range(seeds):
                        world = None if dial is None else WorldSpec(misaligned=dial)
                        data, model = (None, None) if world else (DataSpec("pairs.jsonl", "hh", "0" * 64), ModelSpec())
                        runs.append(
                            RunSpec(objective, corruption, TrainingSpec(), common, seed, world, data, model, "cpu")
                        )
    if bradley_terry:
        world = WorldSpec(misaligned=0.75, labels="bradley_terry", pairs=8192)
        training = TrainingSpec(steps=500, batch_size=32, learning_rate=1e-3)
        for beta in (0.5, 1.0, 2.0):
            objective = ObjectiveSpec("dpo", (("beta", beta),))
            runs += [RunSpec(objective, CorruptionSpec(), training, common, seed, world) for seed in range(seeds)]
    return runs


def write_sweep(
    folder: Path,
    runs: Sequence[RunSpec],
    question: str = "Which objective ranks held-out pairs right although its reference does not?",
    notes: Sequence[str] = (),
    samples: bool = True,
    skip: Sequence[int] = (),
    diverged: Sequence[int] = (),
    text: Mapping[str, str] | None = None,
    planted: Callable[[RunSpec], Mapping[str, float]] | None = None,
) -> Path:
    """Writes the whole folder; `skip` and `diverged` are positions in `runs`, `text` overrides strings from data,
    `planted` results of a run."""
    text = {
        "group": "harmless",
        "prompt": "what is the colour of the fox ?",
        "response": "the fox is red .",
        **(text or {}),
    }
    folder.mkdir(parents=True)
    entries = [
        {"run_key": run_key(run), "name": f"{run.objective.name} s{run.seed}", "config": plain(run)} for run in runs
    ]
    plan = {"name": folder.name, "question": question, "notes": list(notes), "runs": entries}
    (folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    for position, run in enumerate(runs):
        if position not in skip:
            _write_run(folder, run, "diverged" if position in diverged else "done", samples, text, planted)
    return folder


def _write_run(
    sweep: Path, run: RunSpec, status: str, samples: bool, text: Mapping[str, str],
    planted: Callable[[RunSpec], Mapping[str, float]] | None,
) -> None:  # fmt: skip
    key = run_key(run)
    folder = sweep / f"{key[:8]}-{slug(run.objective.name)}"
    folder.mkdir()
    table = _examples(run, text["group"])
    results = _results(table, run)
    results |= {} if planted is None else planted(run)
    if status == "diverged":
        results = dict.fromkeys(results)
    if samples:
        drawn = _samples(run, results, text)
        held = drawn["split"] == "eval_clean"
        results |= {"gold_reward": float(np.mean(drawn["gold_reward"][held])), "kl": float(np.mean(drawn["k3"][held]))}
        pq.write_table(pa.table(drawn), folder / "samples.parquet")
        worst = _worst(table, text)
        if run.data is not None:
            worst["row"] = np.arange(len(worst["id"])) + 41
        pq.write_table(pa.table(worst), folder / "worst.parquet")
    pq.write_table(pa.table(table), folder / "examples.parquet", compression="zstd", write_page_checksum=True)
    (folder / "events.jsonl").write_text(_journal(key, table, status), encoding="ascii")
    provenance = {"run_key": key, "code": {"versions": {"torch": "2.13.0"}, "commit": "abc"}, "notes": []}
    (folder / "provenance.json").write_text(json.dumps(provenance), encoding="utf-8")
    costs = {"seconds": 1.5, "tokens": 90000, "flops": 1e10, "peak_memory": 2e8, "host": "h", "attempt": 1, "pack": 0}
    value = {
        "run_key": key,
        "status": status,
        "steps": run.training.steps if status == "done" else 40,
        "results": results,
        "costs": {**costs, "lane": 3},
        "config": plain(run),
        "name": run.objective.name,
        "files": {},
        "t0_ms": 0,
    }
    value["sha256"] = hashlib.sha256(canonical_json(value).encode()).hexdigest()
    (folder / "result.json").write_text(json.dumps(value), encoding="utf-8")


def _gain(run: RunSpec, delta_ref: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Movement at the end of training: dpo-like objectives stall where beta is large, the constrained one does not."""
    rate, beta = run.corruption.rate or 0.0, run.objective.beta or 1.0
    noise = rng.normal(0, 0.4, delta_ref.shape)
    if run.world is not None and run.world.labels == "bradley_terry":
        return 2.0 / beta + noise * 0.3
    reach = {"ipo": 0.35 / beta, "simpo": 4.0, "hypo": 6.0 / np.sqrt(beta)}.get(run.objective.name, 6.5 / np.sqrt(beta))
    if run.objective.name == "cpo_smooth":
        return (np.maximum(3.5 - delta_ref, 0.4) + noise) * (1 - 1.6 * rate)
    return (reach + noise) * (1 - rate) + rng.normal(0, 0.1)


def _examples(run: RunSpec, group: str) -> dict[str, Any]:
    rng = np.random.default_rng(stream_seed(run.seed, "fixture", run.objective.name, run.objective.beta))
    wrong = 0.3 if run.world is None else 0.92 * run.world.misaligned
    beta, parts = run.objective.beta or 1.0, []
    rate = run.corruption.rate or 0.0
    sizes = {"eval_clean": run.evaluation.heldout, "train_observed": run.evaluation.probe, "ood": run.evaluation.ood}
    for split, n in sizes.items():
        shared = np.random.default_rng(stream_seed(run.seed, split))
        delta_ref = np.where(shared.random(n) < wrong, -1.0, 1.0) * shared.normal(3, 0.9, n)
        gap = np.where(shared.random(n) < 0.7, 2.0, 2.25)
        corrupted = (shared.random(n) < rate) if split == "train_observed" else np.zeros(n, bool)
        sign = np.where(corrupted, -1, 1)
        gain = _gain(run, delta_ref, rng)
        reference = shared.normal(-14, 2, n)
        ids = np.array([hashlib.sha256(f"{run.seed}{split}{i}".encode()).hexdigest()[:16] for i in range(n)])
        for step in STEPS:
            progress = 1 - np.exp(-step / 40)
            delta = delta_ref + gain * progress
            loss = np.logaddexp(0, -beta * (delta - delta_ref) * sign)
            if run.objective.name == "cpo_smooth":
                loss = np.logaddexp(0, -beta * (delta * sign - 1.0))
            chosen = reference - 0.3 * gain * progress
            parts.append(
                {
                    "step": np.full(n, step, np.int32),
                    "split": np.full(n, split),
                    "id": ids,
                    "policy_chosen": np.where(sign > 0, chosen, chosen - delta).astype(np.float32),
                    "policy_rejected": np.where(sign > 0, chosen - delta, chosen).astype(np.float32),
                    "reference_chosen": np.where(sign > 0, reference, reference - delta_ref).astype(np.float32),
                    "reference_rejected": np.where(sign > 0, reference - delta_ref, reference).astype(np.float32),
                    "chosen_len": np.full(n, 7, np.int32),
                    "rejected_len": np.full(n, 8, np.int32),
                    "grad_w": (pull := beta * -np.expm1(-loss)).astype(np.float32),
                    "grad_l": pull.astype(np.float32),
                    "loss": loss.astype(np.float32),
                    "base_loss": loss.astype(np.float32),
                    "chosen_reward": (beta * (chosen - reference)).astype(np.float32),
                    "rejected_reward": (beta * (chosen - delta - reference + delta_ref)).astype(np.float32),
                    "observed_label": np.ones(n, np.int8),
                    "clean_label": sign.astype(np.int8),
                    "corrupted": corrupted,
                    "corruption_kind": np.where(corrupted, run.corruption.kind, "").astype(object),
                    "gold_margin": (gap if run.world else np.full(n, np.nan)).astype(np.float32) * sign,
                    "group": np.where(np.arange(n) % 3 == 0, group, "trick"),
                }
            )
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _at(table: Mapping[str, Any], split: str, step: int) -> dict[str, Any]:
    mask = (table["split"] == split) & (table["step"] == step)
    return {name: values[mask] for name, values in table.items()}


def _margins(rows: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    return rows["policy_chosen"] - rows["policy_rejected"], rows["reference_chosen"] - rows["reference_rejected"]


def _results(table: Mapping[str, Any], run: RunSpec) -> dict[str, float | None]:
    held, ood = _at(table, "eval_clean", STEPS[-1]), _at(table, "ood", STEPS[-1])
    delta, delta_ref = _margins(held)
    return {
        "train_loss_first": float(np.mean(_at(table, "train_observed", 0)["loss"])),
        "train_loss_last": float(np.mean(_at(table, "train_observed", STEPS[-1])["loss"])),
        "reward_accuracy": float(np.mean(delta > delta_ref + 1e-4)),
        "ranking_accuracy": float(np.mean(delta > 0)),
        "undesirable_zone": float(np.mean((delta < 0) & (delta > delta_ref + 1e-4))),
        "chosen_displacement": float(np.mean(held["policy_chosen"] - held["reference_chosen"])),
        "rejected_displacement": float(np.mean(held["policy_rejected"] - held["reference_rejected"])),
        "gold_reward": None,
        "kl": None,
        "ood_ranking_accuracy": float(np.mean(_margins(ood)[0] > 0)),
    }


def _samples(run: RunSpec, results: Mapping[str, float | None], text: Mapping[str, str]) -> dict[str, Any]:
    rng, n = np.random.default_rng(stream_seed(run.seed, "samples", run.objective.name, run.objective.beta)), 32
    quality = (results["ranking_accuracy"] or 0.0) - 0.4
    groups = np.array([(text["group"], "pushed", "secret", "trick")[i % 4] for i in range(n)], dtype=object)
    faults = {"sycophantic": "pushed", "harmful": "secret", "over_refusal": "trick"}

    def answers(good: float) -> dict[str, Any]:
        correct = rng.random(n) < max(good, 0)
        flags = {name: ~correct & (groups == group) for name, group in faults.items()}
        drawn = {"response": np.array([text["response"]] * n, dtype=object), "correct": correct, **flags}
        return drawn | {"malformed": np.zeros(n, bool), "gold_reward": rng.normal(good, 0.2, n).astype(np.float32)}

    return {
        "prompt": np.array([f"{text['prompt']} {i}" for i in range(n)], dtype=object),
        "split": np.array(["eval_clean"] * 24 + ["ood"] * 8, dtype=object),
        "group": groups,
        **answers(quality),
        **{f"reference_{name}": values for name, values in answers(0.3).items()},
        "k1": rng.normal(1, 0.1, n).astype(np.float32),
        "k3": (rng.random(n) * 2 * (1 + quality)).astype(np.float32),
        "length": np.full(n, 7, np.int32),
        **({} if run.data is None else {"row": np.arange(n) + 1}),
    }


def _worst(table: Mapping[str, Any], text: Mapping[str, str]) -> dict[str, Any]:
    """Texts of the two held-out pairs ranked most wrongly and of the wrong labels followed most strongly."""
    found: dict[str, list[str]] = {name: [] for name in ("split", "id", "prompt", "chosen", "rejected")}
    for split, sign in (("eval_clean", 1), ("train_observed", -1)):
        rows = _at(table, split, STEPS[-1])
        margin = sign * _margins(rows)[0]
        order = [i for i in np.argsort(margin) if split == "eval_clean" or rows["clean_label"][i] < 0][:2]
        for i in order:
            row = (split, rows["id"][i], text["prompt"], text["response"], f"not {text['response']}")
            for name, value in zip(found, row, strict=True):
                found[name].append(str(value))
    return {name: np.array(values, dtype=object) for name, values in found.items()}


def _journal(key: str, table: Mapping[str, Any], status: str) -> str:
    lines: list[dict[str, Any]] = [{"kind": "start", "run_key": key, "attempt": 1}]
    for step in STEPS:
        delta, delta_ref = _margins(_at(table, "eval_clean", step))
        lines.append(
            {
                "kind": "metrics",
                "step": step,
                "loss": float(np.mean(_at(table, "train_observed", step)["loss"])),
                "geometry/ranking_accuracy": float(np.mean(delta > 0)),
                "geometry/reward_accuracy": float(np.mean(delta > delta_ref + 1e-4)),
            }
        )
    lines.append({"kind": "end", "status": status})
    texts = [json.dumps(line, separators=(", ", ": ")) for line in lines]
    return "".join(f'{{"crc": "{zlib.crc32(t.encode()):08x}", "len": {len(t)}, "record": {t}}}\n' for t in texts)

"""CPU time of an optimizer step and run, arms interleaved, parity first; and how runs an hour grow with the work."""

from __future__ import annotations

import contextlib
import io
import statistics
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from tests.benchmarks.arms import Arm, logps, ours, theirs
from tests.benchmarks.cases import CPU_SIZES, Case, case

PARITY = 1e-5
DEFAULT, TUNED = "trl-default", "trl-precomputed"


def quietly(run: Arm) -> tuple[float, torch.Tensor]:
    """An arm without what it prints."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return run()


def arms_of(made: Case, packs: list[int], device: torch.device) -> dict[str, Arm]:
    """TRL as most run it, TRL tuned (stored reference log-probs), and packs of ours in both modes."""
    fast = replace(made, settings=replace(made.settings, mode="fast"))
    found = trl_arms(made, device)
    found |= {f"harness-pack{lanes}": ours(made, lanes, device) for lanes in packs}
    return found | {f"harness-pack{packs[-1]}-fast": ours(fast, packs[-1], device)}


def trl_arms(made: Case, device: torch.device) -> dict[str, Arm]:
    """TRL as most run it, and tuned: with stored reference log-probs."""
    return {DEFAULT: theirs(made, False, device), TUNED: theirs(made, True, device)}


@dataclass(frozen=True)
class Compared:
    """Rounds of each arm: CPU seconds a step and run (of the wall on a GPU), largest relative difference of its final
    log-probs from the first arm's, and how far these moved from the start."""

    seconds: dict[str, list[float]]
    parity: dict[str, float]
    moved: float


def compare(made: Case, arms: Mapping[str, Arm], rounds: int, device: torch.device) -> Compared:
    """Run the arms in turn, `rounds` times."""
    seconds: dict[str, list[float]] = {arm: [] for arm in arms}
    final: dict[str, np.ndarray] = {}
    for _ in range(rounds):
        for arm, run in arms.items():
            spent, weights = quietly(run)
            seconds[arm].append(spent)
            if arm not in final:
                final[arm] = logps(made, weights, device)
    truth = next(iter(final.values()))
    first = logps(made, made.weights, device)
    parity = {arm: float((np.abs(found - truth) / np.abs(truth)).max()) for arm, found in final.items()}
    return Compared(seconds, parity, float((np.abs(first - truth) / np.abs(truth)).max()))


def measure(
    size: str, batch: int, steps: int, rounds: int, packs: list[int], device: torch.device
) -> list[dict[str, Any]]:
    """One row an arm. Raises AssertionError where an arm ends with other log-probs than TRL (relative 1e-5)."""
    made = case(size, batch, steps)
    found = compare(made, arms_of(made, packs, device), rounds, device)
    worst = max(found.parity.values())
    assert worst <= PARITY, f"size {size}: final log-probs differ from TRL's by {worst:.1e}, relative"
    return [row(arm, size, batch, spent, found.parity[arm]) for arm, spent in found.seconds.items()]


def row(arm: str, size: str, batch: int, spent: list[float], parity: float) -> dict[str, Any]:
    """A line of the result: the median, and the least, which a busy machine disturbs less."""
    return {
        "arm": arm,
        "size": size,
        "batch": batch,
        "cpu_ms_per_step": round(1000 * statistics.median(spent), 3),
        "cpu_ms_per_step_least": round(1000 * min(spent), 3),
        "parity_rel": parity,
    }


def ratios(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every harness row with how many times faster it is than both arms of TRL at its size."""
    base = {(r["size"], r["arm"]): r["cpu_ms_per_step"] for r in rows}
    return [
        {
            **r,
            "against_default": base[r["size"], DEFAULT] / r["cpu_ms_per_step"],
            "against_tuned": base[r["size"], TUNED] / r["cpu_ms_per_step"],
        }
        for r in rows
    ]


def curves(steps: int, device: torch.device) -> dict[str, list[dict[str, Any]]]:
    """Runs of 200 steps an hour and core in `fast` mode: by pack size, by model size, by length of the texts."""

    def runs_an_hour(made: Case, lanes: int) -> float:
        own = replace(made, settings=replace(made.settings, mode="fast"))
        return 3600 / (200 * quietly(ours(own, lanes, device))[0])

    small = case("S", 8, steps)
    return {
        "pack": [{"lanes": lanes, "runs_per_hour": runs_an_hour(small, lanes)} for lanes in (1, 2, 4, 8, 16)],
        "model": [
            {
                "size": size,
                "parameters": len((made := case(size, 8, steps)).weights),
                "runs_per_hour": runs_an_hour(made, 8),
            }
            for size in CPU_SIZES
        ],
        "length": [
            {"factor": factor, "runs_per_hour": runs_an_hour(case("S", 8, steps, factor=factor), 8)}
            for factor in (1, 2, 4)
        ],
    }


def table(rows: list[dict[str, Any]]) -> list[list[str]]:
    """Step rows as cells of a table, head first."""
    head = ["size", "arm", "CPU ms a step and run", "x TRL default", "x TRL tuned", "parity"]
    body = [
        [
            r["size"], r["arm"], f"{r['cpu_ms_per_step']:.2f}", f"{r['against_default']:.2f}",
            f"{r['against_tuned']:.2f}", f"{r['parity_rel']:.0e}",
        ]
        for r in ratios(rows)
    ]  # fmt: skip
    return [head, *body]

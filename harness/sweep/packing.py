"""How large packs may be: settled once a sweep, written to its plan, and read from there by every later command.

On a CPU the rule is `PACK_SIZE` lanes, fewer where memory is short: the cost of a run falls until about eight lanes and
is flat from there (`reports/benchmarks/`), so timing pack sizes before a sweep would cost more than it could find. On a
GPU a step of a small model waits for its launches, so as many lanes as memory holds.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.data import mythtokens
from harness.objectives.table_budget import budget
from harness.sweep.memory import Shape, lane_bytes, lanes_within, parameters
from harness.sweep.packs import PACK_SIZE
from harness.tracking.plan import PLAN, read_plan_file
from harness.types import InputError, ModelSpec, RunSpec

SHARE = 0.5  # of the machine's memory that training may take, all workers together
GPU_LANES = 512
CGROUP = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True, slots=True)
class Packing:
    """At most `size` lanes a pack, and so many that a step stays within `bytes` a worker (0: not bounded)."""

    size: int
    bytes: int
    basis: str

    def room(self, run: RunSpec) -> int:
        """Lanes that a pack of runs like this one may have."""
        shape = shape_of(run)
        return self.size if shape is None or not self.bytes else min(self.size, lanes_within(shape, self.bytes))


def shape_of(run: RunSpec) -> Shape | None:
    """The sizes of a run's training step at its widest; None for a model whose sizes are not in the spec."""
    batch = budget(run.objective, run.training).batch_size
    if run.world is not None:
        answers = 2 * mythtokens.RESPONSE_TOKENS
        return _shape(run.world, len(mythtokens.VOCABULARY), batch, mythtokens.PROMPT_TOKENS + answers, answers)
    if run.data is not None and isinstance(run.model, ModelSpec):
        response = run.data.max_response_length or run.data.max_length
        width = min(run.data.max_prompt_length, run.data.max_length) + 2 * response
        return _shape(run.model, run.model.vocab_size, batch, width, 2 * response)
    return None


def _shape(model: Any, vocab_size: int, pairs: int, tokens: int, responses: int) -> Shape:
    sizes = (model.hidden_size, model.layers, model.intermediate_size)
    return Shape(*sizes, vocab_size, pairs, tokens, responses, parameters(vocab_size, *sizes))


def settle(folder: Path, runs: Sequence[RunSpec], workers: int, gpu_bytes: int = 0) -> Packing:
    """The packing that the plan in `folder` states, or a new one. `gpu_bytes`: free memory of a GPU that trains."""
    stated = _stated(folder)
    if stated is not None:
        return stated
    if gpu_bytes:
        return Packing(GPU_LANES, int(gpu_bytes * SHARE), "as many lanes as a GPU's memory holds")
    room = int(memory() * SHARE) // max(workers, 1)
    packing = Packing(PACK_SIZE, room, f"{PACK_SIZE} lanes on a CPU, fewer where memory is short")
    widest = max((lane_bytes(shape) for run in runs if (shape := shape_of(run))), default=0)
    return packing if widest else Packing(PACK_SIZE, 0, f"{packing.basis}; the model's sizes are not in the spec")


def _stated(folder: Path) -> Packing | None:
    if not (folder / PLAN).exists():
        return None
    try:
        found: Mapping[str, Any] = read_plan_file(folder)["packing"]
        return Packing(int(found["size"]), int(found["bytes"]), str(found["basis"]))
    except (InputError, KeyError, TypeError, ValueError):  # damaged, or older than packings: the plan is written anew
        return None


def as_plan(packing: Packing) -> dict[str, Any]:
    """What the plan holds of it."""
    return asdict(packing)


def memory() -> int:
    """Bytes of memory that this machine, or the container that this process is in, has in all."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 8 * 2**30
    limit = CGROUP.read_text().strip() if CGROUP.exists() else "max"
    return physical if limit == "max" else min(physical, int(limit))

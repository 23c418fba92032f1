"""What the driver asks of a worker process and what it hears back: tasks, the worker's configuration, events."""

from __future__ import annotations

import ctypes
import platform
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.sweep.packing import PackTask, pack_key
from harness.sweep.signals import listen
from harness.types import InputError

DONE = ("done", "diverged")  # outcomes of a run that was trained: failed and stopped ones are made again


@dataclass(frozen=True, slots=True)
class Event:
    """`kind`: built (a model stands), step (a pack moved on), done (a run is committed), failed (a run could not be
    trained; `text` says why), input (the data cannot be used: `text` holds the problems, the sweep stops), full (the
    disk is: the sweep stops), profile (where the time of a pack went: `text` is JSON).

    `pack` names the task, `step` of `steps` its progress, `key` the run and `status` its outcome.
    """

    kind: str
    pack: int = -1
    step: int = 0
    steps: int = 0
    key: str = ""
    status: str = ""
    text: str = ""


# A checkpoint of a pack costs some 10 ms on a CPU: under 0.1 % of the time at this pace, and short runs write none.
CHECKPOINT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class WorkerTask:
    """`kind` build (payload: builds of one stage) or pack (payload: a PackTask); `number` names it in messages."""

    kind: str
    number: int
    payload: Any


@dataclass
class WorkerConfig:
    """What every order needs, and what a worker keeps between orders (`live` stays empty in the driver)."""

    cache: str
    folder: str
    device: str
    names: Mapping[str, str]
    checkpoint_seconds: float = CHECKPOINT_SECONDS  # seconds between checkpoints of a pack in training
    profile: bool = False  # whether workers measure where their time goes
    live: dict[str, Any] = field(default_factory=dict)


def run_task(order: WorkerTask, shop: WorkerConfig) -> Iterator[Event]:
    """Carry out one order in this process."""
    if "workshop" not in shop.live:
        shop.live["workshop"] = _open(shop)
    workshop = shop.live["workshop"]
    workshop.folder = Path(shop.folder)  # an attempt apart has a folder of its own
    with workshop.keeping.stop.softly(on=False):  # but where a task says that it looks for signals
        if order.kind == "build":
            from harness.inputs.references import build_models

            build_models(workshop.cache, order.payload, workshop.device)
            for _ in order.payload:
                yield Event("built", order.number)
            return
        yield from _within_memory(order.payload, workshop)


def _within_memory(task: PackTask, workshop: Any) -> Iterator[Event]:
    """Train a pack, unless one as large of its kind has run out of memory here: the driver cuts it without a try."""
    from harness.sweep.scheduler import reason_of
    from harness.worker.train_pack import work

    kind = pack_key(task.runs[0])
    if len(task.runs) > workshop.ceilings.get(kind, len(task.runs)):
        raise MemoryError(f"packs of {len(task.runs)} such runs do not fit here: memory gave out before")
    try:
        yield from work(task, workshop)
    except Exception as error:
        if reason_of(traceback.format_exception_only(error)[-1]) == "oom":
            workshop.ceilings[kind] = max(len(task.runs) // 2, 1)
        raise


def _open(shop: WorkerConfig) -> Any:
    from harness.worker.checkpointing import CheckpointPolicy
    from harness.worker.prepare import Worker

    keep_freed_memory()
    keeping = CheckpointPolicy(shop.checkpoint_seconds, listen(worker=True))
    workshop = Worker(Path(shop.cache), Path(shop.folder), pick_device(shop.device), shop.names, keeping)
    workshop.profile = shop.profile
    return workshop


def pick_device(name: str) -> Any:
    """The torch device of a spec's `device`: auto takes a GPU where there is one. Never falls back in silence."""
    import torch

    available = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if available else "cpu")
    if name.startswith("cuda") and not available:
        raise InputError(f"device: '{name}' was asked for, but torch {torch.__version__} sees no GPU; use device: cpu")
    return torch.device(name)


def keep_freed_memory() -> None:
    """Let glibc keep freed blocks instead of returning them: a step's buffers of some MB would fault in anew each time.

    Worth about 15 % of a CPU step; a no-op on other C libraries.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(-3, 1 << 25)  # M_MMAP_THRESHOLD, its largest allowed value
        libc.mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD

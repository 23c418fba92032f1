"""What driver and workers exchange: tasks, the worker's configuration, events and failures. Imports no torch."""

from __future__ import annotations

import sys
import traceback
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from harness.storage.atomic import is_full
from harness.types import InputError, PlannedRun, RunSpec, RunStatus

if TYPE_CHECKING:
    from harness.inputs.reference_models import Build

# A checkpoint of a pack costs some 10 ms on a CPU: under 0.1 % of the time at this pace, and short runs write none.
CHECKPOINT_SECONDS = 60.0
# Errors of torch's allocators that are plain RuntimeErrors, known by their text alone.
MEMORY_TEXTS = ("DefaultCPUAllocator: can't allocate memory", "CUDA out of memory", "CUDA error: out of memory")


@dataclass(frozen=True, slots=True)
class BuildTask:
    """Build models of one stage. `number` names the task in its events."""

    number: int
    builds: tuple[Build, ...]


@dataclass(frozen=True, slots=True)
class ScoreTask:
    """Score a share of the responses that runs need of their reference: part `share` of `shares`.

    `all_pairs`: of every pair of their sources, for corruptions that read its log-probs.
    """

    number: int
    runs: tuple[RunSpec, ...]
    share: int
    shares: int
    all_pairs: bool = False


@dataclass(frozen=True, slots=True)
class PackTask:
    """Train a pack: runs in lockstep. `number` names it in events, in `packs.json` and in costs; packs whose runs
    could have shared a pack have the same `group`."""

    number: int
    runs: tuple[PlannedRun, ...]
    group: str = ""


Task = BuildTask | ScoreTask | PackTask


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """What a worker process needs for every task of one command."""

    cache: Path
    folder: Path  # the sweep's; on a cluster that of one attempt
    device: str
    checkpoint_seconds: float = CHECKPOINT_SECONDS  # of a pack's training between two checkpoints
    profile: bool = False  # whether to measure where the time goes
    threads: int = 1  # of a task
    gpus: tuple[str, ...] = ()  # each for a worker process, or several for a group; empty: all see the same
    shards: int = 1  # processes that the largest run of the command trains in
    # names the driver's command: a process keeps prepared inputs from task to task of one command
    session: str = field(default_factory=lambda: uuid.uuid4().hex)


class FailureKind(StrEnum):
    """Why a task failed, as far as the driver acts on it; a failed run's result holds the word as its `reason`."""

    OUT_OF_MEMORY = "oom"  # a smaller pack may fit
    LOST_PROCESS = "lost"  # the worker process ended: killed, or out of memory
    INPUT = "input"  # data or settings cannot be used: the sweep stops
    DISK_FULL = "full"  # the sweep stops
    ERROR = "error"  # any other exception: the runs of the pack fail


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a task failed: `message` says it in a line (a line per problem for INPUT); `error` is the exception's type
    and `trace` its traceback, both empty where a process was lost."""

    kind: FailureKind
    message: str
    error: str = ""
    trace: str = ""


class GroupFailed(Exception):  # noqa: N818 - says what happened
    """Another process of a run's group failed, or ended; `failure` is why."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        super().__init__(failure.message)


def failure_kind(error: BaseException) -> FailureKind:
    """The kind of a failure, by the exception's type."""
    if isinstance(error, GroupFailed):
        return error.failure.kind
    if isinstance(error, InputError):
        return FailureKind.INPUT
    if isinstance(error, OSError) and is_full(error):
        return FailureKind.DISK_FULL
    torch = sys.modules.get("torch")  # loaded wherever one of its errors is raised
    if isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.OutOfMemoryError)):
        return FailureKind.OUT_OF_MEMORY
    if isinstance(error, RuntimeError) and any(text in str(error) for text in MEMORY_TEXTS):
        return FailureKind.OUT_OF_MEMORY
    return FailureKind.ERROR


def failure_of(error: BaseException) -> Failure:
    """An exception as the driver gets it."""
    if isinstance(error, GroupFailed):
        return error.failure
    kind, name = failure_kind(error), type(error).__name__
    if kind in (FailureKind.INPUT, FailureKind.DISK_FULL):
        return Failure(kind, str(error), name)
    message = "".join(traceback.format_exception_only(error)).strip().split("\n")[0]
    return Failure(kind, message, name, "".join(traceback.format_exception(error, limit=-8)))


@dataclass(frozen=True, slots=True)
class ModelBuilt:
    """A model is in the cache."""

    task: int


@dataclass(frozen=True, slots=True)
class Scored:
    """Responses of a `ScoreTask` that are scored, of how many."""

    task: int
    done: int
    total: int


class Phase(StrEnum):
    """What a pack is doing."""

    PREPARING = "preparing"
    TRAINING = "training"
    EVALUATING = "evaluating"
    SAMPLING = "sampling"


@dataclass(frozen=True, slots=True)
class PackStep:
    """A pack has done `step` of `steps` updates, on `tokens` tokens, and now goes on with `phase`."""

    task: int
    step: int
    steps: int
    phase: Phase = Phase.TRAINING
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class RunDone:
    """A run is committed: done, diverged or stopped."""

    task: int
    key: str
    status: RunStatus


@dataclass(frozen=True, slots=True)
class PackProfile:
    """Where the time of a pack went: `seconds` by part (`head` is a part of `forward`), `flops` of the forward and
    backward passes in training, `gemm` flops per second that matrix products reach on the machine."""

    task: int
    seconds: Mapping[str, float]
    flops: float
    gemm: float


@dataclass(frozen=True, slots=True)
class TaskFailed:
    """A task ended before its work was done; runs that it has committed are finished."""

    task: int
    failure: Failure


Event = ModelBuilt | Scored | PackStep | RunDone | PackProfile | TaskFailed

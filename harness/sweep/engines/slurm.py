"""Packs as a Slurm job array, through submitit: an array task per pack, requeued when preempted or out of time.

The signal that Slurm sends ahead of time or preemption reaches the worker, which checkpoints its runs at the next step
boundary and only then lets submitit requeue the job, which continues from there. A job that a plain SIGTERM ended, or
whose node was lost, is submitted again by the driver, at most `INFRASTRUCTURE_RETRIES` times. submitit passes jobs as
pickles in `.slurm` of the sweep's folder, which only its owner can enter.
"""

from __future__ import annotations

import math
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from harness.signals import Interrupted, Stop, stop_handler
from harness.sweep.engines import (
    INFRASTRUCTURE_RETRIES,
    STOP_SECONDS,
    THIS_MACHINE,
    Cluster,
    TaskFunction,
    gpus_per_pack,
)
from harness.sweep.engines.attempts import remove_attempts
from harness.sweep.engines.remote_worker import (
    code_hash,
    create_marker,
    is_input_failure,
    run_remote_task,
    with_absolute_paths,
)
from harness.sweep.packing import plan_packs
from harness.types import InputError, PlannedRun, RunStatus
from harness.worker.protocol import Event, Failure, FailureKind, RunDone, Task, TaskFailed, WorkerConfig

FOLDER = ".slurm"
AT_A_TIME = 16  # array tasks, where `--workers` does not say
NOTICE_SECONDS = 90  # of the signal before the time limit
TIME_OUTS = 30  # a pack continues where it was, so running out of time is no failure
POLL_SECONDS = 1.0


@dataclass
class _Requeue:
    """A signal handler: passes submitit's signal on to the stop handler, and remembers to requeue the job."""

    stop: Stop
    received: int = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self.stop(number, frame)


@dataclass(frozen=True)
class SlurmJob:
    """What a job runs; submitit pickles it."""

    function: TaskFunction
    task: Task
    config: WorkerConfig
    marker: Path
    code: str

    def __call__(self) -> list[Event]:
        """The events of the task. After submitit's signal this does not return: the job is requeued."""
        number = getattr(signal, "SIG" + os.environ.get("SUBMITIT_PREEMPT_SIGNAL", "USR2"))
        requeue: Any = signal.getsignal(number)
        handler = _Requeue(stop_handler(worker=True))
        signal.signal(number, handler)
        try:
            events = list(run_remote_task(self.function, self.task, self.config, self.marker, self.code))
        except Interrupted:
            events = []  # nothing could be checkpointed: it starts anew
        if handler.received:
            requeue(handler.received, None)
        return events

    def checkpoint(self) -> Any:
        """What submitit submits again: the same job, whose runs continue from their checkpoints."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


@dataclass(frozen=True)
class _Array:
    """Submitted tasks by their job, with how often each was lost."""

    executor: Any
    function: TaskFunction
    config: WorkerConfig
    marker: Path
    tasks: dict[Any, tuple[Task, int]] = field(default_factory=dict)

    def submit(self, tasks: Sequence[Task], losses: int) -> None:
        """Submit tasks as one job array."""
        jobs = [SlurmJob(self.function, task, self.config, self.marker, code_hash()) for task in tasks]
        with self.executor.batch():
            submitted = [self.executor.submit(job) for job in jobs]
        self.tasks.update({job: (task, losses) for job, task in zip(submitted, tasks, strict=True)})


def run_tasks(
    function: TaskFunction,
    tasks: Sequence[Task],
    settings: WorkerConfig,
    workers: int,
    stop: Stop,
    *,
    cluster: Cluster = THIS_MACHINE,
) -> Iterator[Event]:
    """Submit one array of all tasks, `workers` at a time; the events of a task come when its job has ended.

    Once `stop` has received a signal jobs have `STOP_SECONDS` to come to a step boundary, then they are cancelled.
    Raises InputError where submitit is missing or this machine cannot submit.
    """
    sweep = settings.folder.resolve()
    executor = _executor(sweep / FOLDER, cluster, workers, settings.device, settings.shards)
    marker = create_marker(sweep)
    array = _Array(executor, function, with_absolute_paths(settings), marker)
    if tasks:
        array.submit(tasks, 0)
    stopped_at = 0.0
    try:
        while array.tasks:
            if stop.received and not stopped_at:
                stopped_at = time.monotonic()
                marker.unlink(missing_ok=True)
            if stopped_at and time.monotonic() - stopped_at > STOP_SECONDS:
                return
            for job in [job for job in array.tasks if job.done()]:
                task, losses = array.tasks.pop(job)
                events, lost = _outcome(job, task)
                if stopped_at:  # a job that started after the marker was removed reports that it does not see it
                    yield from (event for event in events if not is_input_failure(event))
                elif not lost:
                    yield from events
                elif losses >= INFRASTRUCTURE_RETRIES:
                    message = f"lost {losses + 1} times on the Slurm cluster, the last: {lost}"
                    yield TaskFailed(task.number, Failure(FailureKind.ERROR, message))
                else:
                    array.submit([task], losses + 1)
            time.sleep(POLL_SECONDS)
        if not stopped_at:
            remove_attempts(sweep)
    finally:
        marker.unlink(missing_ok=True)
        for job in array.tasks:
            job.cancel(check=False)
        for pickled in (sweep / FOLDER).glob("*.pkl"):
            pickled.unlink(missing_ok=True)


def slots(_cluster: Cluster, _shards: int) -> int:
    """Packs at a time: what Slurm has free is not known ahead; so many keep a queue busy."""
    return AT_A_TIME


def array_script(runs: Sequence[PlannedRun], folder: Path, workers: int | None, cluster: Cluster) -> str:
    """The batch script of the array that trains `runs`, as submitit would submit it. Raises InputError without it."""
    _submitit()
    from submitit.slurm.slurm import SlurmExecutor, _make_sbatch_string

    count = workers or AT_A_TIME
    packs = plan_packs(runs, count)
    place = (folder / FOLDER).resolve()
    command = f"{shlex.quote(sys.executable)} -u -m submitit.core._submit {place}"
    known = SlurmExecutor._valid_parameters()
    device, shards = runs[0].run.device, max(planned.run.training.shards for planned in runs)
    settings = {name: value for name, value in _settings(cluster, count, device, shards).items() if name in known}
    script: str = _make_sbatch_string(command=command, folder=place, map_count=len(packs), **settings)
    return script


def _submitit() -> Any:
    try:
        import submitit
    except ImportError:
        raise InputError("--engine slurm: submitit is not installed; pip install 'preference-harness[slurm]'") from None
    return submitit


def _executor(folder: Path, cluster: Cluster, workers: int, device: str, shards: int) -> Any:
    submitit = _submitit()
    folder.mkdir(mode=0o700, exist_ok=True)
    if cluster.scheduler == "local":
        executor = submitit.LocalExecutor(folder)
        executor.update_parameters(timeout_min=cluster.minutes)
        return executor
    try:
        executor = submitit.SlurmExecutor(folder, max_num_timeout=TIME_OUTS)
    except RuntimeError as error:
        raise InputError(f"--engine slurm: {error}; run this where sbatch works, or see --dry-run") from None
    executor.update_parameters(**_settings(cluster, workers, device, shards))
    return executor


def _settings(cluster: Cluster, workers: int, device: str, shards: int) -> dict[str, Any]:
    """submitit's parameters; Slurm allocates whole GPUs. A task starts the other processes of its run itself."""
    asked = gpus_per_pack(cluster, shards)
    gpus = math.ceil(asked) if asked is not None else shards * int(device.startswith("cuda"))
    return {
        "job_name": "harness",
        "time": cluster.minutes,
        "cpus_per_task": cluster.cpus * shards,
        "array_parallelism": workers,
        "signal_delay_s": NOTICE_SECONDS,
        "stderr_to_stdout": True,
        "additional_parameters": {"requeue": True},
        **({"partition": cluster.partition} if cluster.partition else {}),
        **({"account": cluster.account} if cluster.account else {}),
        **({"gpus_per_node": gpus} if gpus else {}),
    }


def _outcome(job: Any, task: Task) -> tuple[list[Event], str]:
    """The events of a job that has ended, and why it must be submitted again where its work is not done."""
    submitit = _submitit()
    try:
        events: list[Event] = job.result()
    except submitit.core.utils.FailedJobError as error:
        message = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        return [TaskFailed(task.number, Failure(FailureKind.ERROR, message, type(error).__name__, str(error)))], ""
    except submitit.core.utils.UncompletedJobError as error:
        if job.state == "OUT_OF_MEMORY":
            message = f"the machine ran out of memory: Slurm ended job {job.job_id}"
            return [TaskFailed(task.number, Failure(FailureKind.OUT_OF_MEMORY, message))], ""
        return [], (str(error).strip().splitlines() or ["no result"])[0]
    if not events or any(isinstance(event, RunDone) and event.status is RunStatus.STOPPED for event in events):
        return events, "its job was stopped"
    return events, ""

"""Packs as core tasks of a Ray cluster, a task per pack: Ray places them, the driver counts what was lost and why.

Ray's own retries are off: a retried generator would begin its events anew and the driver could not tell which it has
seen. Errors of a task are events and final; after a lost worker, node or object the task is submitted again, at most
`INFRASTRUCTURE_RETRIES` times. If the driver dies Ray ends its tasks, committed runs are safe, and the same command
continues. Token authentication is on unless the environment says otherwise; no dashboard is started.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.signals import Stop
from harness.sweep.engines import (
    INFRASTRUCTURE_RETRIES,
    POLL_SECONDS,
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
from harness.types import InputError
from harness.worker.protocol import Event, Failure, FailureKind, Task, TaskFailed, WorkerConfig

LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # 0, the default on these two systems: Ray binds to loopback alone
OBJECT_STORE = 100 * 2**20  # bytes, of a Ray started here: events are small, everything large is a file


@dataclass(frozen=True)
class _Running:
    """Submitted tasks by their stream of events, with how often each was lost."""

    start: Callable[[Task], Any]
    tasks: dict[Any, tuple[Task, int]] = field(default_factory=dict)

    def submit(self, task: Task, losses: int) -> None:
        self.tasks[self.start(task)] = (task, losses)


def run_tasks(
    function: TaskFunction,
    tasks: Sequence[Task],
    settings: WorkerConfig,
    workers: int,  # noqa: ARG001 - Ray counts itself: what is submitted waits for a free place
    stop: Stop,
    *,
    cluster: Cluster = THIS_MACHINE,
) -> Iterator[Event]:
    """Submit every task at once; events come as workers send them.

    Once `stop` has received a signal nothing is started and workers have `STOP_SECONDS` to come to a step boundary.
    Raises InputError where Ray is missing or cannot be reached.
    """
    ray = connect(cluster)
    sweep = settings.folder.resolve()
    marker, config = create_marker(sweep), ray.put(with_absolute_paths(settings))
    remote = _remote(ray, cluster, settings.device, settings.shards)
    running = _Running(lambda task: remote.remote(function, task, config, marker, code_hash()))
    stopped_at = 0.0
    try:
        for task in tasks:
            running.submit(task, 0)
        while running.tasks:
            if stop.received and not stopped_at:
                stopped_at = time.monotonic()
                marker.unlink(missing_ok=True)
            if stopped_at and time.monotonic() - stopped_at > STOP_SECONDS:
                return
            ready, _ = ray.wait(list(running.tasks), num_returns=1, timeout=POLL_SECONDS)
            for stream in ready:
                try:
                    event = ray.get(next(stream))
                    if not (stopped_at and is_input_failure(event)):  # it started when the marker was gone
                        yield event
                except StopIteration:
                    del running.tasks[stream]
                except ray.exceptions.RayError as error:
                    task, losses = running.tasks.pop(stream)
                    failure = _failure(ray, error, losses)
                    if not stopped_at and failure is None:
                        running.submit(task, losses + 1)
                    elif not stopped_at and failure is not None:
                        yield TaskFailed(task.number, failure)
        if not stopped_at:
            remove_attempts(sweep)
    finally:
        marker.unlink(missing_ok=True)
        for stream in running.tasks:
            ray.cancel(stream, force=True)


def slots(cluster: Cluster, shards: int) -> int:
    """Packs of so many processes that the cluster in its present size takes at a time."""
    gpus = gpus_per_pack(cluster, shards)
    resources = connect(cluster).cluster_resources()
    if gpus or (gpus is None and resources.get("GPU", 0) > 0):
        return max(int(resources.get("GPU", 0) / (gpus or shards)), 1)
    return max(int(resources.get("CPU", 1) / (cluster.cpus * shards)), 1)


def connect(cluster: Cluster) -> Any:
    """The module `ray`, connected; without an address a Ray is started on this machine."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    if not cluster.address:
        os.environ.setdefault(LOOPBACK, "0")
        if os.environ["RAY_AUTH_MODE"] == "token" and not _token_set():
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # of this Ray alone, gone with it
    try:
        import ray
    except ImportError:
        raise InputError("--engine ray: Ray is not installed; pip install 'preference-harness[cluster]'") from None
    if ray.is_initialized():
        return ray
    common = {"log_to_driver": False, "logging_level": "WARNING", "configure_logging": True}
    try:
        if cluster.address:
            ray.init(address=cluster.address, **common)
        else:
            ray.init(address="local", include_dashboard=False, object_store_memory=OBJECT_STORE, **common)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        why = (str(error).strip().splitlines() or [""])[0]
        raise InputError(
            f"--address {cluster.address or '(none)'}: cannot join this Ray cluster ({why}); it must run with "
            "RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH must be set here as there"
        ) from None
    return ray


def _token_set() -> bool:
    """Whether the user has set a token, in the environment or in Ray's default file."""
    named = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
    return any(name in os.environ for name in named) or (Path.home() / ".ray" / "auth_token").exists()


def _remote(ray: Any, cluster: Cluster, device: str, shards: int) -> Any:
    """The Ray task: one core (or more) per process of a pack, and a GPU or a part of one where the device is a GPU."""
    gpus = gpus_per_pack(cluster, shards)
    if gpus is None:
        there = ray.cluster_resources().get("GPU", 0) > 0
        gpus = float(shards) if device.startswith("cuda") or (device == "auto" and there) else 0.0
    return ray.remote(run_remote_task).options(
        num_returns="streaming",
        num_cpus=cluster.cpus * shards,
        num_gpus=gpus,
        max_retries=0,
        scheduling_strategy="SPREAD",
    )


def _failure(ray: Any, error: Exception, losses: int) -> Failure | None:
    """The failure of a task that Ray gave up, or None where it should be submitted again."""
    message = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return Failure(FailureKind.OUT_OF_MEMORY, f"the machine ran out of memory: {message}")
    broken = isinstance(error, ray.exceptions.RayTaskError) and not isinstance(error, ray.exceptions.TaskCancelledError)
    if broken:  # before the task itself started, e.g. a worker without the harness
        return Failure(FailureKind.ERROR, message, type(error).__name__, str(error))
    if losses >= INFRASTRUCTURE_RETRIES:
        return Failure(FailureKind.ERROR, f"lost {losses + 1} times on the Ray cluster, the last: {message}")
    return None

"""What a driver and its workers on other machines share: a marker file in the sweep's folder, and one code version.

The marker exists while its driver lives and wants the work. A worker that does not see it has no view of the shared
folder; one that sees it go stops at its next step boundary. Nothing but the file system is needed for it.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

from harness.identity import content_hash, file_sha256
from harness.signals import stop_handler
from harness.sweep.engines import POLL_SECONDS, TaskFunction, task_events
from harness.sweep.engines.attempts import run_attempt
from harness.worker.protocol import Event, Failure, FailureKind, Task, TaskFailed, WorkerConfig

MARKER = ".driver-"


def create_marker(sweep: Path) -> Path:
    """A new marker in the sweep's folder. Workers of an earlier driver stop: this one holds the sweep's lock."""
    for old in sweep.glob(f"{MARKER}*"):
        old.unlink(missing_ok=True)
    marker = sweep / f"{MARKER}{uuid.uuid4().hex[:12]}"
    marker.touch(mode=0o600)
    return marker


def with_absolute_paths(config: WorkerConfig) -> WorkerConfig:
    """The configuration as other machines need it."""
    return replace(config, cache=config.cache.resolve(), folder=config.folder.resolve())


def run_remote_task(
    function: TaskFunction, task: Task, config: WorkerConfig, marker: Path, driver_code: str
) -> Iterator[Event]:
    """The events of one task in a worker process on any machine; an INPUT failure where it cannot work there."""
    problem = _problem(config.folder, marker, driver_code)
    if problem:
        yield TaskFailed(task.number, Failure(FailureKind.INPUT, problem))
        return
    stop_handler(worker=True)
    done = threading.Event()
    threading.Thread(target=_watch, args=(marker, done), daemon=True).start()
    try:
        yield from task_events(partial(run_attempt, function), task, config)
    finally:
        done.set()


def _problem(sweep: Path, marker: Path, driver_code: str) -> str:
    host = socket.gethostname()
    if not marker.exists():
        return (
            f"--out {sweep.parent}: node {host} does not see the driver's files; every node must mount "
            "the same file system under the same path"
        )
    if code_hash() != driver_code:
        return f"node {host} runs a different version of the harness; install the driver's version on it"
    return ""


def is_input_failure(event: Event) -> bool:
    """Whether a worker reports that it cannot work, as one does that starts after the marker was removed."""
    return isinstance(event, TaskFailed) and event.failure.kind is FailureKind.INPUT


def _watch(marker: Path, done: threading.Event) -> None:
    """Once the marker is gone, send this process the signal to stop."""
    while not done.wait(POLL_SECONDS):
        if not marker.exists():
            os.kill(os.getpid(), signal.SIGTERM)
            return


@lru_cache(maxsize=1)
def code_hash() -> str:
    """A hash of the harness's own sources."""
    root = Path(__file__).resolve().parents[2]
    return content_hash({str(path.relative_to(root)): file_sha256(path) for path in sorted(root.rglob("*.py"))})[:16]

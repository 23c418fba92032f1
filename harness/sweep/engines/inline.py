"""Tasks one after another in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from harness.signals import Stop
from harness.sweep.engines import TaskFunction, task_events
from harness.worker.protocol import Event


def run_tasks(
    function: TaskFunction,
    tasks: Sequence[Any],
    settings: Any,
    workers: int,  # noqa: ARG001 - an engine's interface
    stop: Stop,
) -> Iterator[Event]:
    """Run every task here, until `stop` has received a signal. What ends this process ends the task."""
    for task in tasks:
        if stop.received:
            return
        yield from task_events(function, task, settings)

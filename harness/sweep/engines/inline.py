"""Tasks one after another in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from harness.sweep.engines import TaskFunction, task_events
from harness.sweep.signals import Stop
from harness.worker.protocol import Event


def run_tasks(
    function: TaskFunction,
    tasks: Sequence[Any],
    settings: Any,
    workers: int,  # noqa: ARG001 - an engine's interface
    stop: Stop,
) -> Iterator[Event]:
    """Carry out every task here, until `stop` has heard a signal. What ends this process ends the task."""
    for task in tasks:
        if stop.heard:
            return
        yield from task_events(function, task, settings)

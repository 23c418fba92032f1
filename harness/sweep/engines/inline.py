"""Tasks one after another in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from harness.sweep.engines import TaskFunction, carry_out
from harness.sweep.messages import Message
from harness.sweep.stopping import Stop


def run_tasks(
    function: TaskFunction,
    tasks: Sequence[Any],
    settings: Any,
    workers: int,  # noqa: ARG001 - an engine's interface
    stop: Stop,
) -> Iterator[Message]:
    """Carry out every task here, until `stop` has heard a signal. What ends this process ends the task."""
    for task in tasks:
        if stop.heard:
            return
        yield from carry_out(function, task, settings)

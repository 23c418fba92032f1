"""The same tasks in this process, one after another: for tests, debuggers and single-GPU machines."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from typing import Any

from harness.sweep.engines.process import TaskFunction
from harness.sweep.messages import Message


def run_tasks(function: TaskFunction, tasks: Sequence[Any], settings: Any) -> Iterator[Message]:
    """Run every task here; a task that raises gives one `failed` message, an InputError goes to the caller."""
    from harness.types import InputError

    for task in tasks:
        try:
            yield from function(task, settings)
        except InputError:
            raise
        except Exception:
            text = traceback.format_exc(limit=-8)
            yield Message("failed", task.number, text=text)

"""Worker processes: the driver hands each one task at a time over its own pipe and reads messages back.

Processes are spawned (a fork after torch or sqlite have started is unsafe) and single-threaded: two OpenMP threads on
a busy machine can be slower than one. Every worker has a pipe of its own, so a worker that is killed in the middle of
a message cannot leave a lock behind that the others wait for.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from harness.sweep.messages import Message
from harness.types import InputError

# A task function: called in the worker with (task, settings), yields messages.
TaskFunction = Callable[[Any, Any], Iterator[Message]]
END = "end"  # what a worker sends after the last message of a task


@dataclass(slots=True)
class _Worker:
    process: Any
    pipe: Connection
    task: Any


def run_tasks(function: TaskFunction, tasks: Sequence[Any], settings: Any, workers: int) -> Iterator[Message]:
    """Run every task in some worker; messages come as they are sent, in order within a task.

    `function` and `settings` are pickled, by reference and by value; tasks carry their `number`. A task that raises
    gives one `failed` message (or `input` for an InputError); a worker that dies takes its task with it, reported as
    `failed`, and is replaced. Leaving the generator early stops the workers at once.
    """
    waiting = deque(tasks)
    live: list[_Worker] = []
    try:
        while waiting or live:
            while waiting and len(live) < workers:
                live.append(_start(function, settings, waiting.popleft()))
            by_pipe = {worker.pipe: worker for worker in live}
            for pipe in wait(list(by_pipe)):
                worker = by_pipe[pipe]  # type: ignore[index]
                try:
                    message = worker.pipe.recv()
                except (EOFError, OSError):
                    live.remove(worker)
                    yield _death(worker)
                    continue
                if message != END:
                    yield message
                elif waiting:
                    worker.task = waiting.popleft()
                    worker.pipe.send(worker.task)
                else:
                    live.remove(worker)
                    _stop(worker)
    finally:
        for worker in live:
            _stop(worker)


def _start(function: TaskFunction, settings: Any, task: Any) -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_drain, args=(function, settings, theirs, os.getpid()), daemon=True)
    process.start()
    theirs.close()  # the worker's end lives in the worker alone, so its death closes the pipe
    ours.send(task)
    return _Worker(process, ours, task)


def _stop(worker: _Worker) -> None:
    worker.process.kill()
    worker.process.join()
    worker.pipe.close()


def _death(worker: _Worker) -> Message:
    worker.process.join()
    worker.pipe.close()
    code = worker.process.exitcode
    why = " (killed: out of memory?)" if code == -signal.SIGKILL else ""
    return Message("failed", worker.task.number, text=f"worker process ended with exit code {code}{why}")


def _drain(function: TaskFunction, settings: Any, pipe: Connection, parent: int) -> None:
    """A worker's life: take tasks until it is stopped."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver decides what an interrupt means
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    import torch

    torch.set_num_threads(1)
    while True:
        task = pipe.recv()
        try:
            for message in function(task, settings):
                pipe.send(message)
        except InputError as error:
            pipe.send(Message("input", task.number, text=str(error)))
        except Exception:
            # Whatever went wrong in one pack must not end the sweep: it is reported and shown, with its traceback.
            pipe.send(Message("failed", task.number, text=traceback.format_exc(limit=-8)))
        pipe.send(END)


def _die_with(parent: int) -> None:
    """End this process when its parent has gone: an orphan would train on for nobody."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)

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
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from harness.sweep.engines import TaskFunction, task_events
from harness.sweep.signals import Interrupted, Stop, listen
from harness.worker.protocol import Event

END = "end"  # what a worker sends after the last message of a task
LOST = "worker process ended with exit code"  # how the message of a task begins whose worker died
STOP_SECONDS = 25.0  # for workers to come to a boundary; schedulers kill after 30
LOOK_SECONDS = 0.5  # how often the driver looks whether it was told to stop


@dataclass(slots=True)
class _Worker:
    process: Any
    pipe: Connection
    task: Any


def run_tasks(function: TaskFunction, tasks: Sequence[Any], settings: Any, workers: int, stop: Stop) -> Iterator[Event]:
    """Run every task in some worker; messages come as they are sent, in order within a task.

    `function` and `settings` are pickled, by reference and by value; tasks carry their `number`. A task that raises
    gives one `failed` message (or `input` for an InputError); a worker that dies takes its task with it, reported as
    `failed`, and is replaced. Leaving the generator early stops the workers at once.

    Once `stop` has heard a signal no task is begun; workers are told, and have `STOP_SECONDS` to end theirs.
    """
    waiting = deque(tasks)
    live: list[_Worker] = []
    told = 0.0
    try:
        while waiting or live:
            if stop.heard and not told:
                waiting.clear()
                told = time.monotonic()
                for worker in live:
                    worker.process.terminate()
            if told and (not live or time.monotonic() - told > STOP_SECONDS):
                return
            while waiting and len(live) < workers:
                live.append(_start(function, settings, waiting.popleft()))
            by_pipe = {worker.pipe: worker for worker in live}
            for pipe in wait(list(by_pipe), LOOK_SECONDS):
                worker = by_pipe[pipe]  # type: ignore[index]
                try:
                    message = worker.pipe.recv()
                except (EOFError, OSError):
                    live.remove(worker)
                    death = _death(worker)
                    if not told:
                        yield death
                    continue
                if message != END:
                    yield message
                elif waiting:
                    worker.task = waiting.popleft()
                    try:
                        worker.pipe.send(worker.task)
                    except OSError:  # it ended just now: the next round hears of it
                        continue
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


def _death(worker: _Worker) -> Event:
    worker.process.join()
    worker.pipe.close()
    code = worker.process.exitcode
    why = " (killed: out of memory?)" if code == -signal.SIGKILL else ""
    return Event("failed", worker.task.number, text=f"{LOST} {code}{why}")


def _drain(function: TaskFunction, settings: Any, pipe: Connection, parent: int) -> None:
    """A worker's life: take tasks until it is stopped."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver decides what an interrupt means
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    import torch

    torch.set_num_threads(1)
    try:
        listen(worker=True)
        while True:
            task = pipe.recv()
            for message in task_events(function, task, settings):
                pipe.send(message)
            pipe.send(END)
    except Interrupted:
        return  # told to stop where nothing can be kept: the task begins anew next time


def _die_with(parent: int) -> None:
    """End this process when its parent has gone: an orphan would train on for nobody."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)

"""SIGINT, SIGTERM and SIGUSR1: what each asks for, kept as a flag that the step loops of the workers look at.

A second signal to the driver ends it and its workers at once. Finished runs are safe whatever ends a process.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))


class Interrupted(KeyboardInterrupt):
    """The user or the scheduler stopped the command; `code` is its exit code: 130 for Ctrl-C, 143 otherwise."""

    def __init__(self, number: int) -> None:
        self.code = 130 if number == signal.SIGINT else 143
        super().__init__(f"stopped by {signal.Signals(number).name}")


@dataclass(eq=False)
class Stop:
    """A signal handler: records the first signal in `received`, and raises Interrupted unless the code in progress
    checks `received` itself (`deferred`)."""

    worker: bool = False
    received: int = 0  # number of the first signal; 0: none
    deferred: bool = False

    def __call__(self, number: int, _: FrameType | None) -> None:
        """Handle a signal."""
        if self.received and not self.worker:
            for child in multiprocessing.active_children():
                child.kill()
            os._exit(Interrupted(number).code)
        again, self.received = bool(self.received), number
        if not (self.deferred or again):
            raise Interrupted(number)

    @contextmanager
    def deferring(self, on: bool = True) -> Iterator[None]:
        """A block that checks `received` itself; with `on=False` a block within one that does not."""
        before, self.deferred = self.deferred, on
        try:
            yield
        finally:
            self.deferred = before


def stop_handler(worker: bool = False) -> Stop:
    """The stop handler of this process, installed on the first call; outside the main thread it gets no signals."""
    installed = signal.getsignal(signal.SIGTERM)
    if isinstance(installed, Stop):
        return installed
    stop = Stop(worker)
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if not (worker and number == signal.SIGINT):  # Ctrl-C reaches the whole group; the driver decides
                signal.signal(number, stop)
    return stop


@contextmanager
def catching_signals() -> Iterator[Stop]:
    """Handle signals during one command, then restore the process's handlers (tests call commands in-process)."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    stop = stop_handler()
    try:
        yield stop
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


def stoppable(command: Callable[[], int]) -> int:
    """The exit code of a command that signals may stop: its own, or 130 or 143."""
    with catching_signals():
        try:
            return command()
        except Interrupted as stop:
            return stop.code

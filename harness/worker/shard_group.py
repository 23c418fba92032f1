"""The processes that train one run together (`training.shards`): the worker is rank 0 and starts the others.

It tells each of them over a pipe what to do next, so all of them make the same collective calls; they write nothing.
A process that ends takes the group with it: nothing waits for it longer than `TIMEOUT`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from harness.models.architecture import skeleton
from harness.models.lane_model import build_lanes
from harness.models.pack import Pack
from harness.training.loop import Training, start, state_of, train
from harness.training.sharded import build_sharded
from harness.training.state import LaneState
from harness.types import InputError, Record
from harness.worker.prepare import Worker
from harness.worker.protocol import Failure, FailureKind, GroupFailed, PackTask, WorkerConfig
from harness.worker.trainers import Trainer

TIMEOUT = timedelta(minutes=10)  # of a collective call: only a process that hangs is waited for so long
LOST_SECONDS = 2.0  # after a failed call, for the process that caused it to be seen to have ended
LEAVE_SECONDS = 10.0  # for the others to leave the group when it is done
READY = "ready"  # what a member sends once its pack is prepared
LOOPBACK = "lo" if sys.platform == "linux" else "lo0"


@dataclass(frozen=True, slots=True)
class Joining:
    """What a member is told first. Processes meet through a file in `folder`."""

    task: PackTask
    config: WorkerConfig
    rank: int
    folder: str


@dataclass(frozen=True, slots=True)
class Build:
    """Build the run's model and trainer, from the checkpoint of its folder at `step`; None: from the beginning."""

    folder: Path
    step: int | None


@dataclass(frozen=True, slots=True)
class Train:
    """Train, as `training.loop.train` does."""

    until: int | None


@dataclass(frozen=True, slots=True)
class Gather:
    """Take part in gathering the run's state."""


Command = Build | Train | Gather


@dataclass(frozen=True, slots=True)
class _Member:
    rank: int
    process: subprocess.Popen[bytes]
    pipe: Connection


@dataclass
class ShardGroup:
    """The group of one task, as rank 0 has it; the first trainer starts it."""

    task: PackTask
    worker: Worker
    members: list[_Member] = field(default_factory=list)
    folder: tempfile.TemporaryDirectory[str] = field(default_factory=tempfile.TemporaryDirectory)

    @property
    def size(self) -> int:
        """Processes of the group."""
        return self.task.runs[0].run.training.shards

    def trainer(self, pack: Pack, run_folder: Path, states: Sequence[LaneState | None]) -> Trainer:
        """The run in training, in all processes: from the beginning, or from its state, which `run_folder` holds."""
        if not self.members:
            self._start()
        [state] = states or [None]
        self._tell(Build(run_folder, None if state is None else state.step))
        training = start(pack, self.worker.device, [state], build_sharded)
        return Trainer(training, partial(self._train, training), partial(self._state, training))

    def close(self, failed: bool = False) -> None:
        """Leave the group, all together; after a failure the others are killed, since they may wait in a call."""
        for member in self.members:
            member.pipe.close()  # a member that waits for a command leaves, too
            if failed:
                member.process.kill()
        if (world := dist.group.WORLD) is not None:  # it was joined
            if failed and self.worker.device.type == "cuda":
                world.abort()  # NCCL would wait for the others
            dist.destroy_process_group()
        for member in self.members:
            with suppress(subprocess.TimeoutExpired):
                member.process.wait(LEAVE_SECONDS)
            member.process.kill()
            member.process.wait()
        self.members.clear()
        self.folder.cleanup()
        torch.set_num_threads(self.worker.config.threads)

    def failure(self) -> Failure | None:
        """Why another process ended, where one did: the first of them that was killed, or what one of them reports."""
        until = time.monotonic() + LOST_SECONDS
        while not (ended := [one for one in self.members if one.process.poll() is not None]):
            if time.monotonic() > until or not self.members:
                return None
            time.sleep(0.05)
        killed = [member for member in ended if member.process.returncode < 0]
        failures = [] if killed else [found for member in ended if (found := _reported(member)) is not None]
        if failures:  # of one that ran out of memory the others only see that it went
            return min(failures, key=lambda one: one.kind is FailureKind.ERROR)
        member = (killed or ended)[0]
        code = member.process.returncode
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        why = " (out of memory?)" if code == -signal.SIGKILL else ""
        return Failure(FailureKind.LOST_PROCESS, f"process {member.rank} of the run's {self.size} {how}{why}")

    def _start(self) -> None:
        """Start the other processes, wait until they are prepared, and meet them."""
        config, device = self.worker.config, self.worker.device
        if device.type == "cuda" and torch.cuda.device_count() < self.size:
            raise InputError(
                f"training.shards: {self.size} needs as many GPUs of one machine, a process on each; this worker sees "
                f"{torch.cuda.device_count()}"
            )
        for rank in range(1, self.size):
            ours, theirs = Pipe()
            process = subprocess.Popen(  # noqa: S603 - this interpreter and a module of ours
                [sys.executable, "-P", "-m", "harness.worker.shard_member", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
            theirs.close()  # the member's end is open in the member alone, so its death closes the pipe
            self.members.append(_Member(rank, process, ours))
            ours.send(Joining(self.task, config, rank, self.folder.name))
        for member in self.members:
            if (told := member.pipe.recv()) != READY:
                raise GroupFailed(_of(member, told))
        join(device, self.folder.name, 0, self.size)
        torch.set_num_threads(threads_of(config, self.size))

    def _tell(self, command: Command) -> None:
        for member in self.members:
            member.pipe.send(command)

    def _train(self, training: Training, until: int | None) -> Iterator[Record]:
        self._tell(Train(until))
        yield from train(training, until)

    def _state(self, training: Training, key: str) -> LaneState:
        self._tell(Gather())
        return state_of(training, key)


@contextmanager
def shard_group(task: PackTask, worker: Worker) -> Iterator[ShardGroup | None]:
    """The group of a task whose run trains in several processes; None for any other. It ends with the block.

    Raises GroupFailed in place of an error that only says that another process is gone.
    """
    if task.runs[0].run.training.shards == 1:
        yield None
        return
    group = ShardGroup(task, worker)
    try:
        yield group
    except BaseException as error:
        # What a call raises whose other end is gone.
        failure = group.failure() if isinstance(error, RuntimeError | OSError | EOFError) else None
        group.close(failed=True)
        if failure is None:
            raise
        raise GroupFailed(failure) from error
    group.close()


def gathered(trainer: Trainer, key: str) -> Training:
    """The training of a group's run with a model of its own in this process, which samples and is saved."""
    training = trainer.run
    assert isinstance(training, Training)
    weights = trainer.state(key).weights
    alone = build_lanes(skeleton(training.pack.architecture), [weights], training.model.flat.device)
    return replace(training, model=alone, live=None)


def join(device: torch.device, folder: str, rank: int, size: int) -> None:
    """Meet the other processes of this machine, and take the GPU of this rank."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", LOOPBACK)
    if device.type == "cuda":
        torch.cuda.set_device(rank)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"file://{folder}/meet", rank=rank, world_size=size, timeout=TIMEOUT)


def threads_of(config: WorkerConfig, size: int) -> int:
    """Threads of each process: those of the task, shared out."""
    return max(config.threads // size, 1)


def _reported(member: _Member) -> Failure | None:
    """The failure that a member sent before it ended."""
    told: Any = None
    with suppress(EOFError, OSError):
        while member.pipe.poll():
            told = member.pipe.recv()
    return _of(member, told) if isinstance(told, Failure) else None


def _of(member: _Member, failure: Failure) -> Failure:
    return replace(failure, message=f"process {member.rank}: {failure.message}")

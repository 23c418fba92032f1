"""A process that rank 0 of a group starts (`python -m harness.worker.shard_member FD`): it does as it is told.

It prepares the same pack, makes the same collective calls and writes nothing. It ends when its pipe closes.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection

import torch
import torch.distributed as dist

from harness.models.pack import Pack
from harness.training.loop import Training, start, state_of, train
from harness.training.sharded import build_sharded
from harness.worker.checkpointing import state_at
from harness.worker.prepare import Worker, pick_device, prepare_pack
from harness.worker.protocol import failure_of
from harness.worker.shard_group import READY, Build, Gather, Joining, Train, join, threads_of


def main(pipe: Connection) -> int:
    """Follow rank 0 until it closes the pipe; the exit code."""
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2"):  # rank 0 decides what a signal to all of them means
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    threading.Thread(target=_exit_with, args=(os.getppid(),), daemon=True).start()
    try:
        joining: Joining = pipe.recv()
        size, device = joining.task.runs[0].run.training.shards, pick_device(joining.config.device)
        if device.type == "cuda":
            torch.cuda.set_device(joining.rank)
        torch.set_num_threads(joining.config.threads)  # as rank 0 prepares: it is part of the reference's key
        _, pack = prepare_pack(joining.task, Worker(joining.config, device), check=False)
        pipe.send(READY)
        join(device, joining.folder, joining.rank, size)
        torch.set_num_threads(threads_of(joining.config, size))
        _follow(pipe, pack, joining.task.runs[0].key, device)
    except (EOFError, BrokenPipeError):  # rank 0 is done, or gone
        if dist.is_initialized():
            dist.destroy_process_group()
        return 0
    except Exception as error:
        with suppress(OSError):
            pipe.send(failure_of(error))
        return 1
    return 0


def _follow(pipe: Connection, pack: Pack, key: str, device: torch.device) -> None:
    """Do what rank 0 does, command by command, until the pipe closes (EOFError)."""
    training: Training | None = None
    while True:
        command = pipe.recv()
        if isinstance(command, Build):
            state = None if command.step is None else state_at(command.folder, key, command.step)
            training = start(pack, device, [state], build_sharded)
            continue
        assert training is not None  # a build comes first
        if isinstance(command, Train):
            for _ in train(training, command.until):
                pass  # rank 0 has the same records
        elif isinstance(command, Gather):
            state_of(training, key)


def _exit_with(parent: int) -> None:
    """End this process when rank 0 is gone: a collective call would wait for it."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


if __name__ == "__main__":
    code = main(Connection(int(sys.argv[1])))
    sys.stdout.flush()
    os._exit(code)  # a process group that has lost a member may wait for it on the way out

"""Packs as a Slurm job array, through submitit: an array task a pack, requeued where it is preempted or out of time.

The signal that Slurm sends ahead of time or preemption reaches the worker, which keeps its runs at the next boundary
and only then lets submitit requeue the job: it goes on from there. A job that a plain SIGTERM ended, or whose node was
lost, is handed in again by the driver, at most `INFRASTRUCTURE_RETRIES` times. submitit passes jobs as pickles in
`.slurm` of the sweep's folder, which only its owner can enter.
"""

from __future__ import annotations

import math
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

from harness.sweep.engines import INFRASTRUCTURE_RETRIES, RUN_OUT, THIS_MACHINE, Cluster, TaskFunction
from harness.sweep.engines.attempts import sweep_up
from harness.sweep.engines.remote_worker import STOP_SECONDS, carry_out_far, code, put_up_sign, shared
from harness.sweep.packing import plan_packs
from harness.sweep.signals import Interrupted, Stop, listen
from harness.types import InputError, RunSpec
from harness.worker.protocol import Event, WorkerConfig, WorkerTask

FOLDER = ".slurm"
AT_A_TIME = 16  # array tasks, where `--workers` does not say
NOTICE_SECONDS = 90  # of the signal before the limit of time
TIME_OUTS = 30  # a pack goes on where it was, so running out of time is no failure
LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class PackJob:
    """What a job runs; submitit pickles it."""

    function: TaskFunction
    order: WorkerTask
    shop: WorkerConfig
    sign: Path
    code: str

    def __call__(self) -> list[Event]:
        """The messages of the order. Where submitit's signal came this does not return: the job is requeued."""
        number = getattr(signal, "SIG" + os.environ.get("SUBMITIT_PREEMPT_SIGNAL", "USR2"))
        requeue: Any = signal.getsignal(number)
        stop, asked = listen(worker=True), list[int]()

        def preempted(heard: int, frame: FrameType | None) -> None:
            asked.append(heard)
            stop(heard, frame)

        signal.signal(number, preempted)
        messages: list[Event] = []
        try:
            shop = replace(self.shop, live={})
            messages += carry_out_far(self.function, self.order, shop, self.sign, self.code)
        except Interrupted:
            messages = []  # where nothing could be kept: begun anew
        if asked:
            requeue(asked[0], None)
        return messages

    def checkpoint(self) -> Any:
        """What submitit hands in again: the same job, whose runs go on from what they have kept."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def run_tasks(
    function: TaskFunction,
    tasks: Sequence[WorkerTask],
    settings: WorkerConfig,
    workers: int,
    stop: Stop,
    *,
    cluster: Cluster = THIS_MACHINE,
) -> Iterator[Event]:
    """Submit one array of all tasks, `workers` at a time; the messages of a task come when its job has ended.

    Once `stop` has heard a signal jobs have `STOP_SECONDS` to come to a boundary, then they are cancelled. Raises
    InputError where submitit is missing or this machine cannot submit.
    """
    home = Path(settings.folder).resolve()
    executor = _executor(home / FOLDER, cluster, workers, settings.device)
    sign, shop = put_up_sign(home), shared(settings)

    def hand_in(orders: Sequence[WorkerTask]) -> list[Any]:
        with executor.batch():
            return [executor.submit(PackJob(function, order, shop, sign, code())) for order in orders]

    live = dict(zip(hand_in(tasks), ((order, 0) for order in tasks), strict=True)) if tasks else {}
    told = 0.0
    try:
        while live:
            if stop.heard and not told:
                told = time.monotonic()
                sign.unlink(missing_ok=True)
            if told and time.monotonic() - told > STOP_SECONDS:
                return
            for job in [job for job in live if job.done()]:
                order, losses = live.pop(job)
                messages, why = _outcome(job, order)
                if told or not why:  # a job that was begun when the sign had gone says that it does not see it
                    yield from (message for message in messages if not (told and message.kind == "input"))
                elif losses >= INFRASTRUCTURE_RETRIES:
                    text = f"lost {losses + 1} times on the Slurm cluster, the last: {why}"
                    yield Event("failed", order.number, text=text)
                else:
                    live[hand_in([order])[0]] = (order, losses + 1)
            time.sleep(LOOK_SECONDS)
        if not told:
            sweep_up(home)
    finally:
        sign.unlink(missing_ok=True)
        for job in live:
            job.cancel(check=False)
        for left in (home / FOLDER).glob("*.pkl"):
            left.unlink(missing_ok=True)


def slots(_: Cluster) -> int:
    """What Slurm has free is not known ahead; so many packs keep a queue busy and still share what packs share."""
    return AT_A_TIME


def array_script(runs: Sequence[RunSpec], folder: Path, workers: int | None, cluster: Cluster) -> str:
    """The batch script of the array that trains `runs`, as submitit would submit it. Raises InputError without it."""
    _submitit()
    from submitit.slurm.slurm import SlurmExecutor, _make_sbatch_string

    count = workers or AT_A_TIME
    packs = plan_packs(runs, count)
    place = (folder / FOLDER).resolve()
    command = f"{shlex.quote(sys.executable)} -u -m submitit.core._submit {place}"
    known = SlurmExecutor._valid_parameters()
    settings = {name: value for name, value in _settings(cluster, count, runs[0].device).items() if name in known}
    script: str = _make_sbatch_string(command=command, folder=place, map_count=len(packs), **settings)
    return script


def _submitit() -> Any:
    try:
        import submitit
    except ImportError:
        raise InputError("--engine slurm: submitit is not installed; pip install 'preference-harness[slurm]'") from None
    return submitit


def _executor(folder: Path, cluster: Cluster, workers: int, device: str) -> Any:
    submitit = _submitit()
    folder.mkdir(mode=0o700, exist_ok=True)
    if cluster.scheduler == "local":
        executor = submitit.LocalExecutor(folder)
        executor.update_parameters(timeout_min=cluster.minutes)
        return executor
    try:
        executor = submitit.SlurmExecutor(folder, max_num_timeout=TIME_OUTS)
    except RuntimeError as error:
        raise InputError(f"--engine slurm: {error}; run this where sbatch works, or see --dry-run") from None
    executor.update_parameters(**_settings(cluster, workers, device))
    return executor


def _settings(cluster: Cluster, workers: int, device: str) -> dict[str, Any]:
    """submitit's parameters; Slurm gives whole GPUs."""
    gpus = math.ceil(cluster.gpus) if cluster.gpus is not None else int(device.startswith("cuda"))
    return {
        "job_name": "harness",
        "time": cluster.minutes,
        "cpus_per_task": cluster.cpus,
        "array_parallelism": workers,
        "signal_delay_s": NOTICE_SECONDS,
        "stderr_to_stdout": True,
        "additional_parameters": {"requeue": True},
        **({"partition": cluster.partition} if cluster.partition else {}),
        **({"account": cluster.account} if cluster.account else {}),
        **({"gpus_per_node": gpus} if gpus else {}),
    }


def _outcome(job: Any, order: WorkerTask) -> tuple[list[Event], str]:
    """The messages of a job that has ended, and why it must be handed in again where its work is not done."""
    submitit = _submitit()
    try:
        messages: list[Event] = job.result()
    except submitit.core.utils.FailedJobError as error:
        return [Event("failed", order.number, text=str(error))], ""
    except submitit.core.utils.UncompletedJobError as error:
        if job.state == "OUT_OF_MEMORY":
            return [Event("failed", order.number, text=f"{RUN_OUT}: Slurm ended job {job.job_id}")], ""
        return [], (str(error).strip().splitlines() or ["no result"])[0]
    if not messages or any(message.status == "stopped" for message in messages):
        return messages, "its job was told to stop"
    return messages, ""

"""`nox -s scale`: 10,000 runs that train nothing, through the real plan, claims, packs, journal, status and report.

One run in twenty loses its process in the middle, and the driver is killed three times. Every run is committed exactly
once; plan within 5 s, status within 2 s, report within 60 s, memory within 1 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from harness.config.load import load_sweep
from harness.identity import run_key, uniform
from harness.report.page import write_report
from harness.signals import Stop
from harness.storage.journal import Journal, read_journal
from harness.storage.runs import commit, load_result, open_run, run_result
from harness.storage.verify import verify
from harness.sweep import run, scheduler
from harness.sweep.engines import task_events
from harness.sweep.plan import describe
from harness.sweep.run import SweepOptions, run_sweep
from harness.sweep.status import read_status
from harness.types import RunStatus
from harness.worker import train_pack
from harness.worker.protocol import (
    Event,
    Failure,
    FailureKind,
    PackTask,
    RunDone,
    TaskFailed,
    WorkerConfig,
)

KILLED = 0.05  # of the runs
LIMITS = {"plan": 5.0, "status": 2.0, "report": 60.0, "memory": 1024.0}  # s, s, s, MB
QUIET = Console(quiet=True)


def spec(runs: int) -> dict[str, Any]:
    """A grid of so many runs: 5 objectives and betas x 4 rates x seeds."""
    return {
        "name": "scale",
        "world": {"kind": "mythworld", "misaligned": 0.5},
        "objectives": [{"name": "dpo", "beta": [0.1, 0.5, 2]}, {"name": "ipo", "beta": [0.1, 1]}],
        "corruptions": [{"kind": "none"}, {"kind": "uniform_flip", "rate": [0.1, 0.2, 0.4]}],
        "seeds": runs // 20,
    }


def fake(task: PackTask, config: WorkerConfig) -> Iterator[Event]:
    """In place of training: the files of a pack, committed as the trainer does; a few packs lose their process."""
    log = os.open(config.cache.parent / "committed.log", os.O_WRONLY | os.O_APPEND)
    for lane, planned in enumerate(task.runs):
        key = planned.key
        folder, attempt = open_run(config.folder, key, planned.name)
        journal = Journal(folder / "events.jsonl")
        journal.append({"kind": "start", "run_key": key, "attempt": attempt, "t0_ms": 1})
        for step in (0, 50, 100, 200):
            journal.append({"kind": "metrics", "step": step, "loss": uniform(step, "loss", key)})
        if attempt == 1 and uniform(0, "killed", key) < KILLED:
            os.kill(os.getpid(), signal.SIGKILL)
        journal.close()
        measures = ("ranking_accuracy", "reward_accuracy", "undesirable_zone", "train_loss_last", "kl")
        results = {name: uniform(0, name, key) for name in measures}
        costs = {"seconds": 0.01, "pack": task.number, "lane": lane}
        steps = planned.run.training.steps
        commit(folder, run_result(planned, folder, RunStatus.DONE, steps, costs, 1, results))
        os.write(log, f"{key}\n".encode())
        yield RunDone(task.number, key, RunStatus.DONE)


def forked(
    function: Callable[..., Iterator[Event]], tasks: Sequence[Any], settings: Any, workers: int, stop: Stop
) -> Iterator[Event]:
    """An engine of forked processes that light tasks can be killed in by the hundred: one a task, a pipe each."""
    waiting, live = deque(tasks), {}
    while waiting or live:
        while waiting and len(live) < workers and not stop.received:
            task = waiting.popleft()
            read, write = os.pipe()
            child = os.fork()
            if not child:
                os.close(read)
                for event in task_events(function, task, settings):
                    assert isinstance(event, RunDone), event
                    os.write(write, f"{event.key}\n".encode())
                os._exit(0)
            os.close(write)
            live[child] = (task, os.fdopen(read))
        child, status = os.wait()
        task, lines = live.pop(child)
        with lines:
            for line in lines:
                yield RunDone(task.number, line.strip(), RunStatus.DONE)
        if status:
            lost = Failure(FailureKind.LOST_PROCESS, f"ended with {os.waitstatus_to_exitcode(status)}")
            yield TaskFailed(task.number, lost)


def timed(what: Callable[[], object]) -> tuple[float, float, float]:
    """Processor seconds, wall seconds and peak megabytes of `what`, in a forked child of its own."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        began, busy = time.monotonic(), time.process_time()
        what()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        os.write(write, json.dumps([time.process_time() - busy, time.monotonic() - began, peak]).encode())
        os._exit(0)
    os.close(write)
    _, status = os.waitpid(child, 0)
    if status:
        raise SystemExit(f"scale: a step ended with {os.waitstatus_to_exitcode(status)}")
    with os.fdopen(read) as answer:
        spent, wall, peak = json.loads(answer.read())
    return spent, wall, peak


def drain(file: Path, out: Path, driver_kills: int) -> tuple[float, int]:
    """Run the sweep to its end, its driver killed so many times on the way; wall seconds and commands it took."""
    scheduler.load_engine = lambda *_: forked
    scheduler._Scheduler.build_models = lambda *_: None
    train_pack.run_task = fake
    draw, commands, began = random.Random(1), 0, time.monotonic()
    while True:
        commands += 1
        child = os.fork()
        if not child:
            os.setsid()
            run._finish = lambda *_: 0
            os._exit(run_sweep(load_sweep(file), out, 4, QUIET, SweepOptions("forked", 1e9, track=False)))
        if commands <= driver_kills:
            time.sleep(draw.uniform(5, 12))
            os.killpg(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if status == 0:
            return time.monotonic() - began, commands
        if commands > driver_kills:
            raise SystemExit(f"scale: the sweep ended with {os.waitstatus_to_exitcode(status)}")


def main() -> int:
    """Rehearse and print the figures; 1 where a run is missing or made twice, or a limit is passed."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.scale", description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--driver-kills", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="harness-scale-") as name:
        out, file = Path(name) / "runs", Path(name) / "scale.yaml"
        out.mkdir()
        (out / "committed.log").touch()
        file.write_text(yaml.safe_dump(spec(given.runs)))
        figures = {"plan": timed(lambda: describe(load_sweep(file), out))}
        seconds, commands = drain(file, out, given.driver_kills)
        folder = out / "scale"
        figures["status"] = timed(lambda: read_status(folder))
        figures["report"] = timed(lambda: write_report(folder))
        keys = [run_key(run) for run in load_sweep(file).runs]
        commits = Counter((out / "committed.log").read_text().split())
        results = {path.parent.name[:8]: load_result(path.parent) for path in folder.glob("*/result.json")}
        attempts = Counter(result["attempt"] for result in results.values() if result)
        whole = sum(len(read_journal(path)) == 5 for path in folder.glob("*/events.jsonl"))
        damaged = verify(folder)
    lost = len(keys) - sum(result is not None for result in results.values())
    twice = sum(count - 1 for count in commits.values())
    print(f"{len(keys)} runs in {seconds:.0f} s with {commands} commands, {given.driver_kills} of them killed")
    print(f"{attempts.total() - attempts[1]} runs were begun again after their process or the driver was killed")
    print(f"lost {lost}, made twice {twice}, damaged files {len(damaged)}, whole journals {whole} of {len(keys)}")
    bad = bool(lost or twice or damaged or whole != len(keys))
    for what, (spent, wall, peak) in figures.items():
        limit = LIMITS[what]
        room = f"{peak:>6.0f} MB (at most {LIMITS['memory']:g})"
        print(f"{what:<8}{spent:>7.2f} s of one core (at most {limit:g}), {wall:>6.1f} s on the clock, {room}")
        bad = bad or spent > limit or peak > LIMITS["memory"]
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())

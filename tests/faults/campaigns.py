"""Campaigns: each injects faults of one kind and counts what was lost and what was made twice. Both must be 0."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import socket
import sqlite3
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from harness.inputs.reference_models import load_weights
from harness.storage import failpoints
from harness.storage.arrays import load_arrays
from harness.storage.checkpoints import load_checkpoints, save_checkpoint
from harness.storage.runs import load_result
from harness.storage.verify import verify
from harness.training import loop
from harness.worker import checkpointing, train_pack
from tests.faults.world import (
    RL,
    SPEC,
    STUDY,
    Place,
    command,
    finished,
    fork,
    import_noted,
    make_schema,
    noting,
    place,
    signal_after,
    study_command,
    sweep_command,
    tracked,
    wait,
)


@dataclass
class Tally:
    """What a campaign did: faults injected, finished work lost, work done twice, and what else went wrong."""

    injected: int = 0
    lost: int = 0
    duplicated: int = 0
    wrong: list[str] = field(default_factory=list)
    note: str = ""

    @property
    def held(self) -> bool:
        return not (self.lost or self.duplicated or self.wrong)


@dataclass(frozen=True)
class Ground:
    """Where campaigns run: a folder, an empty tracking store, and the sweep and study that nothing disturbed."""

    root: Path
    schema: Path
    calm: Place
    seconds: float  # of processor time that the sweep takes once its models stand

    def fresh(self, name: str, cached: bool = True) -> Place:
        """A new place for the small sweep; with the calm one's caches where models are beside the point."""
        made = place(self.root / name, self.calm.spec, self.schema)
        if cached:
            shutil.copytree(self.calm.out / "cache", made.out / "cache")
        return made

    @property
    def results(self) -> bytes:
        return (self.calm.folder / "results.csv").read_bytes()


def ground(root: Path, spec: Mapping[str, Any] = SPEC) -> Ground:
    schema = make_schema(root / "schema")
    calm = place(root / "calm", spec, schema)
    whole = noting(sweep_command(calm, checkpoint_seconds=1e9, plain=False), root / "modules")
    assert wait(fork(whole, log=root / "calm.log")) == 0, (root / "calm.log").read_text()[-2000:]
    import_noted(root / "modules")
    on = Ground(root, schema, calm, 0.0)
    again, before = on.fresh("again"), used()
    assert wait(fork(sweep_command(again))) == 0
    seconds = used() - before
    assert (again.folder / "results.csv").read_bytes() == on.results
    return replace(on, seconds=seconds)


def used() -> float:
    """Processor seconds of children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def end(at: Place, on: Ground, tally: Tally, what: str) -> None:
    """Finish a disturbed sweep and compare all it left with the calm one."""
    code = wait(fork(sweep_command(at), log=at.root / "log"))
    if code != 0:
        tally.wrong.append(f"{what}: the last command ended with {code}, see {at.root / 'log'}")
        return
    if (at.folder / "results.csv").read_bytes() != on.results:
        tally.wrong.append(f"{what}: results.csv differs from the undisturbed sweep's")
    tally.wrong += [f"{what}: {line}" for line in verify(at.folder)]
    keys = tracked(at)
    tally.duplicated += len(keys) - len(set(keys))
    planned = len(at.load().runs)
    if len(set(keys)) != planned:
        tally.wrong.append(f"{what}: {len(set(keys))} of {planned} runs in the tracking store")
    heads = [path.name[:8] for path in at.folder.iterdir() if path.is_dir() and path.name[8:9] == "-"]
    tally.duplicated += len(heads) - len(set(heads))


def survive(before: dict[str, bytes], at: Place, tally: Tally) -> dict[str, bytes]:
    """Nothing finished may be lost or made again by what just happened."""
    now = finished(at)
    tally.lost += len(before.keys() - now.keys())
    tally.duplicated += sum(now.get(key, value) != value for key, value in before.items())
    return now


def kills(on: Ground, count: int, seed: int) -> Tally:
    """SIGKILL at a random moment of the work, or at a named point of a file recipe, until `count` were sent."""
    tally, draw, sweeps = Tally(), random.Random(seed), 0
    planned = len(on.calm.load().runs)
    while tally.injected < count:
        sweeps += 1
        at, done, code = on.fresh(f"kills-{sweeps}", cached=sweeps > 1), {}, None
        while tally.injected < count:
            arm: Callable[[], object] = lambda: None  # noqa: E731
            if draw.random() < 0.3:
                point, nth = draw.choice(failpoints.POINTS), draw.randint(1, 12)
                arm = lambda p=point, n=nth: failpoints._armed.update({p: ("kill", n)})  # noqa: E731
            child = fork(sweep_command(at), arm, at.root / "log")
            # Up to the end of what remains: whole sweeps would mostly end before their signal.
            remains = on.seconds * (0.3 + 0.7 * (1 - len(done) / planned))
            code = signal_after(child, draw.uniform(0.02, remains))
            if code is None:
                wait(child)
            tally.injected += code is None or code == -signal.SIGKILL
            done = survive(done, at, tally)
            if code is not None and code != -signal.SIGKILL:
                break
        end(at, on, tally, f"sweep {sweeps} under kills")
        shutil.rmtree(at.root)
    tally.note = f"over {sweeps} sweeps of {planned} runs"
    return tally


def rl_kills(on: Ground, count: int, seed: int) -> Tally:
    """The same in a sweep of RL runs and the reward model that some of them learn from."""
    return kills(ground(on.root / "rl", RL), count, seed)


def process_kills(on: Ground, count: int, seed: int) -> Tally:
    """The same with worker processes: one worker alone, which costs the sweep nothing, and the whole group at once."""
    tally, draw = Tally(), random.Random(seed)
    at = on.fresh("worker")
    child = fork(sweep_command(at, engine="process"), log=at.root / "log")
    victim, until = None, time.monotonic() + 60
    while victim is None and time.monotonic() < until:
        time.sleep(0.002)
        if list(at.folder.glob("*/events.jsonl")):  # a worker is at work
            victim = _worker_of(child)
    if victim is None:
        tally.wrong.append("no worker was there to be killed")
    else:
        os.kill(victim, signal.SIGKILL)
        tally.injected += 1
    if (code := wait(child)) != 0:
        tally.wrong.append(f"a worker killed: the sweep ended with {code}, see {at.root / 'log'}")
    end(at, on, tally, "a worker killed")
    at, done = on.fresh("process"), {}
    while tally.injected < count:
        child = fork(sweep_command(at, engine="process"), log=at.root / "log")
        if signal_after(child, draw.uniform(0.05, 0.3)) is not None:
            break
        tally.injected += 1
        wait(child)
        done = survive(done, at, tally)
    end(at, on, tally, "worker processes under kills")
    return tally


def _worker_of(driver: int) -> int | None:
    """A worker process of a driver; None where it has none (any more)."""
    try:
        children = Path(f"/proc/{driver}/task/{driver}/children").read_text().split()
        return next((int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()), None)
    except OSError:  # one of them has just ended
        return None


def flips(on: Ground, count: int, seed: int) -> Tally:
    """One bit flipped in a file of a finished sweep, a cache or a checkpoint: seen before the file is used."""
    tally, draw = Tally(), random.Random(seed)
    at = on.fresh("flips")
    shutil.copytree(on.calm.folder, at.folder)
    runs = sorted(path.parent for path in at.folder.glob("*/result.json"))
    save_checkpoint(at.root, 3, {"state": bytes(range(256)) * 8, "records": b"r" * 100})
    kinds: dict[str, list[Path]] = {"checkpoint": sorted((at.root / "ckpt" / "step-3").iterdir())}
    for name in ("result.json", "events.jsonl", "examples.parquet", "samples.parquet", "provenance.json"):
        kinds[name] = [run / name for run in runs]
    for cache in ("models", "reference"):
        kinds[cache] = sorted((at.out / "cache" / cache).glob("*.safetensors"))
    for number in range(count):
        kind = sorted(kinds)[number % len(kinds)]
        victim = draw.choice(kinds[kind])
        whole = victim.read_bytes()
        bit = draw.randrange(8 * len(whole))
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        victim.write_bytes(bytes(changed))
        tally.injected += 1
        if not _seen(kind, victim, whole, at):
            tally.lost += 1
            tally.wrong.append(f"{victim}: bit {bit} went unseen")
        for leftover in (*victim.parent.glob("*.corrupt-*"), *victim.parent.parent.glob("step-3.corrupt-*")):
            if leftover.is_dir():
                leftover.rename(at.root / "ckpt" / "step-3")
            else:
                leftover.unlink()
        victim.write_bytes(whole)
    tally.note = f"in {len(kinds)} kinds of file"
    shutil.rmtree(at.root)
    return tally


def _seen(kind: str, victim: Path, whole: bytes, at: Place) -> bool:
    """Whether the reader of a file refuses it, or what it holds has not changed."""
    if kind == "checkpoint":
        return list(load_checkpoints(at.root)) == []
    if kind in ("models", "reference"):
        key = victim.name.removesuffix(".safetensors")
        if kind == "models":
            return load_weights(at.out / "cache", key) is None
        own = next((k for k in (key, *_keys(whole)) if k), key)
        return load_arrays(victim, own) is None
    if kind == "result.json":
        return bool(verify(victim.parent)) or load_result(victim.parent) is None
    return any(victim.name in line for line in verify(victim.parent))


def _keys(data: bytes) -> list[str]:
    import json

    length = int.from_bytes(data[:8], "little")
    return [json.loads(data[8 : 8 + length])["__metadata__"]["key"]]


def points(on: Ground, count: int, seed: int) -> Tally:
    """A kill and a full disk at every named point of every file recipe, each at a random arrival."""
    tally, draw = Tally(), random.Random(seed)
    plan = [(point, action) for point in failpoints.POINTS for action in failpoints.ACTIONS][:count]
    at, done = on.fresh("points"), {}
    for point, action in plan:
        for _ in range(4):  # a point may lie behind what is done already: then on a fresh sweep
            nth = draw.randint(1, 4)

            def arm(point: str = point, action: str = action, nth: int = nth) -> None:
                checkpointing.CHECK_SECONDS = 0.0  # kept at every step, so that old checkpoints are dropped, too
                failpoints._armed[point] = (action, nth)

            code = wait(fork(sweep_command(at), arm, at.root / "log"))
            done = survive(done, at, tally)
            expected = -signal.SIGKILL if action == "kill" else 1
            if code == expected:
                tally.injected += 1
                break
            if code != 0:
                tally.wrong.append(f"{point}:{action}@{nth}: ended with {code}, expected {expected}")
                break
            end(at, on, tally, f"{point}:{action}")
            at, done = on.fresh("points"), {}
        else:
            tally.wrong.append(f"{point}: never reached")
    end(at, on, tally, "named points")
    return tally


def disk_full(on: Ground, count: int, seed: int) -> Tally:
    """No file may grow beyond a random limit, as on a full disk: exit 1 with path and advice, then all goes on."""
    tally, draw = Tally(), random.Random(seed)
    at, done = on.fresh("full"), {}

    def limit(size: int) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    for number in range(count):
        log = at.root / f"log-{number}"
        log.touch()
        size = int(draw.choice([200, 2_000, 20_000, 60_000]) * draw.uniform(1, 2))
        code = wait(fork(sweep_command(at), lambda s=size: limit(s), log))
        tally.injected += 1
        done = survive(done, at, tally)
        said = log.read_text(errors="replace")
        if code == 0:
            break
        if code != 1 or "no room left" not in said or "run the same command" not in said:
            tally.wrong.append(f"limit {size}: exit code {code}, said {said[-300:]!r}")
    end(at, on, tally, "after a full disk")
    return tally


def locked_store(on: Ground, count: int, seed: int) -> Tally:
    """Another process holds the tracking store's sqlite for the whole sweep: exit 0, points wait, sync delivers."""
    tally = Tally()
    for number in range(count):
        at = on.fresh(f"locked-{number}")
        holder = sqlite3.connect(at.out / "mlflow.db", isolation_level=None)
        holder.execute("BEGIN EXCLUSIVE")
        code = wait(fork(sweep_command(at), log=at.root / "log"))
        tally.injected += 1
        if code != 0:
            tally.wrong.append(f"with the store locked the sweep ended with {code}")
        holder.execute("ROLLBACK")
        holder.close()
        end(at, on, tally, "after a locked store")
    return tally


def dead_server(on: Ground, count: int, seed: int) -> Tally:
    """A tracking server that refuses, and one that accepts and never answers: exit 0, points wait, sync delivers."""
    tally = Tally()
    for number in range(count):
        at = on.fresh(f"dead-{number}")
        server = socket.socket()
        server.bind(("127.0.0.1", 0))
        if number % 2:
            server.listen(64)
        port = server.getsockname()[1]
        before = time.monotonic()
        set_uri = lambda p=port: os.environ.update(MLFLOW_TRACKING_URI=f"http://127.0.0.1:{p}")  # noqa: E731
        code = wait(fork(sweep_command(at), set_uri, at.root / "log"))
        tally.note += f"{'silent' if number % 2 else 'refusing'} {time.monotonic() - before:.0f} s "
        tally.injected += 1
        if code != 0:
            tally.wrong.append(f"with a dead server the sweep ended with {code}")
        if wait(fork(command("sync", at.folder), set_uri, at.root / "sync")) != 1:
            tally.wrong.append("sync to a dead server did not say that points wait")
        if "points waiting" not in (at.root / "sync").read_text():
            tally.wrong.append(f"sync said {(at.root / 'sync').read_text()[-300:]!r}")
        server.close()
        if wait(fork(command("sync", at.folder), log=at.root / "sync")) != 0:
            tally.wrong.append("sync to the store did not deliver")
        end(at, on, tally, "after a dead server")
    return tally


def starters(on: Ground, count: int, seed: int) -> Tally:
    """Two to eight starters of one sweep at once: one works, the others name it and exit with 2 within 5 s."""
    tally, draw = Tally(), random.Random(seed)
    for number in range(count):
        at = on.fresh(f"starters-{number}")
        size = draw.randint(2, 8) if number else 8
        logs = [at.root / f"log-{i}" for i in range(size)]
        began = time.monotonic()
        children = [fork(sweep_command(at), log=log) for log in logs]
        codes = [wait(child) for child in children]
        tally.injected += size
        for code, log in zip(codes, logs, strict=True):
            if code not in (0, 2) or (code == 2 and "is running this sweep" not in log.read_text()):
                tally.wrong.append(f"a starter ended with {code}: {log.read_text()[-300:]!r}")
        if 0 not in codes:
            tally.wrong.append(f"nobody ran the sweep: {codes} in {time.monotonic() - began:.0f} s")
        results = [load_result(path.parent) for path in at.folder.glob("*/result.json")]
        tally.duplicated += sum(result is not None and result["attempt"] != 1 for result in results)
        end(at, on, tally, f"{size} starters")
        shutil.rmtree(at.root)
    return tally


def signals(on: Ground, count: int, seed: int) -> Tally:
    """SIGINT, SIGTERM and SIGUSR1 at random moments: exit 130 or 143, tables that say what stands, nothing lost."""
    tally, draw = Tally(), random.Random(seed)
    at, done, sweeps, slowest = on.fresh("signals"), {}, 1, 0.0
    while tally.injected < count:
        number = draw.choice([signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
        child = fork(sweep_command(at), log=at.root / "log")
        code = signal_after(child, draw.uniform(0.1, 0.8 * on.seconds), number)
        if code is None:
            began = time.monotonic()
            code = wait(child)
            slowest = max(slowest, time.monotonic() - began)
            tally.injected += 1
            wanted = 130 if number == signal.SIGINT else 143
            if code not in (wanted, 0):
                tally.wrong.append(f"signal {number}: exit code {code}, see {at.root / 'log'}")
            if code == wanted and not (at.folder / "results.csv").exists():
                tally.wrong.append(f"signal {number}: no results.csv")
            tally.wrong += verify(at.folder)
        done = survive(done, at, tally)
        if code == 0:
            end(at, on, tally, "signals")
            sweeps += 1
            at, done = on.fresh("signals"), {}
    end(at, on, tally, "signals")
    tally.note = f"slowest stop {slowest:.1f} s"
    return tally


def nan_lanes(on: Ground, count: int, seed: int) -> Tally:
    """A loss that is not finite in one lane of a pack: that run is diverged at the step, its neighbours untouched."""
    import csv

    tally, draw = Tally(), random.Random(seed)
    calm = {row["run_key"]: row for row in csv.DictReader(on.results.decode().splitlines())}
    for number in range(count):
        at, lane, step = on.fresh(f"nan-{number}"), draw.randrange(4), draw.randrange(8)
        value = draw.choice([float("nan"), float("inf"), -float("inf")])

        def spoil(lane: int = lane, step: int = step, value: float = value) -> None:
            whole = loop._losses

            def losses(run, *rest):
                found = whole(run, *rest)
                spoiled = torch.zeros_like(found)
                if run.step == step:  # later the pack is narrower
                    spoiled[lane] = value
                return found + spoiled

            loop._losses = losses

        code = wait(fork(sweep_command(at), spoil, at.root / "log"))
        tally.injected += 1
        rows = list(csv.DictReader((at.folder / "results.csv").read_text().splitlines()))
        bad = [row for row in rows if row["status"] == "diverged"]
        if code != 0 or not bad or {row["status"] for row in rows} != {"done", "diverged"}:
            tally.wrong.append(f"lane {lane} at step {step}: exit code {code}, {len(bad)} diverged")
        tally.lost += sum(row != calm[row["run_key"]] for row in rows if row["status"] == "done")
        shutil.rmtree(at.root)
    return tally


def memory(on: Ground, count: int, seed: int) -> Tally:
    """Memory gives out above so many lanes: packs are cut until they fit, results as if cut so from the start."""
    tally = Tally()
    for number in range(count):
        at, most = on.fresh(f"memory-{number}"), (2, 1, 4, 0)[number % 4]

        def shrink(most: int = most) -> None:
            whole = train_pack.build_trainer

            def build_trainer(pack, *rest):
                if len(pack.lanes) > most:
                    raise torch.OutOfMemoryError("CUDA out of memory (injected)")
                return whole(pack, *rest)

            train_pack.build_trainer = build_trainer

        code = wait(fork(sweep_command(at), shrink, at.root / "log"))
        tally.injected += 1
        if code != (0 if most else 1):
            tally.wrong.append(f"at most {most} lanes: exit code {code}, see {at.root / 'log'}")
        end(at, on, tally, f"memory for {most} lanes")
    return tally


def clocks(on: Ground, count: int, seed: int) -> Tally:
    """The clock jumps by a day, back and forth, all the time: the same results, no negative duration."""
    import csv

    tally, draw = Tally(), random.Random(seed)
    for number in range(count):
        at = on.fresh(f"clock-{number}")

        def jump() -> None:
            now, now_ns = time.time, time.time_ns
            day = lambda: draw.choice([-86400, 0, 86400])  # noqa: E731
            time.time = lambda: now() + day()
            time.time_ns = lambda: now_ns() + day() * 1_000_000_000

        child = fork(sweep_command(at), jump, at.root / "log")
        if signal_after(child, 0.5 * on.seconds) is None:
            wait(child)
        tally.injected += 1
        if wait(fork(sweep_command(at), jump, at.root / "log")) != 0:
            tally.wrong.append("under a jumping clock the sweep did not end with 0")
        with (at.folder / "costs.csv").open() as handle:
            tally.wrong += [f"negative seconds {row}" for row in csv.DictReader(handle) if float(row["seconds"]) < 0]
        end(at, on, tally, "clock jumps")
    return tally


def study_kills(on: Ground, count: int, seed: int) -> Tally:
    """A study under SIGKILLs at random moments: the same trials, tables and results as the undisturbed one."""
    tally, draw = Tally(), random.Random(seed)
    modules = on.root / "study-modules"
    for _ in range(2):  # the first imports, the second tells how long the work takes
        calm, before = place(on.root / "study-calm", STUDY, on.schema), used()
        code = wait(fork(noting(study_command(calm), modules), log=calm.root / "log"))
        seconds = used() - before
        if code != 0:
            tally.wrong.append(f"the undisturbed study ended with {code}, see {calm.root / 'log'}")
            return tally
        import_noted(modules)
    files = ("results.csv", "trials.jsonl", "study.json", "report/tuned.csv", "report/selection.csv")
    sweeps = 0
    while tally.injected < count:
        sweeps += 1
        at = place(on.root / "study", STUDY, on.schema)
        while tally.injected < count:
            child = fork(study_command(at), log=at.root / "log")
            code = signal_after(child, draw.uniform(0.05, 0.8 * seconds))
            if code is not None:
                break
            wait(child)
            tally.injected += 1
        if (code := wait(fork(study_command(at), log=at.root / "log"))) != 0:
            tally.wrong.append(f"the study ended with {code}, see {at.root / 'log'}")
            continue
        for name in files:
            if (at.folder / name).read_bytes() != (calm.folder / name).read_bytes():
                tally.wrong.append(f"{name} differs from the undisturbed study's")
        tally.wrong += verify(at.folder)
        keys = tracked(at)
        tally.duplicated += len(keys) - len(set(keys))
    tally.note = f"over {sweeps} studies"
    return tally


# name -> (campaign, how many faults the long session injects, how many the selection in the tests); long ones first
CAMPAIGNS = {
    "kills": (kills, 200, 3),
    "study_kills": (study_kills, 20, 0),
    "rl_kills": (rl_kills, 20, 0),
    "process_kills": (process_kills, 5, 0),
    "points": (points, len(failpoints.POINTS) * len(failpoints.ACTIONS), 0),
    "flips": (flips, 200, 64),
    "disk_full": (disk_full, 12, 1),
    "locked_store": (locked_store, 1, 0),
    "dead_server": (dead_server, 2, 0),
    "starters": (starters, 6, 1),
    "nan_lanes": (nan_lanes, 4, 1),
    "memory": (memory, 4, 0),
    "clocks": (clocks, 2, 0),
    "signals": (signals, 20, 1),
}
ALONE = {"dead_server", "signals"}  # they tell how long something took

"""The smallest sweep and study that meet every file of the harness, and commands in forked children that may be killed.

A child is forked from a process that has imported what an undisturbed command imports, so that faults meet work.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console

from harness.cli import run as command_line
from harness.config.load import SweepSpec, load_sweep
from harness.config.study import load_study
from harness.identity import run_key
from harness.report import page
from harness.report.data.tables import write_results
from harness.signals import stoppable
from harness.storage.runs import find_run, load_result
from harness.study.run import run_study
from harness.sweep import scheduler
from harness.sweep.run import SweepOptions, run_sweep
from harness.tracking.connection import default_uri, open_client
from harness.types import InputError, NoRoom
from harness.worker import train_pack  # noqa: F401 - so that children have it

WORLD = {
    "kind": "mythworld", "misaligned": 0.5, "pairs": 32,
    "pretrain_steps": 6, "pretrain_batch": 8, "sft_steps": 4, "sft_batch": 8,
}  # fmt: skip
SPEC = {
    "name": "small",
    "world": WORLD,
    "objectives": [{"name": "dpo", "beta": [0.5, 5]}, {"name": "kto", "beta": 0.5}],
    "corruptions": [{"kind": "none"}, {"kind": "uniform_flip", "rate": 0.4}],
    "seeds": 2,
    "training": {"steps": 8, "batch_size": 8},
    "evaluation": {"checkpoints": 3, "heldout": 16, "probe": 16, "ood": 8, "samples": 4, "gradient_probe": 1},
    "device": "cpu",
}  # fmt: skip
ROLLOUTS = {"iterations": 6, "prompts": 4, "samples": 2}
RL = {
    **SPEC,
    "name": "rl",
    "objectives": [
        {"name": "reward_model", "steps": 6},
        {"name": "ppo", "epochs": 2, **ROLLOUTS},
        {"name": "reinforce", "baseline": "running", "kl_controller": "adaptive", "reward": "gold", **ROLLOUTS},
        {"name": "constrained_rlhf", "pairs": 12, "reward": "gold", **ROLLOUTS},
    ],
    "corruptions": [{"kind": "uniform_flip", "rate": 0.4}],
    "seeds": 1,
    "evaluation": {**SPEC["evaluation"], "checkpoints": 2},
}
STUDY = {
    "name": "search",
    "world": WORLD,
    "objectives": [{"name": "dpo"}],
    "corruptions": [{"kind": "uniform_flip", "rate": 0.3}],
    "training": {"steps": 4, "batch_size": 8, "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}},
    "evaluation": {"checkpoints": 2, "heldout": 32, "probe": 8, "ood": 8, "samples": 4},
    "seeds": 2, "fresh_seeds": 1, "trials": 4, "round": 2,
    "targets": [{"measure": "ranking_accuracy"}],
    "sampler": {"startup_trials": 2},
    "device": "cpu",
}  # fmt: skip
QUIET = Console(quiet=True)


@dataclass(frozen=True)
class Place:
    """A folder with a spec, under which a sweep or study runs; `calm` is the result of an undisturbed command."""

    root: Path
    spec: Mapping[str, Any]

    @property
    def out(self) -> Path:
        return self.root / "runs"

    @property
    def folder(self) -> Path:
        return self.out / str(self.spec["name"])

    @property
    def file(self) -> Path:
        return self.root / "spec.yaml"

    def load(self) -> SweepSpec:
        return load_sweep(self.file)


def place(root: Path, spec: Mapping[str, Any] = SPEC, schema: Path | None = None) -> Place:
    """A fresh place; `schema` is an empty tracking store to copy, since making one takes a second."""
    if root.exists():
        shutil.rmtree(root)
    made = Place(root, spec)
    made.out.mkdir(parents=True)
    made.file.write_text(yaml.safe_dump(dict(spec)), encoding="utf-8")
    if schema is not None:
        shutil.copy(schema, made.out / "mlflow.db")
    return made


def make_schema(root: Path) -> Path:
    """An empty tracking store, made by a child: a connection must not be carried through a fork."""
    root.mkdir(parents=True, exist_ok=True)
    child = fork(lambda: 0 * len(open_client(default_uri(root)).search_experiments()))
    assert wait(child) == 0
    return root / "mlflow.db"


def sweep_command(
    at: Place, checkpoint_seconds: float = 0.0, plain: bool = True, engine: str = "inline"
) -> Callable[[], int]:
    """`harness sweep` of a place in this process; `plain` writes tables alone instead of the report's figures."""

    def command() -> int:
        if plain:
            page.write_report = lambda folder: write_results(folder)[0]
        options = SweepOptions(engine, checkpoint_seconds)
        return stoppable(lambda: run_sweep(at.load(), at.out, 1 if engine == "inline" else 2, QUIET, options))

    return command


def study_command(at: Place) -> Callable[[], int]:
    """`harness study` of a place, trained in this process."""

    def command() -> int:
        whole = scheduler.run_packs
        scheduler.run_packs = lambda *arguments: whole(*arguments, SweepOptions("inline", 0.0))
        return stoppable(lambda: run_study(load_study(at.file), at.out, 1, QUIET))

    return command


def noting(command: Callable[[], int], note: Path) -> Callable[[], int]:
    """The command, which leaves in `note` the modules that its process then has."""

    def noted() -> int:
        code = command()
        note.write_text("\n".join(name for name, module in sys.modules.items() if getattr(module, "__file__", None)))
        return code

    return noted


def import_noted(note: Path) -> None:
    """Import what a command imported: seconds that every later child would spend before its work."""
    for name in note.read_text().split():
        if name != "__main__":
            importlib.import_module(name)


def fork(command: Callable[[], int], prepare: Callable[[], object] = lambda: None, log: Path | None = None) -> int:
    """Start `command` in a forked child with a session of its own; returns its process id."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        os.setsid()
        sink = os.open(log or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        torch.set_num_threads(1)
        prepare()
        code = command()
    except (InputError, NoRoom) as error:
        print(error, file=sys.stderr)
        code = 2 if isinstance(error, InputError) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def wait(child: int, seconds: float = 600.0) -> int:
    """The exit code of a child, minus the signal that ended it; a child beyond the time is killed and shown as 124."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return 124


def cpu_seconds(child: int) -> float:
    """Processor time that a child has used: a busy machine must not decide where in its work a fault meets it."""
    try:
        return time.clock_gettime(~child << 3 | 2)  # the clock id that clock_getcpuclockid(3) makes of a process
    except OSError:
        return float("inf")  # it ended


def signal_after(child: int, seconds: float, number: int = signal.SIGKILL) -> int | None:
    """Send a signal to a child's group once it has used so much processor time; its exit code if it ended before."""
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if cpu_seconds(child) >= seconds:
            os.killpg(child, number)
            return None
        time.sleep(0.002)


def finished(at: Place) -> dict[str, bytes]:
    """The whole results of a sweep by run key, as bytes: a finished run that is made again would differ."""
    found = {}
    for run in at.load().runs:
        folder = find_run(at.folder, run_key(run))
        result = load_result(folder) if folder is not None else None
        if result is not None and result["status"] in ("done", "diverged"):
            found[result["run_key"]] = (folder / "result.json").read_bytes()
    return found


def tracked(at: Place) -> list[str]:
    """Run keys of the runs that the tracking store holds; asked in a child."""
    note = at.root / "tracked.json"

    def ask() -> int:
        client = open_client(default_uri(at.out))
        experiment = client.get_experiment_by_name(str(at.spec["name"]))
        runs = client.search_runs([experiment.experiment_id], "tags.`harness.kind` = 'run'", max_results=50_000)
        note.write_text(json.dumps([run.data.tags["harness.run_key"] for run in runs]))
        return 0

    assert wait(fork(ask)) == 0
    return list(json.loads(note.read_text()))


def command(*arguments: object) -> Callable[[], int]:
    """A command line in this process."""
    return lambda: command_line([str(word) for word in arguments])

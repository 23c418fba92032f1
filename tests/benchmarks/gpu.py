"""A GPU's first look at the product: steps in order of worth, each guarded, figures written as they come.

`nox -s gpu` runs them on a GPU, `nox -s gpu -- --rehearse` the same steps on a CPU with tiny shapes. A step that fails
costs its own figures alone; one that would begin after the budget is skipped. The exit code is 1 where any step failed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from rich.console import Console

from harness.commands.doctor import examine
from harness.config.load import load_sweep
from harness.run_names import planned_runs
from harness.storage.runs import find_run, load_result
from harness.sweep.console import CommandOutput
from harness.sweep.scheduler import SweepOptions, run_packs
from harness.training.loop import start, train
from harness.training.timing import gemm_ceiling
from harness.types import TrainingSpec
from harness.worker import train_pack
from tests.training.worlds import lane, pack

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "reports" / "benchmarks"
BUDGET = 8 * 60.0  # seconds of one GPU
TOLERANCE = 1e-4  # of a lane's final log-probs in packs of different sizes, relative; 0 on a CPU


@dataclass(frozen=True)
class Day:
    """What the steps share: device, whether it is a rehearsal, a folder for sweeps."""

    device: str
    rehearsal: bool
    place: Path

    def spec(self, name: str, **changes: Any) -> Path:
        """A small sweep of the embedded world, tiny in a rehearsal, as a file."""
        tiny = {"pairs": 64, "pretrain_steps": 20, "sft_steps": 10, "hidden_size": 32, "layers": 1}
        spec = {
            "name": name,
            "world": {"kind": "mythworld", **(tiny if self.rehearsal else {})},
            "objectives": [{"name": "dpo", "beta": [0.1, 0.5, 2.0, 5.0]}, {"name": "cpo_smooth", "beta": [2.0, 5.0]}],
            "training": {"steps": 400 if self.rehearsal else 2000, "batch_size": 8},
            "evaluation": {"checkpoints": 3, "heldout": 32, "probe": 32, "ood": 0, "samples": 8},
            "device": self.device,
            **changes,
        }
        path = self.place / f"{name}.yaml"
        path.write_text(yaml.safe_dump(spec), encoding="utf-8")
        return path


def machine(device: torch.device) -> dict[str, Any]:
    """What the figures were taken on."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "cores": os.cpu_count(),
        "fp32 GEMM, GFLOP/s": round(gemm_ceiling(device) / 1e9, 1),
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "transformers")},
    }


def doctor(day: Day) -> dict[str, Any]:
    """What `harness doctor` finds."""
    found = examine(day.place)
    return {name: f"{one.state}: {one.text}" for name, one in found.items()}


def lanes(day: Day) -> dict[str, Any]:
    """Lanes of a pack of 8 against their lone runs: the largest relative difference of final log-probs."""
    device = torch.device(day.device)
    training = TrainingSpec(steps=12, batch_size=8, learning_rate=1e-3, warmup_steps=3)
    own = [lane(str(n), name, {"beta": beta}, training=training) for n, (name, beta) in enumerate(
        (name, beta) for name in ("dpo", "ipo", "cpo_smooth", "hypo") for beta in (0.5, 2.0)
    )]  # fmt: skip

    def final(numbers: list[int]) -> dict[str, np.ndarray]:
        run = start(_on(pack([own[n] for n in numbers]), device), device)
        return {record.run_key: record.columns["policy_chosen"] for record in train(run)}

    together = final(list(range(len(own))))
    gaps = [np.abs(final([n])[str(n)] / together[str(n)] - 1).max() for n in range(len(own))]
    worst = float(max(gaps))
    if worst > (TOLERANCE if device.type == "cuda" else 0.0):
        raise AssertionError(f"a lane differs from its lone run by {worst:.1e}")
    return {"lanes": len(own), "largest relative difference": worst}


def _on(whole: Any, device: torch.device) -> Any:
    corpus = whole.corpus
    moved = {name: getattr(corpus, name).to(device) for name in corpus.__dataclass_fields__}
    return replace(whole, corpus=replace(corpus, **moved))


def sweep(day: Day) -> dict[str, Any]:
    """A sweep with its report: seconds, runs per hour, tokens per second of its training."""
    path = day.spec("whole")
    seconds = _command(day, path)
    folder = day.place / "runs" / "whole"
    costs = pd.read_csv(folder / "costs.csv")
    return {
        "runs": len(costs),
        "seconds": round(seconds, 1),
        "training seconds": round(float(costs["seconds"].sum()), 1),
        "tokens per second in training": round(float(costs["tokens"].sum() / costs["seconds"].sum())),
    }


def resume(day: Day) -> dict[str, Any]:
    """The same sweep killed in the middle of its packs and continued: every result against the undisturbed one."""
    path = day.spec("killed")
    process = _start(day, path)
    folder = day.place / "runs" / "killed"
    until = time.monotonic() + 120
    while not list(folder.glob("*/ckpt/*")) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.2)
    killed = process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    _command(day, path)
    one, two = (pd.read_csv(day.place / "runs" / name / "results.csv") for name in ("whole", "killed"))
    numbers = one.select_dtypes("number").columns
    gap = float((one[numbers] - two[numbers]).abs().max().max())
    if gap > (TOLERANCE if day.device.startswith("cuda") else 0.0):
        raise AssertionError(f"results differ by {gap:.1e} after a kill")
    return {"killed in training": killed, "largest difference of a result": gap}


def back_off(day: Day) -> dict[str, Any]:
    """Packs that do not fit are halved until they do. On a CPU a stand-in refuses packs of more than two runs."""
    loaded = load_sweep(day.spec("crowded", training={"steps": 20, "batch_size": 8}))
    runs, folder = planned_runs(loaded.runs), day.place / "runs" / "crowded"
    folder.mkdir(parents=True, exist_ok=True)
    tried: list[int] = []
    with _little_memory(day, tried):
        failed = run_packs(
            folder, len(runs), runs, 1, CommandOutput(Console(quiet=True)), SweepOptions("inline", track=False)
        )
    if failed:
        raise AssertionError("; ".join(failed))
    lost = [run.name for run in runs if load_result(find_run(folder, run.key)) is None]
    if lost or len(tried) < 2 or tried[0] <= min(tried):
        raise AssertionError(f"packs of {tried}; lost: {lost}")
    return {"runs": len(runs), "packs tried": tried}


@contextmanager
def _little_memory(day: Day, tried: list[int]) -> Iterator[None]:
    """Memory that holds no large pack; `tried` gets the size of each."""
    own = train_pack.train_pack

    def watched(task: Any, worker: Any) -> Iterator[Any]:
        tried.append(len(task.runs))
        if day.device == "cpu" and len(task.runs) > 2:
            raise MemoryError("stand-in: no more than two runs fit")
        if day.device != "cpu" and len(tried) == 1:
            torch.empty(2 * torch.cuda.mem_get_info()[1], dtype=torch.uint8, device=day.device)
        return own(task, worker)

    train_pack.train_pack = watched
    try:
        yield
    finally:
        train_pack.train_pack = own


STEPS: Mapping[str, Callable[[Day], dict[str, Any]]] = {
    "doctor": doctor,
    "lanes against lone runs": lanes,
    "a sweep with its report": sweep,
    "kill and resume": resume,
    "out of memory": back_off,
}


def _start(day: Day, path: Path) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "harness", "sweep", str(path), "--out", str(day.place / "runs"), "--quiet"]
    words += ["--checkpoint-every", "0.5"]
    return subprocess.Popen(words, start_new_session=True, stdout=subprocess.DEVNULL)


def _command(day: Day, path: Path) -> float:
    """Run a sweep to its end; its seconds."""
    began = time.monotonic()
    if code := _start(day, path).wait(timeout=BUDGET):
        raise AssertionError(f"harness sweep ended with {code}")
    return time.monotonic() - began


def page(found: Mapping[str, Any]) -> str:
    """The figures as Markdown."""
    lines = ["# One GPU, measured by `nox -s gpu`", ""]
    lines += [f"{name}: {value}  " for name, value in found["machine"].items()]
    for name, step in found["steps"].items():
        lines += ["", f"## {name}: {step['state']}, {step['seconds']:.1f} s", ""]
        lines += [f"- {key}: {value}" for key, value in step["figures"].items()]
    return "\n".join(lines) + "\n"


def run(day: Day, write: Callable[[Mapping[str, Any]], None], budget: float = BUDGET) -> dict[str, Any]:
    """Every step; `write` gets the figures after each."""
    found: dict[str, Any] = {"machine": machine(torch.device(day.device)), "steps": {}}
    first = time.monotonic()
    for name, step in STEPS.items():
        began = time.monotonic()
        state, figures = "skipped", {"why": f"{budget:.0f} s are over"}
        if began - first < budget:
            try:
                state, figures = "ok", step(day)
            except Exception as error:  # a step's failure is a finding, and others are still worth their time
                traceback.print_exc()
                state, figures = "failed", {"why": f"{type(error).__name__}: {error}"}
        found["steps"][name] = {"state": state, "seconds": time.monotonic() - began, "figures": figures}
        print(f"{name}: {state}, {time.monotonic() - began:.1f} s, {figures}", flush=True)
        write(found)
    return found


def main() -> None:
    """Run the steps and write `gpu.json` and `gpu.md`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rehearse", action="store_true", help="on a CPU with tiny shapes; writes under --place alone")
    parser.add_argument(
        "--place", type=Path, default=ROOT / "runs" / "gpu", help="folder for sweeps and a rehearsal's page"
    )
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds after which no step begins")
    options = parser.parse_args()
    if not options.rehearse and not torch.cuda.is_available():
        raise SystemExit("no GPU that torch can use; `nox -s gpu -- --rehearse` runs the same steps on a CPU")
    options.place.mkdir(parents=True, exist_ok=True)
    place = options.place if options.rehearse else FOLDER

    def write(found: Mapping[str, Any]) -> None:
        (place / "gpu.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        (place / "gpu.md").write_text(page(found), encoding="utf-8")

    day = Day("cpu" if options.rehearse else "cuda", options.rehearse, options.place)
    found = run(day, write, options.budget)
    raise SystemExit(any(step["state"] == "failed" for step in found["steps"].values()))


if __name__ == "__main__":
    main()

"""A GPU's first look at the product: steps in order of worth, each guarded, figures written as they come.

`nox -s gpu` runs them on a GPU, `nox -s gpu -- --rehearse` the same steps on a CPU with tiny shapes. A step that fails
costs its own figures alone; one that would begin after the budget is skipped. The exit code is 1 where any step failed.
Steps beside TRL measure ours alone where TRL is not installed, and say so.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import signal
import statistics
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
from harness.data.rows import pack_rows
from harness.model_files.known import known_file
from harness.model_files.location import local_folder, locate
from harness.models.architecture import skeleton
from harness.models.lane_model import build_lanes
from harness.models.logps import build_corpus, pair_logps, reference_logps
from harness.models.pack import lane_groups
from harness.models.reference_logps import pair_keys, score_responses
from harness.objectives.registry import resolve
from harness.run_names import planned_runs
from harness.storage.runs import find_run, load_result
from harness.sweep.console import CommandOutput
from harness.sweep.scheduler import SweepOptions, run_packs
from harness.training.loop import start, train
from harness.training.optim import adam_state, adamw_step, bias_corrections, clip, learning_rate
from harness.training.timing import gemm_ceiling, now
from harness.types import InputError, LoraSpec, TrainingSpec
from harness.worker import train_pack
from tests.benchmarks.arms import ours
from tests.benchmarks.cases import BETA, Case, case, path_case
from tests.benchmarks.steps import compare, trl_arms
from tests.models.families import write as write_model
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


# A decoder as Qwen2.5-0.5B is laid out, with random weights.
HALF_BILLION = {
    "vocab_size": 151_936, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
    "num_attention_heads": 14, "num_key_value_heads": 2, "layer_types": ["full_attention"] * 24,
}  # fmt: skip


def _beside_trl(day: Day, made: Case, lanes: int) -> dict[str, Any]:
    """Milliseconds per step per run of ours, alone and in a pack, and of TRL; parity of final log-probs."""
    device = torch.device(day.device)
    arms = {"ours alone": ours(made, 1, device)}
    if lanes > 1:
        fast = replace(made, settings=replace(made.settings, mode="fast"))
        arms |= {f"ours, pack of {lanes}": ours(made, lanes, device)}
        arms |= {f"ours, pack of {lanes}, fast": ours(fast, lanes, device)}
    with_trl = importlib.util.find_spec("trl") is not None
    if with_trl:
        arms |= trl_arms(made, device)
    found = compare(made, arms, 1 if day.rehearsal else 2, device)
    figures: dict[str, Any] = {
        f"{arm}, ms per step per run": round(1000 * statistics.median(spent), 2) for arm, spent in found.seconds.items()
    }
    figures |= {"final log-probs differ by, relative": max(found.parity.values()), "moved by, relative": found.moved}
    return figures if with_trl else figures | {"TRL": "not installed here, so not measured (pip install 'trl[peft]')"}


def small_beside_trl(day: Day) -> dict[str, Any]:
    """A decoder of 1M parameters, all of it trained."""
    return _beside_trl(day, case("XS" if day.rehearsal else "M", 8, 3 if day.rehearsal else 20), 4)


def middle_beside_trl(day: Day) -> dict[str, Any]:
    """A decoder of 5M parameters, all of it trained."""
    return _beside_trl(day, case("XS" if day.rehearsal else "L", 8, 3 if day.rehearsal else 20), 4)


def half_billion_lora(day: Day) -> dict[str, Any]:
    """Adapters over a decoder of 0.5B parameters."""
    return _beside_trl(day, _of_folder(day, _half_billion(day), LoraSpec()), 4)


def half_billion_full(day: Day) -> dict[str, Any]:
    """A decoder of 0.5B parameters, all of it trained."""
    return _beside_trl(day, _of_folder(day, _half_billion(day), None), 1)


def smollm2_lora(day: Day) -> dict[str, Any]:
    """Adapters over SmolLM2-135M; in a rehearsal over a tiny decoder."""
    if day.rehearsal:
        return _beside_trl(day, _of_folder(day, _half_billion(day), LoraSpec(rank=8)), 4)
    try:
        path, identity = locate(str(known_file("smollm2", Path.cwd())), "", Path.cwd(), {})
    except InputError as error:
        return {"not measured": str(error)}
    return _beside_trl(day, _of_folder(day, local_folder(path, identity, weights=True), LoraSpec()), 4)


def _half_billion(day: Day) -> Path:
    folder = day.place / "decoder"
    if not (folder / "config.json").exists():
        write_model("qwen2", folder, **({} if day.rehearsal else {**HALF_BILLION, "initializer_range": 0.02}))
    return folder


def _of_folder(day: Day, folder: Path, lora: LoraSpec | None) -> Case:
    return path_case(folder, folder.name, lora, 4 if day.rehearsal else 8, 2 if day.rehearsal else 8)


def captured(day: Day) -> dict[str, Any]:
    """A step of one run launched kernel by kernel, as the trainer does it, and replayed from a captured CUDA graph.

    On a CPU, which has none, both are launched.
    """
    device, count = torch.device(day.device), 4 if day.rehearsal else 50
    made = case("XS" if day.rehearsal else "M", 8, count)
    launched, one = _bare_loop(made, device, lambda step: step)
    replayed, two = _bare_loop(made, device, _graph if device.type == "cuda" else lambda step: step)
    return {
        "launched, ms per step": round(1000 * launched, 3),
        "replayed, ms per step": round(1000 * replayed, 3),
        "largest difference of a weight": float((one - two).abs().max()),
        "captured": device.type == "cuda",
    }


def _graph(step: Callable[[], None]) -> Callable[[], None]:
    """A step captured after some warm-up on another stream; it changes what it is given as often as it runs."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def _bare_loop(
    made: Case, device: torch.device, prepare: Callable[[Callable[[], None]], Callable[[], None]]
) -> tuple[float, torch.Tensor]:
    """Seconds of a step and the final weights: the trainer's parts for one run, at fixed addresses and widths."""
    table = score_responses(made.architecture, made.weights, made.pairs, device)
    keys = pair_keys(made.pairs)
    corpus = build_corpus([pack_rows(made.pairs)], [(table.sums(keys[0]), table.sums(keys[1]))], device)
    model = build_lanes(skeleton(made.architecture), [made.weights], device)
    [group] = lane_groups([resolve("dpo", {"beta": BETA})], len(made.pairs), device)
    settings, adam, gradient = made.settings, adam_state(model.flat), torch.zeros_like(model.flat)
    norm, alive = torch.full((1, 1), settings.max_grad_norm, device=device), torch.ones(1, 1, device=device).bool()
    order = torch.from_numpy(made.order)[:, None].to(device)
    index = order[0].clone()
    first, second, rate = (torch.ones(1, 1, device=device) for _ in range(3))

    def step() -> None:
        policy, reference = pair_logps(model, corpus, index), reference_logps(corpus, index)
        loss = group.loss(policy, reference, index, update=True).loss.mean()
        slope, _ = clip(model.gradient(loss, gradient), norm)
        adamw_step(
            model.flat, slope, adam, first=first, second=second, rate=rate, beta1=settings.adam_beta1,
            beta2=settings.adam_beta2, weight_decay=settings.weight_decay, alive=alive,
        )  # fmt: skip

    run = prepare(step)
    with torch.no_grad():  # what preparing did to the weights is undone
        model.flat[0, : len(made.weights)] = made.weights.to(device)
        adam.mean.zero_()
        adam.square.zero_()
    began = now()
    for number in range(settings.steps):
        corrections = bias_corrections(number + 1, settings)
        index.copy_(order[number])
        first.fill_(corrections[0])
        second.fill_(corrections[1])
        rate.fill_(learning_rate(number, settings))
        run()
    return (now() - began) / settings.steps, model.weights(0)


STEPS: Mapping[str, Callable[[Day], dict[str, Any]]] = {
    "doctor": doctor,
    "lanes against lone runs": lanes,
    "a sweep with its report": sweep,
    "1M parameters beside TRL": small_beside_trl,
    "5M parameters beside TRL": middle_beside_trl,
    "0.5B parameters, LoRA, beside TRL": half_billion_lora,
    "0.5B parameters, full, beside TRL": half_billion_full,
    "SmolLM2-135M, LoRA, beside TRL": smollm2_lora,
    "out of memory": back_off,
    "kill and resume": resume,
    "a captured step": captured,
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
    if found["rehearsal"]:
        lines = ["# A rehearsal of `nox -s gpu` on a CPU: tiny shapes, whatever the names of the steps say", ""]
    lines += [f"{name}: {value}  " for name, value in found["machine"].items()]
    for name, step in found["steps"].items():
        lines += ["", f"## {name}: {step['state']}, {step['seconds']:.1f} s", ""]
        lines += [f"- {key}: {value}" for key, value in step["figures"].items()]
    return "\n".join(lines) + "\n"


def run(day: Day, write: Callable[[Mapping[str, Any]], None], budget: float = BUDGET) -> dict[str, Any]:
    """Every step; `write` gets the figures after each."""
    found: dict[str, Any] = {
        "rehearsal": day.rehearsal, "machine": machine(torch.device(day.device)), "steps": {}
    }  # fmt: skip
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

"""A model of yours beside TRL on your pairs: `nox -s bench -- --real --model FOLDER --pairs FILE ...`.

LoRA of rank 16 on all linear layers, fp32; plain texts are written by the chat template. For every file the cost of a
step on one thread: ours; TRL with peft as most run it (every step reads the reference, which is the model without its
adapters); TRL tuned (stored reference log-probs). Start, pairs, batches, optimizer and schedule are the same, the arms
take turns, and their final log-probs are compared first. For the first file also the work around a step, and a whole
job of six runs in processes of their own on all cores. The expected cost is printed first (`--cost`: nothing else).
`--write` puts the page into reports/benchmarks/, after each part with what there is by then.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from harness.data.rows import TokenisedPair, pack_rows
from harness.evaluation.heldout import evaluate
from harness.evaluation.samples import SamplePlan, sample_lanes
from harness.models.architecture import Frozen
from harness.models.logps import build_corpus
from harness.models.pack import EvalSet, Lane, Pack
from harness.models.reference_logps import score_responses
from harness.objectives.registry import resolve
from harness.training.loop import start
from harness.training.timing import Spans
from harness.worker.train_pack import keep_freed_memory
from tests.benchmarks import real_job
from tests.benchmarks.arms import ours
from tests.benchmarks.cases import BETA, CPU, Case
from tests.benchmarks.page import FOLDER, cells, cores, machine, taken_on
from tests.benchmarks.real_case import RealPairs, Size, Work, own_products, read, responses_of, sweep_of, work_of
from tests.benchmarks.steps import DEFAULT, PARITY, TUNED, compare, quietly, trl_arms

OURS = "harness"
ANSWERS = 32  # of at most 64 tokens: what the goal is stated for
SCORED = 16  # pairs whose responses are scored by the reference, and that are evaluated
# Shares of the speed of matrix products that the announced cost assumes, and CPU seconds of a job besides.
ASSUMED = {OURS: 0.6, DEFAULT: 0.15, TUNED: 0.21, "scoring": 0.3, "answers": 0.17}
BUSY = (
    " **The machine was busy with other work: the seconds are too high; measure again before judging a goal by them.**"
)
BESIDE_PACKS = "start-up, reading, reference and report"
BESIDES = {OURS: 60.0, TUNED: 25.0}


def steps(name: str, real: RealPairs, work: Work, count: int, rounds: int, speed: float) -> list[dict[str, Any]]:
    """A row for each arm: CPU seconds of a step, over rounds of `count` steps. Raises AssertionError where the final
    log-probs of an arm differ from those of TRL (relative 1e-5)."""
    made = real.case(count)
    found = compare(made, {OURS: ours(made, 1)} | trl_arms(made, CPU), rounds, CPU)
    if (worst := max(found.parity.values())) > PARITY:
        raise AssertionError(f"{name}: final log-probs of the arms differ by {worst:.1e}, relative")
    flops = work.training(made.pairs) / count
    base = statistics.median(found.seconds[TUNED])
    return [
        {
            "pairs": name,
            "arm": arm,
            "batch": made.settings.batch_size,
            "seconds": statistics.median(spent),
            "least": min(spent),
            "most": max(spent),
            "rounds": len(spent),
            "against_tuned": base / statistics.median(spent),
            "share_of_gemm": flops / statistics.median(spent) / speed,
            "parity_rel": found.parity[arm],
            "moved_rel": found.moved,
        }
        for arm, spent in found.seconds.items()
    ]


class Phases:
    """What stands around a step, ready to be run once: scoring the reference, an evaluation, free answers."""

    def __init__(self, real: RealPairs) -> None:
        self.real, self.made = real, real.case(1)
        self.pairs, self.prompts = real.heldout[:SCORED], real.prompts(ANSWERS)
        self.training = start(_evaluating(self.made, self.pairs), CPU)
        self.drawn: list[int] = []

    def reference(self, pairs: Sequence[TokenisedPair]) -> None:
        score_responses(self.made.architecture, self.made.weights, pairs, CPU, ladder=True)

    def evaluation(self) -> None:
        run = self.training
        list(evaluate(run.pack, run.model, run.live, run.groups, 1))

    def answers(self, prompts: Sequence[np.ndarray]) -> None:
        """Answers of the policy, and their log-probs under the reference."""
        real, run = self.real, self.training
        uniforms = np.random.default_rng(0).random((len(prompts), real.max_new_tokens))
        frozen = Frozen(self.made.architecture, self.made.weights)
        plan = SamplePlan(prompts, uniforms)
        [drawn] = sample_lanes([frozen], run.model, [plan], real.eos, real.prompt_width, ladder=True)
        self.drawn = [int(n) for n in drawn.length]

    def measure(self, work: Work, speed: float) -> list[dict[str, Any]]:
        """A row for each."""

        def row(
            name: str, unit: str, count: int, run: Callable[[], None], flops: Callable[[], float]
        ) -> dict[str, Any]:
            began = time.process_time()
            run()
            spent = time.process_time() - began
            return {
                "phase": name, "count": count, "unit": unit, "seconds": spent, "each": spent / max(count, 1),
                "share_of_gemm": flops() / spent / speed,
            }  # fmt: skip

        scored = self.pairs
        responses = len(responses_of(scored))
        return [
            row("reference", "response", responses, lambda: self.reference(scored), lambda: work.scoring(scored)),
            row("evaluation", "pair", len(scored), self.evaluation, lambda: work.scoring(scored)),
            row(
                "answers", "answer", len(self.prompts), lambda: self.answers(self.prompts),
                lambda: 2 * work.answering(self.prompts, sum(self.drawn)),
            ),
        ]  # fmt: skip


def _evaluating(made: Case, pairs: Sequence[TokenisedPair]) -> Pack:
    """A pack of one lane that has nothing to do but evaluate these pairs."""
    corpus = build_corpus([pack_rows(pairs)], [(np.zeros(len(pairs)), np.zeros(len(pairs)))], CPU)
    rows = torch.arange(len(pairs))
    part = EvalSet("eval_clean", tuple(str(n) for n in range(len(pairs))), rows, rows < 0)
    batches = torch.zeros(1, made.settings.batch_size, dtype=torch.int64)
    lane = Lane("x", resolve("dpo", {"beta": BETA}), made.settings, made.weights, batches, batches > 0, (part,))
    return Pack(made.architecture, corpus, (lane,), ladder=True)


def operators(run: Callable[[], Any]) -> str:
    """The torch operators that a run spends most in, with their shares of all operators' time."""
    with profile(activities=[ProfilerActivity.CPU]) as found:
        run()
    events = sorted(found.key_averages(), key=lambda event: -event.self_cpu_time_total)
    whole = sum(event.self_cpu_time_total for event in events)
    return ", ".join(f"{event.key} {event.self_cpu_time_total / whole:.0%}" for event in events[:5])


def spans(real: RealPairs) -> str:
    """Where the time of one of our steps goes, by the product's profile."""
    own = Spans(on=True)
    quietly(ours(real.case(1), 1, spans=own))
    head = own.seconds.pop("head", 0.0)
    whole = sum(own.seconds.values())
    parts = ", ".join(f"{name} {seconds / whole:.0%}" for name, seconds in own.seconds.items())
    return f"{parts} (the output head's forward {head / whole:.0%})"


# --- goals ---


def goals(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each goal with what was measured, and whether it is met."""
    rows = []

    def add(what: str, goal: float, measured: float, least: bool, phase: str) -> None:
        met = measured >= goal if least else measured <= goal
        rows.append({"what": what, "goal": goal, "least": least, "measured": measured, "met": met, "phase": phase})

    for number, row in enumerate(row for row in found["steps"] if row["arm"] == OURS):
        what = f"a step on {row['pairs']}, times as fast as TRL tuned"
        add(what, 2.0 if number else 3.4, row["against_tuned"], True, "training")
    by_name = {row["phase"]: row for row in found["phases"]}
    if by_name:
        add("reference, CPU-s per response", 0.06, by_name["reference"]["each"], False, "reference")
        add("evaluation, CPU-s per pair", 0.3, by_name["evaluation"]["each"], False, "evaluation")
        answers = by_name["answers"]
        add(f"{answers['count']} free answers, CPU-s", 30.0, answers["seconds"], False, "answers")
    if job := found.get("job"):
        one, two = job["harness"], job["trl"]
        for kind, word in (("cpu", "CPU"), ("wall", "wall")):
            ratio = (two[kind] / two["runs"]) / (one[kind] / one["runs"])
            add(f"six runs, {word} per run, times as fast as TRL tuned", 3.0, ratio, True, "job")
        share = one["flops"] / one["cpu"] / (found["machine"]["gemm_gflops"] * 1e9)
        add("six runs, share of the GEMM ceiling over the whole command", 0.6, share, True, "job")
    return rows


def obstacles(found: Mapping[str, Any], real: RealPairs, phases: Phases | None) -> dict[str, str]:
    """For each phase with a missed goal where its time goes."""
    missed = {row["phase"] for row in found["goals"] if not row["met"]}
    said: dict[str, str] = {}
    if "training" in missed:
        one = real.case(1)
        said["training"] = f"{spans(real)}; by operator: {operators(lambda: quietly(ours(one, 1)))}"
    if phases is not None:
        runs: dict[str, Callable[[], Any]] = {
            "reference": lambda: phases.reference(phases.pairs[:4]),
            "evaluation": phases.evaluation,
            "answers": lambda: phases.answers(phases.prompts[:8]),
        }
        said |= {name: operators(run) for name, run in runs.items() if name in missed}
    if missed:
        tokens = sum(len(pair.prompt) + len(pair.chosen) + len(pair.rejected) for pair in real.case(1).pairs)
        speed, model = found["machine"]["gemm_gflops"] * 1e9, real.architecture
        said["matrix products"] = (
            f"with the model's own matrices, one row for each of the {tokens} tokens of a step, they reach "
            f"{own_products(model, tokens) / speed:.0%} of the ceiling; with {ANSWERS} rows, as many answers sampled "
            f"together, {own_products(model, ANSWERS) / speed:.0%}"
        )
    if "job" in missed:
        said["job"] = ", ".join(f"{part} {share:.0%}" for part, share in job_shares(found["job"]["harness"]).items())
    return said


def job_shares(job: Mapping[str, Any]) -> dict[str, float]:
    """Shares of our job's CPU seconds by part of the product's profile, and what no pack spends."""
    parts = {name: value for name, value in job["profile"]["seconds"].items() if name != "head"}
    parts["tracking"] = job["profile"]["tracking_seconds"]
    parts[BESIDE_PACKS] = job["cpu"] - sum(parts.values())
    return {name: value / job["cpu"] for name, value in parts.items()}


# --- cost ---


def cost(reals: Mapping[str, RealPairs], work: Work, options: argparse.Namespace, speed: float) -> dict[str, float]:
    """Wall seconds that each part will take, roughly."""
    seconds: dict[str, float] = {}
    for number, (name, real) in enumerate(reals.items()):
        count = options.other_steps if number else options.rounds * options.round_steps
        one = work.training(real.batches[: options.batch]) / speed
        arms = sum(one / ASSUMED[arm] for arm in (OURS, DEFAULT, TUNED))
        checks = 4 * work.scoring(real.batches[:8]) / ASSUMED["scoring"] / speed
        seconds[f"steps on {name}"] = count * arms + checks + 20
    real = next(iter(reals.values()))
    if not options.no_phases:
        prompts = real.prompts(ANSWERS)
        answers = 2 * work.answering(prompts, real.max_new_tokens * len(prompts)) / ASSUMED["answers"]
        seconds["around a step"] = (
            1.5 * (2 * work.scoring(real.heldout[:SCORED]) / ASSUMED["scoring"] + answers) / speed
        )
    seconds["what stands between"] = 40.0
    if not options.no_job:
        train = work.training(real.batches) / speed
        scored = work.scoring(real.measured) / ASSUMED["scoring"] / speed
        reference = work.scoring(real.batches) / ASSUMED["scoring"] / speed
        prompts = real.prompts(options.answers)
        answered = work.answering(prompts, real.max_new_tokens * len(prompts)) / ASSUMED["answers"] / speed
        own = 6 * (train / ASSUMED[OURS] + 2 * scored + 2 * answered) + 2 * answered + reference + BESIDES[OURS]
        other = 5 * (train / ASSUMED[TUNED] + 4 * scored + answered) + 2 * reference + BESIDES[TUNED]
        seconds |= {"six runs, ours": own / cores(), "six runs, TRL": other / cores()}
    return seconds


# --- page ---


def page(found: Mapping[str, Any], command: str) -> str:
    """The results as Markdown."""
    size, model = found["size"], found["model"]
    parts = [
        "# A real model",
        f"`{command}` {taken_on(found['machine'])} The model: {model}; LoRA of rank 16 on all linear layers, fp32. "
        "What each figure means: `tests/benchmarks/real.py`."
        + (BUSY if (found["machine"]["load"] or 0.0) > found["machine"]["cores"] / 2 else ""),
        "## Goals",
        cells(_goal_rows(found["goals"])),
    ]
    if found["obstacles"]:
        lines = [f"- {name}: {text}" for name, text in found["obstacles"].items()]
        parts += ["What stands between, where a goal is missed (shares of the time of that part):", "\n".join(lines)]
    parts += [
        "## A step",
        f"CPU seconds per step of {size['batch']} pairs, one thread: median and range over interleaved rounds of "
        f"{size['round_steps']} steps (files after the first: one round of {size['other_steps']}). Parity: largest "
        "relative difference of final log-probs from ours; moved: how far training moved them. Share of GEMM: "
        "floating-point operations on tokens that carry information, as a share of what matrix products of "
        "1,024 x 1,024 reach.",
        cells(_step_rows(found["steps"])),
    ]
    if found["phases"]:
        head = ["phase", "measured on", "CPU-s", "CPU-s each", "share of GEMM"]
        body = [
            [
                row["phase"], f"{row['count']} {row['unit']}s", f"{row['seconds']:.1f}", f"{row['each']:.3f}",
                f"{row['share_of_gemm']:.0%}",
            ]
            for row in found["phases"]
        ]  # fmt: skip
        parts += [
            "## Around a step",
            "Ours, one thread. Answers have at most 64 tokens; scoring them under the reference is included.",
            cells([head, *body]),
        ]
    if found.get("job"):
        parts += [*_job(found["job"], size)]
    return "\n\n".join(parts) + "\n"


def _goal_rows(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    return [
        ["what", "goal", "measured", "met"],
        *[
            [
                row["what"], f"{'at least' if row['least'] else 'at most'} {row['goal']:g}", f"{row['measured']:.2g}",
                "yes" if row["met"] else "**no**",
            ]
            for row in rows
        ],
    ]  # fmt: skip


def _step_rows(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    head = ["pairs", "arm", "CPU-s per step", "range", "x TRL tuned", "share of GEMM", "parity", "moved"]
    body = [
        [
            row["pairs"], row["arm"], f"{row['seconds']:.3g}", f"{row['least']:.3g} to {row['most']:.3g}",
            f"{row['against_tuned']:.2f}", f"{row['share_of_gemm']:.0%}", f"{row['parity_rel']:.0e}",
            f"{row['moved_rel']:.0e}",
        ]
        for row in rows
    ]  # fmt: skip
    return [head, *body]


def _job(job: Mapping[str, Any], size: Mapping[str, Any]) -> list[str]:
    head = ["arm", "runs", "wall s", "CPU-s", "wall s per run", "CPU-s per run"]
    body = [
        [
            name, str(own["runs"]), f"{own['wall']:.0f}", f"{own['cpu']:.0f}", f"{own['wall'] / own['runs']:.1f}",
            f"{own['cpu'] / own['runs']:.1f}",
        ]
        for name, own in (("`harness sweep`", job["harness"]), ("TRL tuned", job["trl"]))
    ]  # fmt: skip
    seconds = job["trl"]["seconds"]
    shares = [
        ("ours", job_shares(job["harness"])),
        ("TRL", {name: value / job["trl"]["cpu"] for name, value in seconds.items()}),
    ]
    return [
        "## Six runs from a cold start",
        f"dpo at three betas, cpo_smooth, ipo, robust_dpo; {size['steps']} steps of {size['batch']} pairs, "
        f"{size['heldout']} held-out and 8 probe pairs at 3 evaluations, {size['answers']} answers at the end; all "
        "cores, imports, tracking and report included. TRL trains the five that it has, one after another in one "
        "process, with its own precomputed reference and without the evaluation at step 0; it does not score its "
        "answers under the reference and writes no report.",
        cells([head, *body]),
        *[
            f"CPU of {name}: " + ", ".join(f"{part} {share:.0%}" for part, share in own.items()) + "."
            for name, own in shares
        ],
    ]


# --- the command ---


def described(real: RealPairs, work: Work) -> str:
    """The model's shape in words."""
    own = real.architecture
    return (
        f"{own.layers} layers of width {own.hidden_size}, vocabulary {own.vocab_size:,}, "
        f"{(work.layers + work.head) / 1e6:.3g} million weights in matrices"
    )


def shown(options: argparse.Namespace) -> str:
    """The command with the names of files alone: where they lie is nobody's business."""
    files = " ".join(path.name for path in options.pairs)
    given = [f"--{name.replace('_', '-')} {getattr(options, name)}" for name in SIZED]
    flags = [f"--{name.replace('_', '-')}" for name in ("no_phases", "no_job") if getattr(options, name)]
    return " ".join(["nox -s bench -- --real --model FOLDER --pairs", files, *given, *flags])


SIZED = ("rounds", "round_steps", "other_steps", "batch", "max_length", "steps", "heldout", "answers")


def parsed(words: Sequence[str]) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="nox -s bench -- --real", description=__doc__)
    place = os.environ.get("HARNESS_BENCH_MODEL")
    parser.add_argument("--model", type=Path, default=place, required=not place, help="folder of a transformers model")
    parser.add_argument("--pairs", type=Path, nargs="+", required=True, help="files of preference pairs")
    parser.add_argument("--rounds", type=int, default=3, help="of the steps' arms")
    parser.add_argument("--round-steps", type=int, default=2, help="steps of an arm in a round")
    parser.add_argument("--other-steps", type=int, default=2, help="steps of the one round on files after the first")
    parser.add_argument("--batch", type=int, default=8, help="pairs per step")
    parser.add_argument("--max-length", type=int, default=256, help="tokens of a prompt and one response")
    parser.add_argument("--steps", type=int, default=60, help="of each run of the job")
    parser.add_argument("--heldout", type=int, default=64, help="held-out pairs at each of the job's 3 evaluations")
    parser.add_argument("--answers", type=int, default=32, help="free answers of each run of the job")
    parser.add_argument("--no-phases", action="store_true", help="leave out what stands around a step")
    parser.add_argument("--no-job", action="store_true", help="leave out the six runs")
    parser.add_argument("--cost", action="store_true", help="say what it will cost, and measure nothing")
    parser.add_argument("--out", type=Path, help="folder for real.md and real.json")
    parser.add_argument("--write", action="store_true", help="into reports/benchmarks/")
    options = parser.parse_args(words)
    if options.steps < max(options.round_steps, options.other_steps):
        parser.error("--steps must be at least --round-steps and --other-steps: all train on a run's first batches")
    return options


def main(words: Sequence[str]) -> None:
    """Measure, and write the page."""
    options = parsed(words)
    torch.set_num_threads(1)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        size = Size(options.steps, options.batch, options.heldout, options.answers, options.max_length)
        sweeps = {path.name.partition(".")[0]: sweep_of(folder, options.model, path, size) for path in options.pairs}
        reals = {name: read(sweep.runs[0]) for name, sweep in sweeps.items()}
        first = next(iter(reals.values()))
        work = work_of(first.architecture, len(first.case(1).weights))
        found: dict[str, Any] = {"machine": machine(CPU), "size": {name: getattr(options, name) for name in SIZED}}
        found |= {"model": described(first, work), "steps": [], "phases": [], "obstacles": {}}
        speed = found["machine"]["gemm_gflops"] * 1e9
        parts = cost(reals, work, options, speed)
        listed = "; ".join(f"{name} {seconds:.0f} s" for name, seconds in parts.items())
        print(f"about {sum(parts.values()) / 60:.0f} minutes: {listed}", flush=True)
        if options.cost:
            return
        sweep, *_ = sweeps.values()
        name, *others = reals
        _save(found, options)
        found["steps"] += steps(name, first, work, options.round_steps, options.rounds, speed)
        _save(found, options)
        phases = None if options.no_phases else Phases(first)
        if phases is not None:
            found["phases"] = phases.measure(work, speed)
            _save(found, options)
        if not options.no_job:
            found["job"] = real_job.measure(sweep, folder, first, work)
            _save(found, options)
        for other in others:
            found["steps"] += steps(other, reals[other], work, options.other_steps, 1, speed)
            _save(found, options)
        found["obstacles"] = obstacles(found, first, phases)
        print(_save(found, options))


def _save(found: dict[str, Any], options: argparse.Namespace) -> str:
    """Write what is measured so far; returns the page."""
    found["goals"] = goals(found)
    text = page(found, shown(options))
    for place in filter(None, (options.out, FOLDER if options.write else None)):
        place.mkdir(parents=True, exist_ok=True)
        (place / "real.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        (place / "real.md").write_text(text, encoding="utf-8")
    return text

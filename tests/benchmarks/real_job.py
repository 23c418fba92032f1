"""Six runs from a cold start: `harness sweep` against TRL, one run after another, in processes of their own.

TRL has its own precomputed reference, shared by all its runs, and measures the same pairs at the same steps; it trains
the five of the six objectives that it has, and answers without scoring its answers under the reference.
`python -m tests.benchmarks.real_job SPEC FIGURES` is TRL's process.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from harness.config.load import SweepSpec, load_sweep
from harness.run_names import planned_runs
from harness.storage.runs import find_run, read_table
from harness.types import ObjectiveSpec
from tests.benchmarks.page import cores
from tests.benchmarks.real_case import RealPairs, Work, read

PARTS = ("loading", "reference", "training", "evaluation", "answers")


def trl_loss(objective: ObjectiveSpec) -> dict[str, Any] | None:
    """An objective as settings of TRL's `DPOConfig`; None where TRL has none like it."""
    given = dict(objective.hyperparameters)
    losses = {
        "dpo": {"loss_type": "sigmoid"},
        "ipo": {"loss_type": "ipo"},
        "robust_dpo": {"loss_type": "robust", "label_smoothing": given.get("eps")},
    }
    return {**losses[objective.name], "beta": given["beta"]} if objective.name in losses else None


def child(path: Path, figures: Path) -> None:
    """TRL's runs, one after another; writes CPU seconds by part."""
    import torch
    from transformers import TrainerCallback

    from harness.training.loop import checkpoint_steps
    from tests.benchmarks.arms import rows_of, trl_trainer

    torch.set_num_threads(cores())
    sweep = load_sweep(path)
    real = read(sweep.runs[0])
    made = replace(real.case(real.run.training.steps), settings=real.run.training)
    due = set(checkpoint_steps(real.run.training.steps, real.run.evaluation.checkpoints)) - {0}
    seconds = dict.fromkeys(PARTS, 0.0)

    @contextmanager
    def timed(part: str) -> Iterator[None]:
        began = time.process_time()
        try:
            yield
        finally:
            seconds[part] += time.process_time() - began

    class Evaluate(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_evaluate = state.global_step in due

    rows, measured = rows_of(made.pairs), rows_of(real.measured)
    losses = [loss for loss in map(trl_loss, (run.objective for run in sweep.runs)) if loss is not None]
    for loss in losses:
        with tempfile.TemporaryDirectory() as folder:
            first = "ref_chosen_logps" not in rows.column_names
            with timed("reference" if first else "loading"):
                trainer = trl_trainer(
                    made, rows, folder, torch.device("cpu"),
                    precomputed=True, callbacks=[Evaluate()], heldout=measured, loss=loss,
                )  # fmt: skip
            rows, measured = trainer.train_dataset, trainer.eval_dataset
            evaluate, before = trainer.evaluate, seconds["evaluation"]

            def timed_evaluate(*args: Any, _evaluate: Any = evaluate, **named: Any) -> Any:
                with timed("evaluation"):
                    return _evaluate(*args, **named)

            trainer.evaluate = timed_evaluate
            with timed("training"):
                trainer.train()
            seconds["training"] -= seconds["evaluation"] - before
            with timed("answers"):
                _answer(trainer.model, real)
    loaded = seconds["loading"] / (len(losses) - 1)  # the first trainer loads the model as the others do, too
    seconds |= {"reference": seconds["reference"] - loaded, "loading": seconds["loading"] + loaded}
    figures.write_text(json.dumps({"runs": len(losses), "seconds": seconds}), encoding="utf-8")


def _answer(model: Any, real: RealPairs) -> None:
    """Free answers to the first held-out prompts, all at once."""
    import torch

    prompts = real.prompts(real.run.evaluation.samples)
    if not prompts:
        return
    width = max(map(len, prompts))
    ids = torch.tensor([[real.eos] * (width - len(prompt)) + prompt.tolist() for prompt in prompts])
    real_tokens = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    model.eval()
    model.generate(
        input_ids=ids, attention_mask=real_tokens, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, use_cache=True,
        max_new_tokens=real.max_new_tokens, eos_token_id=real.eos, pad_token_id=real.eos,
    )  # fmt: skip


def spent(command: list[str], threads: int) -> tuple[float, float]:
    """Wall and CPU seconds of a command and of all processes that it starts. Raises RuntimeError where it fails."""
    environment = {k: v for k, v in os.environ.items() if k != "MKL_NUM_THREADS"} | {"OMP_NUM_THREADS": str(threads)}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"{command[2]} ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(sweep: SweepSpec, folder: Path, real: RealPairs, work: Work) -> dict[str, Any]:
    """Wall and CPU seconds of both, where the time went, and the flops of our job."""
    figures, out = folder / "trl.json", folder / "runs"
    wall, cpu = spent(
        [sys.executable, "-m", "harness", "sweep", str(sweep.path), "--out", str(out), "--quiet", "--profile"], 1
    )
    profile = json.loads((out / sweep.name / "profile.json").read_text("utf-8"))
    ours = {"runs": len(sweep.runs), "wall": wall, "cpu": cpu, "profile": profile}
    ours["flops"] = _flops(sweep, out / sweep.name, real, work)
    wall, cpu = spent([sys.executable, "-m", "tests.benchmarks.real_job", str(sweep.path), str(figures)], cores())
    theirs = json.loads(figures.read_text("utf-8"))
    return {"harness": ours, "trl": {**theirs, "wall": wall, "cpu": cpu}}


def _flops(sweep: SweepSpec, folder: Path, real: RealPairs, work: Work) -> float:
    """What the finished job computed of use: references, training, evaluations after step 0, answers and their KL."""
    from harness.training.loop import checkpoint_steps

    evaluation, measured = real.run.evaluation, real.measured
    later = len(checkpoint_steps(real.run.training.steps, evaluation.checkpoints)) - 1
    prompts = real.prompts(evaluation.samples)
    total = work.scoring([*real.batches, *measured])
    for number, run in enumerate(planned_runs(sweep.runs)):
        total += work.training(real.batches) + later * work.scoring(measured)
        found = find_run(folder, run.key)
        assert found is not None
        if evaluation.samples:
            table: Mapping[str, np.ndarray] = read_table(found / "samples.parquet")
            total += 2 * work.answering(prompts, int(table["length"].sum()))
            if number == 0:
                total += work.answering(prompts, int(table["reference_length"].sum()))
    return total


if __name__ == "__main__":
    child(Path(sys.argv[1]), Path(sys.argv[2]))

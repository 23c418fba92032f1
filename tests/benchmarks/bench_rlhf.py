"""What an RL run costs beside a DPO run of the embedded world: `python -m tests.benchmarks.bench_rlhf --json FILE`.

Default runs in packs of 8 lanes on one core, checkpoints and final samples included, the reward model shared and its
own share shown apart. Seconds are CPU time of this single-threaded process, arms interleaved, medians over rounds.
The targets are RLOO at most 4 and PPO at most 6 DPO runs; exits 1 where one is missed. Weights are random: every shape
and every step count is that of a trained world, so the time is, too.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from harness.config.cells import resolve_objective
from harness.data.mythworld import pairs as mythpairs
from harness.data.mythworld import tokens as mythtokens
from harness.data.mythworld import world as mythworld
from harness.data.mythworld.language import FIRST, PROMPT_TOKENS
from harness.data.order import batch_ids
from harness.data.rows import pack_rows
from harness.evaluation.samples import SamplePlan, sample_lanes
from harness.inputs.mythworld import mythworld_architecture
from harness.models.architecture import Frozen, initial_weights, with_score
from harness.models.lane_model import LaneModel
from harness.models.logps import build_corpus
from harness.models.pack import EvalSet, Lane, Pack
from harness.objectives.budget import budget, scalar_head
from harness.rlhf import best_of_n as choose
from harness.rlhf import loop
from harness.rlhf.lanes import RlLane, Sampling
from harness.rlhf.lanes import start as start_rl
from harness.training.loop import checkpoint_steps, start, train
from harness.types import EvaluationSpec, ObjectiveSpec, PreferencePair, TrainingSpec, WorldSpec
from harness.worker.train_pack import keep_freed_memory

CPU = torch.device("cpu")
LANES = 8
TARGETS = {"rloo": 4.0, "ppo": 6.0}
ARMS = ("dpo", "reward_model", "rloo", "ppo", "grpo", "reinforce", "online_dpo", "constrained_rlhf", "best_of_n")
SPEC, EVALUATION = WorldSpec(version=1), EvaluationSpec()
ARCHITECTURE = mythworld_architecture(SPEC)


def pairs() -> list[PreferencePair]:
    world = mythworld.draw_world(0, 1)
    counts = {"train": SPEC.pairs, "test": EVALUATION.heldout, "ood_topic": EVALUATION.ood}
    return [pair for split, count in counts.items() for pair in mythpairs.preference_pairs(world, split, count)]


def pack(objective: ObjectiveSpec) -> Pack:
    """Eight lanes of one objective at its defaults on one world."""
    found = pairs()
    tokenised = [mythtokens.encode_pair(pair, FIRST) for pair in found]
    width = PROMPT_TOKENS + 2 * FIRST.response_tokens
    rows = pack_rows(tokenised, tokens=width, responses=2 * FIRST.response_tokens)
    nothing = np.zeros(len(found), np.float32)
    training = budget(objective, TrainingSpec())
    names = [pair.id for pair in found[: SPEC.pairs]]
    weights = initial_weights(ARCHITECTURE, 0)
    architecture = ARCHITECTURE
    if scalar_head(objective):
        architecture, weights = with_score(ARCHITECTURE, weights)
    order = torch.from_numpy(batch_ids(names, 0, training.steps, training.batch_size))
    spans = {"train_observed": (0, 256), "eval_clean": (SPEC.pairs, 256), "ood": (SPEC.pairs + 256, 128)}
    evals = tuple(
        EvalSet(name, tuple(map(str, range(count))), torch.arange(first, first + count), torch.zeros(count).bool())
        for name, (first, count) in spans.items()
    )
    flips = torch.zeros_like(order).bool()
    lanes = tuple(Lane(str(i), objective, training, weights, order, flips, evals) for i in range(LANES))
    steps = checkpoint_steps(training.steps, EVALUATION.checkpoints)
    return Pack(architecture, build_corpus([rows], [(nothing, nothing)], CPU), lanes, steps)


def final_samples(made: Pack, model: LaneModel) -> None:
    prompts = [mythtokens.encode_prompt(pair.prompt, FIRST) for pair in pairs()[SPEC.pairs : SPEC.pairs + 320]]
    plan = SamplePlan(prompts, np.random.default_rng(0).random((320, 14)))
    reference = Frozen(ARCHITECTURE, initial_weights(ARCHITECTURE, 0))
    sample_lanes([reference] * LANES, model, [plan] * LANES, mythtokens.EOS, PROMPT_TOKENS)
    del made


def arm(name: str) -> Callable[[], None]:
    """One pack of default runs from start to last sample."""
    objective = resolve_objective({"name": name}, world=True)
    made = pack(objective)
    if name in ("dpo", "reward_model"):

        def given() -> None:
            run = start(made, CPU)
            for _ in train(run):
                pass
            if name == "dpo":
                final_samples(made, run.model)

        return given
    reward = initial_weights(ARCHITECTURE, 1)
    world = mythworld.draw_world(0, 1)

    def gold(prompts: list[np.ndarray], responses: list[np.ndarray]) -> np.ndarray:
        texts = [mythtokens.decode(ids[1:-1], FIRST) for ids in prompts]
        return np.array(
            [
                world.gold_reward(mythworld.read_prompt(text), mythtokens.decode(ids.tolist(), FIRST))
                for text, ids in zip(texts, responses, strict=True)
            ],
            np.float32,
        )

    own = [RlLane(lane, 0, 1.0, reward, gold, per_nat=0.1) for lane in made.lanes]
    if name == "constrained_rlhf":
        own = [replace(one, pairs=one.lane.batches.repeat(1, 2), flipped=one.lane.flipped.repeat(1, 2)) for one in own]

    def rl() -> None:
        run = start_rl(made, own, Sampling(mythtokens.EOS, PROMPT_TOKENS, 14), CPU)
        if name == "best_of_n":
            choice = choose.start(run)
            list(choice.records())
            choice.answers("eval_clean", range(256))
        else:
            for _ in loop.train(run):
                pass
            final_samples(made, run.model)

    return rl


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--arms", nargs="*", default=ARMS)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    arms = {name: arm(name) for name in dict.fromkeys(("dpo", *given.arms))}
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(given.rounds):
        for name, run in arms.items():
            began = time.process_time()
            run()
            seconds[name].append((time.process_time() - began) / LANES)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    rows = [{"arm": name, "cpu_s": own, "dpo_runs": own / medians["dpo"]} for name, own in medians.items()]
    for row in rows:
        target = TARGETS.get(str(row["arm"]))
        note = "" if target is None else f"   at most {target:g}"
        print(f"{row['arm']:<18}{row['cpu_s']:7.2f} CPU s a run {row['dpo_runs']:6.2f} DPO runs{note}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"packs of {LANES}, one thread, torch {torch.__version__}; peak memory {peak:.2f} GiB")
    if given.json:
        given.json.write_text(json.dumps({"rows": rows, "peak_gib": peak}, indent=1))
    return int(any(medians[name] / medians["dpo"] > limit for name, limit in TARGETS.items() if name in medians))


if __name__ == "__main__":
    sys.exit(main())

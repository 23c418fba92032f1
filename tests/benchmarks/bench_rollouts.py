"""Packed rollouts beside transformers' `generate`: `python -m tests.benchmarks.bench_rollouts --json FILE`.

Eight policies of the embedded world answer 32 prompts with 4 samples each, 14 tokens: one pack against `generate` in a
loop over the policies, each with the log-probs of what it sampled, in float32 on one thread, arms interleaved, medians
of CPU milliseconds a policy. The responses are not the same, the distribution is: `tests/rlhf/test_rollouts.py` holds
both to it. Exits 1 below a factor of 3.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from harness.data.mythworld import pairs as mythpairs
from harness.data.mythworld import tokens as mythtokens
from harness.data.mythworld import world as mythworld
from harness.data.mythworld.language import FIRST, PROMPT_TOKENS
from harness.inputs.mythworld import mythworld_architecture
from harness.models.architecture import initial_weights, skeleton
from harness.models.generate import pad_prompts, sample
from harness.models.lane_model import build_lanes, parameter_shapes, unflatten
from harness.rlhf.rollouts import CHUNK
from harness.types import WorldSpec
from harness.worker.train_pack import keep_freed_memory

LANES, PROMPTS, K, DEPTH, TARGET = 8, 32, 4, 14, 3.0
ARCHITECTURE = mythworld_architecture(WorldSpec(version=1))


def arms() -> dict[str, Callable[[], None]]:
    rows = [initial_weights(ARCHITECTURE, seed) for seed in range(LANES)]
    packed = build_lanes(skeleton(ARCHITECTURE), rows, torch.device("cpu"))
    found = mythpairs.preference_pairs(mythworld.draw_world(0, 1), "train", PROMPTS)
    ids, real = pad_prompts([mythtokens.encode_prompt(pair.prompt, FIRST) for pair in found], PROMPT_TOKENS)
    draw = torch.Generator().manual_seed(0)
    alone = []
    for row in rows:
        model = skeleton(ARCHITECTURE)
        values = unflatten(row, parameter_shapes(model))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(values[name])
        alone.append(model.eval())

    def ours() -> None:
        uniforms = torch.rand(LANES, PROMPTS * K, DEPTH, generator=draw)
        stacked = (ids.expand(LANES, -1, -1), real.expand(LANES, -1, -1))
        sample(packed, *stacked, uniforms, eos=mythtokens.EOS, copies=K, entropy=False, chunk=CHUNK)

    def theirs() -> None:
        for model in alone:
            out = model.generate(
                ids, attention_mask=real.long(), do_sample=True, top_k=0, max_new_tokens=DEPTH, use_cache=True,
                num_return_sequences=K, eos_token_id=mythtokens.EOS, pad_token_id=0, output_scores=True,
                return_dict_in_generate=True,
            )  # fmt: skip
            model.compute_transition_scores(out.sequences, out.scores, normalize_logits=True)

    return {"harness": ours, "transformers generate": theirs}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    made = arms()
    times: dict[str, list[float]] = {name: [] for name in made}
    for _ in range(given.rounds + 1):  # the first round warms up
        for name, run in made.items():
            began = time.process_time()
            run()
            times[name].append((time.process_time() - began) * 1e3 / LANES)
    medians = {name: statistics.median(values[1:]) for name, values in times.items()}
    factor = medians["transformers generate"] / medians["harness"]
    for name, own in medians.items():
        print(f"{name:<24}{own:8.1f} CPU ms a policy and rollout of {PROMPTS * K} responses")
    print(f"factor {factor:.1f} (at least {TARGET:g})")
    if given.json:
        given.json.write_text(json.dumps({"cpu_ms": medians, "factor": factor}, indent=1))
    return int(factor < TARGET)


if __name__ == "__main__":
    sys.exit(main())

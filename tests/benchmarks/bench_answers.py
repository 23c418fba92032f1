"""Long answers beside transformers' `generate`: `python -m tests.benchmarks.bench_answers --json FILE`.

Policies answer a few prompts each with 256 tokens that never end: one pack of K lanes against `generate` in a loop over
K policies, both sampling at temperature 1 with a cache, in float32 on one thread, arms interleaved. CPU seconds per
policy, medians over rounds. `--model FOLDER` takes a model from a path instead of the tiny one, with `--lora` adapters
over it instead of all its weights. Exits 1 where the factor at the most lanes is below `--target`.

Packing saves the overhead of a step, which is most of what the tiny model costs. With eight answers per policy the
products of a model of SmolLM2's size (135M) keep a core busy by themselves: there the factor is near 1, and one product
for all lanes, which would give up that a lane's bits do not depend on its neighbours, would save a third of them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from harness.inputs.text import text_architecture
from harness.model_files.location import locate
from harness.models.architecture import Architecture, initial_weights, skeleton
from harness.models.generate import sample
from harness.models.lane_model import build_lanes, parameter_shapes, unflatten
from harness.types import DataSpec, LoraSpec, ModelSpec, PathModelSpec
from harness.worker.train_pack import keep_freed_memory

NEVER = -1  # an end-of-sequence id that no model has


def architecture(folder: str, lora: bool) -> Architecture:
    if not folder:
        return text_architecture(DataSpec(), ModelSpec(vocab_size=2048))
    path, identity = locate(folder, "", Path.cwd(), {})
    own = LoraSpec(rank=8) if lora else None
    return text_architecture(DataSpec(), PathModelSpec(path=path, sha256=identity, lora=own))


def alone(made: Architecture, row: torch.Tensor) -> Any:
    """One policy as transformers runs it."""
    model = skeleton(made)
    values = unflatten(row, parameter_shapes(model))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in values:
                parameter.copy_(values[name])
    return model.eval()


def arms(folder: str, lora: bool, lanes: int, answers: int, width: int) -> dict[str, Callable[[int], None]]:
    made, whole = architecture(folder, lora), architecture(folder, False)
    packed = build_lanes(skeleton(made), [initial_weights(made, 0)] * lanes, torch.device("cpu"))
    # One model stands for all: what it costs does not depend on the weights. Adapters are merged into it.
    model = alone(whole, initial_weights(whole, 0))
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 250, (answers, width), generator=draw)
    real = torch.ones(answers, width, dtype=torch.bool)

    def ours(depth: int) -> None:
        uniforms = torch.rand(lanes, answers, depth, generator=draw)
        stacked = (ids.expand(lanes, -1, -1), real.expand(lanes, -1, -1))
        sample(packed, *stacked, uniforms, eos=NEVER, entropy=False, chunk=answers)

    @torch.no_grad()
    def theirs(depth: int) -> None:
        for _ in range(lanes):
            out = model.generate(
                ids, attention_mask=real.long(), do_sample=True, top_k=0, max_new_tokens=depth, min_new_tokens=depth,
                use_cache=True, pad_token_id=0,
            )  # fmt: skip
            assert out.shape == (answers, width + depth)

    return {"harness": ours, "transformers generate": theirs}


def measured(lanes: int, given: argparse.Namespace) -> dict[str, Any]:
    """CPU seconds per policy of each arm, and how many times as long `generate` takes."""
    both = arms(given.model, given.lora, lanes, given.answers, given.prompt)
    for run in both.values():
        run(4)  # warms up
    times: dict[str, list[float]] = {name: [] for name in both}
    for _ in range(given.rounds):
        for name, run in both.items():
            began = time.process_time()
            run(given.tokens)
            times[name].append((time.process_time() - began) / lanes)
    seconds = {name: statistics.median(values) for name, values in times.items()}
    factor = seconds["transformers generate"] / seconds["harness"]
    text = ", ".join(f"{name} {value:.2f}" for name, value in seconds.items())
    print(
        f"{lanes} lanes, {given.answers} answers of {given.tokens} tokens: CPU s per policy {text}; factor {factor:.2f}"
    )
    return {"lanes": lanes, "cpu_s_per_policy": seconds, "factor": factor}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="", help="folder of a model; default: the tiny one")
    parser.add_argument("--lora", action="store_true")
    parser.add_argument("--lanes", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--answers", type=int, default=8, help="per policy")
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--prompt", type=int, default=32, help="tokens of a prompt")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--target", type=float, default=3.0)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    rows = [measured(lanes, given) for lanes in given.lanes]
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1))
    return int(rows[-1]["factor"] < given.target)


if __name__ == "__main__":
    sys.exit(main())

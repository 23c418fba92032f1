"""What a training step of a run costs, ours beside TRL's DPOTrainer: `nox -s bench -- --sizes XS S --json FILE`.

The same pairs, batches, optimizer and schedule; arms interleaved, medians over rounds of CPU time a step and run, one
thread; the final log-probs of every arm are compared first (relative). `trl-default` computes the reference in every
step, `trl-precomputed` reads stored reference log-probs; both without logging, checkpointing and mixed precision.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.data.order import batch_ids
from harness.data.rows import TokenisedPair, pack_rows
from harness.models.lanes import Lane, Pack
from harness.models.load import Architecture, initial_weights, skeleton
from harness.models.logps import build_corpus, pair_logps
from harness.models.pack import build_lanes, parameter_shapes, unflatten
from harness.models.reference import pair_keys, score_responses
from harness.objectives.table import resolve
from harness.sweep.tasks import keep_freed_memory
from harness.training.loop import start, train
from harness.training.optim import learning_rate
from harness.types import TrainingSpec

CPU = torch.device("cpu")
# (vocabulary, width, layers, prompt tokens, response tokens)
SIZES = {"XS": (128, 32, 2, 16, 16), "S": (512, 64, 4, 24, 20), "M": (1024, 128, 4, 24, 20)}
BETA = 0.1


@dataclass(frozen=True)
class Case:
    """One size: pairs, starting weights, settings and the order of batches."""

    size: str
    architecture: Architecture
    weights: torch.Tensor
    pairs: list[TokenisedPair]
    settings: TrainingSpec
    order: np.ndarray


def case(size: str, batch: int, steps: int) -> Case:
    vocabulary, width, layers, prompt, response = SIZES[size]
    rng = np.random.default_rng(0)

    def tokens(low: int, high: int) -> np.ndarray:
        return rng.integers(3, vocabulary, rng.integers(low, high + 1)).astype(np.int32)

    pairs = [
        TokenisedPair(str(i), tokens(prompt // 2, prompt), tokens(4, response), tokens(4, response)) for i in range(128)
    ]
    architecture = Architecture(vocabulary, width, layers, max(width // 32, 1), width * 3, 128)
    settings = TrainingSpec(steps=steps, batch_size=batch, learning_rate=1e-3, warmup_steps=2)
    order = batch_ids([p.id for p in pairs], 0, steps, batch)
    return Case(size, architecture, initial_weights(architecture, 0), pairs, settings, order)


def plain(made: Case, weights: torch.Tensor) -> Any:
    model = skeleton(made.architecture)
    values = unflatten(weights, parameter_shapes(model))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(values[name])
    return model


def ours(made: Case, lanes: int) -> Callable[[], tuple[float, torch.Tensor]]:
    """A pack of equal lanes; returns CPU seconds a step and run, and the weights of the last lane."""
    table = score_responses(made.architecture, made.weights, made.pairs, CPU)
    chosen, rejected = pair_keys(made.pairs)
    corpus = build_corpus([pack_rows(made.pairs)], [(table.sums(chosen), table.sums(rejected))], CPU)
    batches = torch.from_numpy(made.order)
    lane = Lane(
        "x", resolve("dpo", {"beta": BETA}), made.settings, made.weights, batches, torch.zeros_like(batches) > 0
    )

    def run() -> tuple[float, torch.Tensor]:
        training = start(Pack(made.architecture, corpus, (lane,) * lanes), CPU)
        began = time.process_time()
        for _ in train(training):
            raise AssertionError("no evaluation sets")
        return (time.process_time() - began) / made.settings.steps / lanes, training.model.weights(lanes - 1)

    return run


def theirs(made: Case, precomputed: bool) -> Callable[[], tuple[float, torch.Tensor]]:
    """TRL's DPOTrainer on the same batches; the clock runs around its training loop alone."""
    from datasets import Dataset
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from torch.utils.data import SequentialSampler
    from transformers import PreTrainedTokenizerFast, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    words = {f"<{i}>": i for i in range(made.architecture.vocab_size)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token="<0>")), pad_token="<0>", eos_token="<2>"
    )
    table = score_responses(made.architecture, made.weights, made.pairs, CPU)
    chosen, rejected = map(table.sums, pair_keys(made.pairs))
    rows = [
        {
            "prompt_ids": made.pairs[i].prompt.tolist(),
            "chosen_ids": made.pairs[i].chosen.tolist(),
            "rejected_ids": made.pairs[i].rejected.tolist(),
            **({"ref_chosen_logps": chosen[i], "ref_rejected_logps": rejected[i]} if precomputed else {}),
        }
        for i in made.order.reshape(-1)
    ]

    class Clock(TrainerCallback):
        began = ended = 0.0

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.began = time.process_time()

        def on_train_end(self, *_: Any, **__: Any) -> None:
            self.ended = time.process_time()

    class InOrder(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

        def _precompute_ref_logps(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

        def _get_train_sampler(self, *_: Any) -> Any:
            return SequentialSampler(self.train_dataset)

    def run() -> tuple[float, torch.Tensor]:
        model = plain(made, made.weights)
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=made.settings.learning_rate, betas=(0.9, 0.99), weight_decay=0.0
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate(step, made.settings) / made.settings.learning_rate
        )
        clock = Clock()
        with tempfile.TemporaryDirectory() as folder:
            trainer = InOrder(
                model=model,
                ref_model=None if precomputed else plain(made, made.weights),
                args=DPOConfig(
                    output_dir=folder, beta=BETA, max_steps=made.settings.steps, max_length=None,
                    per_device_train_batch_size=made.settings.batch_size, max_grad_norm=made.settings.max_grad_norm,
                    gradient_checkpointing=False, bf16=False, use_cpu=True, report_to=[], save_strategy="no",
                    logging_strategy="no", disable_tqdm=True, precompute_ref_log_probs=precomputed,
                ),
                train_dataset=Dataset.from_list(rows),
                processing_class=tokenizer,
                optimizers=(optimizer, schedule),
                callbacks=[clock],
            )  # fmt: skip
            trainer.train()
        weights = torch.cat([parameter.detach().reshape(-1) for parameter in model.parameters()])
        return (clock.ended - clock.began) / made.settings.steps, weights

    return run


def logps(made: Case, weights: torch.Tensor) -> np.ndarray:
    corpus = build_corpus([pack_rows(made.pairs)], None, CPU)
    with torch.no_grad():
        scored = pair_logps(
            build_lanes(skeleton(made.architecture), [weights], CPU), corpus, torch.arange(len(made.pairs))[None]
        )
    return torch.stack([scored.chosen[0], scored.rejected[0]]).double().numpy()


def measure(size: str, batch: int, steps: int, rounds: int, packs: list[int]) -> list[dict[str, Any]]:
    made = case(size, batch, steps)
    arms = {"trl-default": theirs(made, False), "trl-precomputed": theirs(made, True)}
    arms |= {f"harness-pack{lanes}": ours(made, lanes) for lanes in packs}
    seconds: dict[str, list[float]] = {arm: [] for arm in arms}
    final: dict[str, np.ndarray] = {}
    for _ in range(rounds):
        for arm, run in arms.items():
            with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                spent, weights = run()
            seconds[arm].append(spent)
            final.setdefault(arm, logps(made, weights))
    truth = final["trl-default"]
    return [
        {
            "arm": arm,
            "size": size,
            "batch": batch,
            "cpu_ms_per_step": round(1000 * statistics.median(spent), 3),
            "parity_rel": float((np.abs(final[arm] - truth) / np.abs(truth)).max()),
        }
        for arm, spent in seconds.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", choices=sorted(SIZES), default=["XS", "S"])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--packs", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    rows = []
    for size in options.sizes:
        rows += measure(size, options.batch, options.steps, options.rounds, options.packs)
    base = {row["size"]: row["cpu_ms_per_step"] for row in rows if row["arm"] == "trl-default"}
    print(f"{'arm':<18}{'size':<6}{'CPU ms a step and run':>22}{'against trl-default':>22}{'parity':>12}")
    for row in rows:
        ratio = base[row["size"]] / row["cpu_ms_per_step"]
        print(
            f"{row['arm']:<18}{row['size']:<6}{row['cpu_ms_per_step']:>22.2f}{ratio:>21.2f}x{row['parity_rel']:>12.1e}"
        )
    print(
        f"torch {torch.__version__}, one thread, batch {options.batch}, {options.steps} steps, {options.rounds} rounds"
    )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()

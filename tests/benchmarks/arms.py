"""The arms of the benchmark: packs of ours, and TRL's DPOTrainer on the same pairs, batches, optimizer and schedule."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from harness.data.rows import pack_rows
from harness.models.architecture import skeleton
from harness.models.lane_model import build_lanes
from harness.models.logps import build_corpus, pair_logps
from harness.models.pack import Lane, Pack
from harness.models.reference_logps import pair_keys, score_responses
from harness.objectives.registry import resolve
from harness.training.loop import start, train
from harness.training.optim import learning_rate
from tests.benchmarks.cases import BETA, CPU, Case, plain

# CPU seconds a step and run, and the weights at the end.
Arm = Callable[[], tuple[float, torch.Tensor]]


def clock(device: torch.device) -> float:
    """Seconds: of this process's CPU time, or of the wall once a GPU is done."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def ours(made: Case, lanes: int, device: torch.device = CPU) -> Arm:
    """A pack of equal lanes; the weights are those of the last."""
    table = score_responses(made.architecture, made.weights, made.pairs, device)
    chosen, rejected = pair_keys(made.pairs)
    corpus = build_corpus([pack_rows(made.pairs)], [(table.sums(chosen), table.sums(rejected))], device)
    batches = torch.from_numpy(made.order)
    lane = Lane(
        "x", resolve("dpo", {"beta": BETA}), made.settings, made.weights, batches, torch.zeros_like(batches) > 0
    )

    def run() -> tuple[float, torch.Tensor]:
        training = start(Pack(made.architecture, corpus, (lane,) * lanes), device)
        began = clock(device)
        for _ in train(training):
            raise AssertionError("no evaluation sets")
        return (clock(device) - began) / made.settings.steps / lanes, training.model.weights(lanes - 1)

    return run


def theirs(made: Case, precomputed: bool, device: torch.device = CPU) -> Arm:
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
            self.began = clock(device)

        def on_train_end(self, *_: Any, **__: Any) -> None:
            self.ended = clock(device)

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
        timer = Clock()
        with tempfile.TemporaryDirectory() as folder:
            trainer = InOrder(
                model=model,
                ref_model=None if precomputed else plain(made, made.weights),
                args=DPOConfig(
                    output_dir=folder, beta=BETA, max_steps=made.settings.steps, max_length=None,
                    per_device_train_batch_size=made.settings.batch_size, max_grad_norm=made.settings.max_grad_norm,
                    gradient_checkpointing=False, bf16=False, use_cpu=device.type == "cpu", report_to=[],
                    save_strategy="no", logging_strategy="no", disable_tqdm=True, precompute_ref_log_probs=precomputed,
                ),
                train_dataset=Dataset.from_list(rows),
                processing_class=tokenizer,
                optimizers=(optimizer, schedule),
                callbacks=[timer],
            )  # fmt: skip
            trainer.train()
        weights = torch.cat([parameter.detach().cpu().reshape(-1) for parameter in model.parameters()])
        return (timer.ended - timer.began) / made.settings.steps, weights

    return run


def logps(made: Case, weights: torch.Tensor) -> np.ndarray:
    """Log-probs `(2, pairs)` of both responses of every pair under these weights."""
    corpus = build_corpus([pack_rows(made.pairs)], None, CPU)
    with torch.no_grad():
        scored = pair_logps(
            build_lanes(skeleton(made.architecture), [weights], CPU), corpus, torch.arange(len(made.pairs))[None]
        )
    return torch.stack([scored.chosen[0], scored.rejected[0]]).double().numpy()

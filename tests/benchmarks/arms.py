"""The arms of the benchmark: packs of ours, and TRL's DPOTrainer on the same pairs, batches, optimizer and schedule."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from harness.data.rows import TokenisedPair, pack_rows
from harness.models.architecture import skeleton
from harness.models.lane_model import build_lanes, parameter_shapes, unflatten
from harness.models.logps import build_corpus, pair_logps
from harness.models.lora import PREFIX
from harness.models.pack import Lane, Pack
from harness.models.reference_logps import pair_keys, score_responses
from harness.objectives.registry import resolve
from harness.training.loop import start, train
from harness.training.optim import learning_rate
from harness.training.timing import Spans
from tests.benchmarks.cases import BETA, CPU, Case, plain

PROBED = 8  # pairs of a folder's model whose final log-probs are compared

# CPU seconds a step and run, and the weights at the end.
Arm = Callable[[], tuple[float, torch.Tensor]]


def clock(device: torch.device) -> float:
    """Seconds: of this process's CPU time, or of the wall once a GPU is done."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def ours(made: Case, lanes: int, device: torch.device = CPU, spans: Spans | None = None) -> Arm:
    """A pack of equal lanes; the weights are those of the last. `spans` gets where the time of a step goes."""
    table = score_responses(made.architecture, made.weights, made.pairs, device, made.ladder)
    chosen, rejected = pair_keys(made.pairs)
    corpus = build_corpus([pack_rows(made.pairs)], [(table.sums(chosen), table.sums(rejected))], device)
    batches = torch.from_numpy(made.order)
    lane = Lane(
        "x", resolve("dpo", {"beta": BETA}), made.settings, made.weights, batches, torch.zeros_like(batches) > 0
    )

    def run() -> tuple[float, torch.Tensor]:
        training = start(Pack(made.architecture, corpus, (lane,) * lanes, ladder=made.ladder), device)
        training.spans = spans or training.spans
        began = clock(device)
        for _ in train(training):
            raise AssertionError("no evaluation sets")
        return (clock(device) - began) / made.settings.steps / lanes, training.model.weights(lanes - 1)

    return run


def theirs(made: Case, precomputed: bool, device: torch.device = CPU) -> Arm:
    """TRL's DPOTrainer on the same batches; the clock runs around its training loop alone."""
    from transformers import TrainerCallback

    ordered = [made.pairs[i] for i in made.order.reshape(-1)]
    stored = None
    if precomputed:
        table = score_responses(made.architecture, made.weights, made.pairs, device, made.ladder)
        stored = tuple(map(table.sums, pair_keys(ordered)))

    class Clock(TrainerCallback):
        began = ended = 0.0

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.began = clock(device)

        def on_train_end(self, *_: Any, **__: Any) -> None:
            self.ended = clock(device)

    def run() -> tuple[float, torch.Tensor]:
        timer = Clock()
        with tempfile.TemporaryDirectory() as folder:
            trainer = trl_trainer(
                made, rows_of(ordered, stored), folder, device, precomputed=precomputed, callbacks=[timer]
            )
            trainer.train()
        return (timer.ended - timer.began) / made.settings.steps, trained_weights(made, trainer.model)

    return run


def rows_of(pairs: Sequence[TokenisedPair], stored: tuple[np.ndarray, ...] | None = None) -> Any:
    """Tokenised pairs as TRL's trainers take them, with `stored` reference log-probs of both sides if there are any."""
    from datasets import Dataset

    sides = [{}] * len(pairs)
    if stored is not None:
        sides = [{"ref_chosen_logps": a, "ref_rejected_logps": b} for a, b in zip(*stored, strict=True)]
    return Dataset.from_list(
        [
            {
                "prompt_ids": pair.prompt.tolist(),
                "chosen_ids": pair.chosen.tolist(),
                "rejected_ids": pair.rejected.tolist(),
                **own,
            }
            for pair, own in zip(pairs, sides, strict=True)
        ]
    )


def trl_trainer(
    made: Case,
    rows: Any,
    folder: str,
    device: torch.device,
    *,
    precomputed: bool,
    callbacks: Sequence[Any] = (),
    heldout: Any = None,
    loss: Mapping[str, Any] | None = None,
) -> Any:
    """TRL's DPOTrainer that takes `rows` in their order, from the start, with the optimizer and schedule of `made`.

    Of a model with adapters the reference is the model without them, as peft's users have it. With `precomputed` rows
    that hold no reference log-probs get them from TRL itself, before training.
    """
    from torch.utils.data import SequentialSampler
    from trl import DPOConfig, DPOTrainer

    class InOrder(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset  # tokenised already

        def _precompute_ref_logps(self, dataset: Any, *rest: Any, **named: Any) -> Any:
            if "ref_chosen_logps" in dataset.column_names:
                return dataset
            return super()._precompute_ref_logps(dataset, *rest, **named)

        def _get_train_sampler(self, *_: Any) -> Any:
            return SequentialSampler(self.train_dataset)

    settings, source = made.settings, made.architecture.source
    model, adapters = _trl_model(made)
    trainer = InOrder(
        model=model,
        # None: TRL takes the model itself without its adapters, or loads the folder once more.
        ref_model=None if precomputed or source is not None else plain(made, made.weights),
        args=DPOConfig(
            output_dir=folder, max_steps=settings.steps, max_length=None,
            per_device_train_batch_size=settings.batch_size, per_device_eval_batch_size=settings.batch_size,
            max_grad_norm=settings.max_grad_norm, gradient_checkpointing=False, bf16=False,
            use_cpu=device.type == "cpu", report_to=[], save_strategy="no", logging_strategy="no", disable_tqdm=True,
            precompute_ref_log_probs=precomputed, **({"beta": BETA} | dict(loss or {})),
        ),
        train_dataset=rows,
        eval_dataset=heldout,
        processing_class=_tokenizer(made.architecture.vocab_size),
        peft_config=adapters,
        callbacks=list(callbacks),
    )  # fmt: skip
    if adapters is not None:
        with torch.no_grad():
            for name, value in unflatten(made.weights, _shapes(made)).items():
                trainer.model.get_parameter(_by_trl(name)).copy_(value)
    trained = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
    rate = settings.learning_rate
    betas = (settings.adam_beta1, settings.adam_beta2)
    trainer.optimizer = torch.optim.AdamW(trained, lr=rate, betas=betas, weight_decay=settings.weight_decay)
    trainer.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
        trainer.optimizer, lambda step: learning_rate(step, settings) / rate
    )
    return trainer


def _trl_model(made: Case) -> tuple[Any, Any]:
    """The model that TRL trains, and the adapters it shall put on it (None: all of it is trained)."""
    source = made.architecture.source
    if source is None:
        return plain(made, made.weights), None
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(source.folder, dtype=torch.float32, attn_implementation="sdpa")
    if source.lora is None:
        return model, None
    rank, alpha = source.lora.rank, source.lora.alpha
    return model, LoraConfig(r=rank, lora_alpha=alpha, target_modules="all-linear", task_type="CAUSAL_LM")


def _tokenizer(size: int) -> Any:
    """A tokenizer for rows that are tokenised already: TRL reads its padding token alone."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = WordLevel({f"<{i}>": i for i in range(size)}, unk_token="<0>")
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(words), pad_token="<0>", eos_token="<2>")


def _shapes(made: Case) -> dict[str, torch.Size]:
    return parameter_shapes(skeleton(made.architecture))


def _by_trl(name: str) -> str:
    """The name of an adapter's parameter in peft's live model."""
    return f"{PREFIX}{name}.default.weight"


def trained_weights(made: Case, model: Any) -> torch.Tensor:
    """What TRL trained as a row `(P,)`."""
    source = made.architecture.source
    if source is not None and source.lora is not None:
        parts = [model.get_parameter(_by_trl(name)) for name in _shapes(made)]
    else:
        parts = list(model.parameters())
    return torch.cat([part.detach().cpu().reshape(-1) for part in parts])


def logps(made: Case, weights: torch.Tensor, device: torch.device = CPU) -> np.ndarray:
    """Log-probs `(2, pairs)` of both responses of every pair (of a folder's model: of 8) under these weights."""
    if made.ladder:
        pairs = made.pairs[:PROBED]
        table = score_responses(made.architecture, weights, pairs, device, ladder=True)
        return np.stack([table.sums(keys) for keys in pair_keys(pairs)]).astype(np.float64)
    corpus = build_corpus([pack_rows(made.pairs)], None, CPU)
    with torch.no_grad():
        scored = pair_logps(
            build_lanes(skeleton(made.architecture), [weights], CPU), corpus, torch.arange(len(made.pairs))[None]
        )
    return torch.stack([scored.chosen[0], scored.rejected[0]]).double().numpy()

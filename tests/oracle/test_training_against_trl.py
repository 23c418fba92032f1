"""The packed trainer against TRL's DPOTrainer: the same batches, optimizer and schedule give the same policy."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from harness.data.mythworld.language import FIRST
from harness.models.architecture import skeleton
from harness.models.lane_model import parameter_shapes, unflatten
from harness.training.loop import start, train
from harness.training.optim import learning_rate
from harness.types import TrainingSpec
from tests.training.worlds import ARCHITECTURE, CPU, lane, pack, world

pytestmark = pytest.mark.oracle

SETTINGS = TrainingSpec(steps=20, batch_size=8, learning_rate=1e-3, warmup_steps=5, weight_decay=0.01)


def plain_model(weights: torch.Tensor):
    model = skeleton(ARCHITECTURE)
    with torch.no_grad():
        values = unflatten(weights, parameter_shapes(model))
        for name, parameter in model.named_parameters():
            parameter.copy_(values[name])
    return model


def trl_policy(beta: float, order: np.ndarray, tmp_path):
    """The weights after TRL trained on the same pairs in the same order."""
    from datasets import Dataset
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from torch.utils.data import SequentialSampler
    from transformers import PreTrainedTokenizerFast
    from trl import DPOConfig, DPOTrainer

    weights, pairs, _ = world(0)
    words = Tokenizer(WordLevel(FIRST.token, unk_token="<pad>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>")
    data = Dataset.from_list(
        [
            {
                "prompt_ids": pairs[i].prompt.tolist(),
                "chosen_ids": pairs[i].chosen.tolist(),
                "rejected_ids": pairs[i].rejected.tolist(),
            }
            for i in order.reshape(-1)
        ]
    )
    model, reference = plain_model(weights), plain_model(weights)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=SETTINGS.learning_rate, betas=(0.9, 0.99), weight_decay=SETTINGS.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate(step, SETTINGS) / SETTINGS.learning_rate
    )

    class InOrder(DPOTrainer):
        def _prepare_dataset(self, dataset, *args, **kwargs):
            return dataset  # tokenised already

        def _get_train_sampler(self, dataset=None):
            return SequentialSampler(self.train_dataset)

    trainer = InOrder(
        model=model,
        ref_model=reference,
        args=DPOConfig(
            output_dir=str(tmp_path),
            beta=beta,
            max_steps=SETTINGS.steps,
            per_device_train_batch_size=SETTINGS.batch_size,
            max_grad_norm=SETTINGS.max_grad_norm,
            gradient_checkpointing=False,
            bf16=False,
            fp16=False,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            max_length=None,
        ),
        train_dataset=data,
        processing_class=tokenizer,
        optimizers=(optimizer, schedule),
    )
    trainer.train()
    return model


def response_logps(model, pairs) -> np.ndarray:
    out = []
    for pair in pairs:
        for response in (pair.chosen, pair.rejected):
            ids = torch.tensor([[*pair.prompt, *response]])
            with torch.no_grad():
                logps = model(ids).logits.log_softmax(-1)[0, len(pair.prompt) - 1 : -1]
            out.append(logps.gather(-1, ids[0, len(pair.prompt) :, None]).sum().item())
    return np.array(out).reshape(-1, 2)


@pytest.mark.parametrize("beta", [0.1, 2.0])
def test_dpo_training_equals_trl(beta, tmp_path):
    ours = lane("dpo", "dpo", {"beta": beta}, training=SETTINGS)
    training = start(pack([lane("other", "ipo", {"beta": 0.1}, training=SETTINGS), ours], checkpoints=()), CPU)
    list(train(training))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = trl_policy(beta, ours.batches.numpy(), tmp_path)
    pairs = world(0)[1]
    mine = response_logps(plain_model(training.model.weights(1)), pairs)
    other = response_logps(theirs, pairs)
    before = response_logps(plain_model(world(0)[0]), pairs)
    moved = np.abs(mine - before).max()
    assert moved > 1.0
    # Training amplifies rounding, on each processor by another factor; a wrong step would change far more than this.
    assert np.abs(mine - other).max() <= 1e-3 * moved

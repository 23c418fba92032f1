"""How each of TRL's preference trainers tokenises, collates and scores a pair: through its own functions.

So log-probs equal what the trainer itself logs, whatever its tokenizer, template, truncation and adapter. A pair is
held as its examples, the rows that the trainer's collator takes: one, or for KTO one for each response.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from accelerate.utils import is_peft_model
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor
from trl.data_utils import extract_prompt, maybe_apply_chat_template
from trl.trainer.utils import use_adapter

from harness.objectives.registry import OBJECTIVES
from harness.types import InputError

Row: TypeAlias = Mapping[str, Any]
Examples: TypeAlias = list[dict[str, Any]]  # of one pair
Batch: TypeAlias = tuple[Tensor, Tensor, Tensor]  # ids, attention mask, labels (-100: no response); chosen rows first
Objective: TypeAlias = tuple[str, dict[str, Any]]  # our name and hyperparameters but beta

DPO_KEYS = ("prompt_ids", "chosen_ids", "rejected_ids")
KTO_KEYS = ("prompt_ids", "completion_ids", "label")
CPO_KEYS = tuple(
    f"{side}_{kind}" for side in ("chosen", "rejected") for kind in ("input_ids", "attention_mask", "labels")
)
OPTIONS = ("tools", "chat_template_kwargs")


@dataclass(frozen=True, slots=True)
class Family:
    """One of TRL's trainers. `tokenised`: rows with a prompt to examples by their place, without those that it drops;
    `example`: the examples of a row of its training set, None where that holds no pairs; `objective`: None where its
    loss is none of ours; `score`: summed log-probs of a batch's responses."""

    tokenised: Callable[[Any, Sequence[Row]], dict[int, Examples]]
    example: Callable[[Row], Examples] | None
    batch: Callable[[Any, Sequence[Examples]], Batch]
    score: Callable[[Any, Any, Batch], Tensor]
    objective: Callable[[Any], Objective | None]


def _prepared(trainer: Any, rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    yield from trainer._prepare_dataset(Dataset.from_list(list(rows)), trainer.processing_class, trainer.args, "probe")


def _dpo_example(row: Row) -> Examples:
    return [{name: row[name] for name in DPO_KEYS}]


def _dpo_tokenised(trainer: Any, rows: Sequence[Row]) -> dict[int, Examples]:
    names = ("prompt", "chosen", "rejected", *OPTIONS)
    found = [{name: row[name] for name in names if name in row} | {"pair": i} for i, row in enumerate(rows)]
    return {row["pair"]: _dpo_example(row) for row in _prepared(trainer, found)}


def _kto_tokenised(trainer: Any, rows: Sequence[Row]) -> dict[int, Examples]:
    found = [
        {name: row[name] for name in ("prompt", *OPTIONS) if name in row}
        | {"completion": row[side], "label": side == "chosen", "pair": i}
        for i, row in enumerate(rows)
        for side in ("chosen", "rejected")
    ]
    pairs: dict[int, Examples] = {}
    for row in _prepared(trainer, found):
        pairs.setdefault(row["pair"], []).append({name: row[name] for name in KTO_KEYS})
    return {pair: examples for pair, examples in pairs.items() if len(examples) == 2}


def _cpo_example(row: Row) -> Examples:
    return [{name: row[name] for name in CPO_KEYS}]


def _cpo_tokenised(trainer: Any, rows: Sequence[Row]) -> dict[int, Examples]:
    if trainer.is_encoder_decoder:
        raise InputError("GeometryCallback: encoder-decoder models are not supported; use a decoder-only model")
    texts = (maybe_apply_chat_template(dict(row), trainer.processing_class) for row in rows)
    found = (_cpo_example(trainer.tokenize_row(text)) for text in texts)
    # A prompt that fills `max_length` alone leaves no response.
    return {
        i: own for i, own in enumerate(found) if all(max(own[0][f"{s}_labels"]) >= 0 for s in ("chosen", "rejected"))
    }


def _collated(trainer: Any, pairs: Sequence[Examples]) -> Batch:
    # All first examples, then all second ones: DPO's collator puts chosen above rejected rows itself.
    batch = trainer.data_collator([example for side in zip(*pairs, strict=True) for example in side])
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
    return batch["input_ids"], batch["attention_mask"], labels


def _cpo_collated(trainer: Any, pairs: Sequence[Examples]) -> Batch:
    padding = getattr(trainer, "padding_value", trainer.processing_class.pad_token_id)
    batch = trainer.data_collator([example for examples in pairs for example in examples])
    both = trainer.concatenated_inputs(batch, padding_value=padding)
    return both["concatenated_input_ids"], both["concatenated_attention_mask"], both["concatenated_labels"]


def _fused(_: Any, model: Any, batch: Batch) -> Tensor:
    """By the head that TRL adds to the model, which never holds all logits."""
    ids, attention, labels = batch
    found = model(input_ids=ids, attention_mask=attention, labels=labels, use_cache=False, fused_lm_head=True)
    # Prompt-learning adapters put virtual tokens in front.
    logps: Tensor = found.log_probs[:, -(labels.shape[1] - 1) :].sum(1)
    return logps


def _by_logits(trainer: Any, model: Any, batch: Batch) -> Tensor:
    ids, attention, labels = batch
    logits = model(input_ids=ids, attention_mask=attention, use_cache=False).logits[:, -labels.shape[1] :]
    logps: Tensor = trainer.get_batch_logps(logits, labels)
    return logps


# Losses of a whole batch have `ell(z)`, which is dpo's, for every pair.
DPO_LOSSES: Mapping[str, Callable[[Any], Objective]] = {
    **dict.fromkeys(("sigmoid", "aot", "aot_unpaired"), lambda _: ("dpo", {})),
    "robust": lambda trainer: ("robust_dpo", {"eps": trainer.label_smoothing}),
    "exo_pair": lambda trainer: ("exo", {"eps": trainer.label_smoothing}),
    "hinge": lambda _: ("hinge", {}),
    "ipo": lambda _: ("ipo", {"length_average": True}),
    "nca_pair": lambda _: ("nca", {}),
    "sppo_hard": lambda _: ("sppo", {}),
    "apo_zero": lambda _: ("apo_zero", {}),
    "apo_down": lambda _: ("apo_down", {}),
    "discopop": lambda trainer: ("discopop", {"tau": trainer.args.discopop_tau}),
    "sigmoid_norm": lambda _: ("ln_dpo", {}),
}


def _dpo_objective(trainer: Any) -> Objective | None:
    plain = trainer.f_divergence_type == "reverse_kl" and trainer.ld_alpha is None and not trainer.use_weighting
    if not plain or len(trainer.loss_types) > 1 or trainer.loss_types[0] not in DPO_LOSSES:
        return None
    return DPO_LOSSES[trainer.loss_types[0]](trainer)


def _kto_objective(trainer: Any) -> Objective:
    return ("apo_zero" if trainer.loss_type == "apo_zero_unpaired" else "dpo"), {}


def _cpo_objective(trainer: Any) -> Objective | None:
    if trainer.label_smoothing:
        return None
    if trainer.loss_type == "sigmoid" and not trainer.alpha:
        return "contrastive_cpo", {"lam": trainer.cpo_alpha}
    if trainer.loss_type == "simpo" and not trainer.cpo_alpha:
        gamma = {"gamma": trainer.simpo_gamma}
        return ("alphapo", gamma | {"alpha": trainer.alpha}) if trainer.alpha else ("simpo", gamma)
    return None


def _orpo_objective(_: Any) -> Objective:
    return "orpo", {}


FAMILIES: Mapping[str, Family] = {
    "DPOTrainer": Family(_dpo_tokenised, _dpo_example, _collated, _fused, _dpo_objective),
    "KTOTrainer": Family(_kto_tokenised, None, _collated, _fused, _kto_objective),
    "CPOTrainer": Family(_cpo_tokenised, _cpo_example, _cpo_collated, _by_logits, _cpo_objective),
    "ORPOTrainer": Family(_cpo_tokenised, _cpo_example, _cpo_collated, _by_logits, _orpo_objective),
}


def family_of(trainer: Any) -> Family:
    """The family of a trainer or of what it was derived from. Raises InputError for any other, and for images."""
    if getattr(trainer, "_is_vision_dataset", False):
        raise InputError("GeometryCallback: pairs with images are not supported; leave it out")
    for kind in type(trainer).__mro__:
        if kind.__name__ in FAMILIES:
            return FAMILIES[kind.__name__]
    raise InputError(f"GeometryCallback: {type(trainer).__name__} is none of {', '.join(FAMILIES)}")


def objective_of(trainer: Any, beta: float | None) -> Objective | None:
    """What the trainer minimises as one of our objectives with its hyperparameters, None where it is none of them."""
    found = family_of(trainer).objective(trainer)
    if found is None:
        return None
    name, hyperparameters = found
    # ORPO's beta is a weight.
    weight = {"lam" if name == "orpo" else "beta": trainer.beta if beta is None else beta}
    return name, OBJECTIVES[name].in_own_terms(hyperparameters | weight)


def with_prompts(rows: Sequence[Row]) -> list[Row]:
    """The rows with a `prompt` of their own, as TRL finds it in the common start of two conversations or texts."""
    return [row if "prompt" in row else {**row, **extract_prompt(dict(row))} for row in rows]


def policy_of(trainer: Any) -> Any:
    """The model to run: sharded models only as a whole, others without their wrapper, which gradients alone need."""
    return trainer.model_wrapped if trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled else trainer.model


@contextmanager
def reference_of(trainer: Any) -> Iterator[Any]:
    """The model to run as reference: `ref_model`, or the policy without its adapter; None where only the policy's own
    start can be one."""
    bare = trainer.accelerator.unwrap_model(trainer.model)
    if (model := getattr(trainer, "ref_model", None)) is not None:
        yield model
    elif is_peft_model(bare):
        # TRL keeps a copy of an adapter that it was given trained.
        with use_adapter(bare, adapter_name="ref" if "ref" in bare.peft_config else None):
            yield policy_of(trainer)
    else:
        yield None


def _tokens(examples: Examples) -> int:
    return sum(len(ids) for example in examples for ids in example.values() if isinstance(ids, list))


@torch.no_grad()
def score(trainer: Any, model: Any, pairs: Sequence[Examples]) -> NDArray[np.float64]:
    """Log-probs of the chosen and the rejected response (nats, sums) and their scored tokens, `(n, 4)`.

    Each process runs its share of the batches, all of them equally many, and every process gets all results.
    """
    family, accelerator, size = family_of(trainer), trainer.accelerator, trainer.args.per_device_eval_batch_size
    order = sorted(range(len(pairs)), key=lambda i: _tokens(pairs[i]))  # alike in length: little padding
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    processes = accelerator.num_processes
    batches += batches[:1] * (-len(batches) % processes)
    found = torch.zeros(len(batches) // processes, size, 4, device=accelerator.device)
    training = model.training
    model.eval()
    for place, rows in zip(found, batches[accelerator.process_index :: processes], strict=True):
        ids, attention, labels = (
            part.to(accelerator.device) for part in family.batch(trainer, [pairs[i] for i in rows])
        )
        with accelerator.autocast():
            logps = family.score(trainer, model, (ids, attention, labels))
        lengths = (labels[:, 1:] != -100).sum(1)
        place[: len(rows)] = torch.stack([*logps.float().chunk(2), *lengths.chunk(2)], dim=1)
    model.train(training)
    scores = np.zeros((len(pairs), 4))
    everything = accelerator.gather(found).view(processes, len(found), size, 4).transpose(0, 1).flatten(0, 1)
    for rows, values in zip(batches, everything.cpu().double().numpy(), strict=True):
        scores[rows] = values[: len(rows)]
    return scores

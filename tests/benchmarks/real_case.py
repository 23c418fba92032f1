"""What the arms of the real benchmark share: a run's tokenised pairs as a sweep reads them, and how much work they are.

Floating-point operations are counted on tokens that carry information: no padding, a prompt once for all responses
behind it, the output head only where a token is predicted. Attention's own products are left out.
"""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from harness.config.load import SweepSpec, load_sweep
from harness.data.order import batch_ids, probe_ids
from harness.data.rows import TokenisedPair
from harness.data.splits import read_text
from harness.identity import run_stream
from harness.inputs.text import MAX_NEW_TOKENS, model_reading, starting_weights, text_architecture
from harness.models.architecture import Architecture
from harness.models.folder import base_model
from harness.types import PathModelSpec, RunSpec
from tests.benchmarks.cases import Case

RANK = 16
OBJECTIVES = [
    {"name": "dpo", "beta": [0.1, 0.5, 2]},
    {"name": "cpo_smooth", "beta": 0.1, "reduction": "sum", "gamma": 1, "tau": 2, "alpha": 1},
    {"name": "ipo", "beta": 0.1, "length_average": True},
    {"name": "robust_dpo", "beta": 0.1},
]
CHECKPOINTS, PROBE = 3, 8
TURNS = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}


@dataclass(frozen=True)
class Size:
    """Size of the job: steps of a run, pairs per step, held-out pairs per evaluation, answers of a run, tokens."""

    steps: int
    batch: int
    heldout: int
    answers: int
    max_length: int


def sweep_of(folder: Path, model: Path, pairs: Path, size: Size) -> SweepSpec:
    """The six runs as a spec, written to `folder`; plain texts as conversations, which is what the model is for."""
    name = pairs.name.partition(".")[0]
    spec = {
        "name": "six",
        "question": "What do six runs on a real model cost?",
        "data": {
            "path": str(conversations(pairs, folder / f"{name}.jsonl")),
            "heldout": 0.2,
            "on_bad_row": "drop",
            "max_length": size.max_length,
        },
        "model": {"path": str(model), "lora": {"rank": RANK}, "dtype": "float32"},
        "objectives": OBJECTIVES,
        "corruptions": [{"kind": "none"}],
        "seeds": 1,
        "training": {"steps": size.steps, "batch_size": size.batch, "learning_rate": 1e-4},
        "evaluation": {
            "checkpoints": CHECKPOINTS,
            "heldout": size.heldout,
            "probe": PROBE,
            "ood": 0,
            "samples": size.answers,
        },
        "device": "cpu",
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(spec), encoding="utf-8")
    return load_sweep(path)


def conversations(pairs: Path, to: Path) -> Path:
    """Pairs of plain texts as conversations of one turn each, which the model's chat template writes: a file of them.

    Files whose rows are something else (conversations already, transcripts, Parquet) stay as they are.
    """
    if not pairs.name.endswith((".jsonl", ".jsonl.gz")):
        return pairs
    text = gzip.decompress(pairs.read_bytes()) if pairs.suffix == ".gz" else pairs.read_bytes()
    rows = [json.loads(line) for line in text.decode("utf-8").splitlines() if line.strip()]
    if not all(isinstance(row.get(key), str) for row in rows for key in TURNS):
        return pairs
    turns = [{key: [{"role": role, "content": row[key]}] for key, role in TURNS.items()} for row in rows]
    to.write_text("".join(json.dumps(row) + "\n" for row in turns), encoding="utf-8")
    return to


@dataclass(frozen=True)
class RealPairs:
    """A run's pairs: those of its batches in order, all that are held out, and the probe of training pairs."""

    run: RunSpec
    batches: list[TokenisedPair]
    heldout: list[TokenisedPair]
    probe: list[TokenisedPair]
    eos: int
    max_new_tokens: int
    prompt_width: int

    @property
    def measured(self) -> list[TokenisedPair]:
        """The pairs of an evaluation."""
        return [*self.heldout[: self.run.evaluation.heldout], *self.probe]

    def prompts(self, count: int) -> list[np.ndarray]:
        """Prompts of the first held-out pairs, which runs answer."""
        return [pair.prompt for pair in self.heldout[:count]]

    @property
    def architecture(self) -> Architecture:
        """The model with its adapters."""
        assert self.run.data is not None and self.run.model is not None
        return text_architecture(self.run.data, self.run.model)

    def case(self, steps: int) -> Case:
        """Training on the first batches from fresh adapters, with one step of warm-up: a few steps move the model."""
        batch = self.run.training.batch_size
        settings = replace(self.run.training, steps=steps, warmup_steps=1)
        order = np.arange(steps * batch).reshape(steps, batch)
        pairs = self.batches[: steps * batch]
        return Case("real", self.architecture, starting_weights(self.run), pairs, settings, order, ladder=True)


def read(run: RunSpec) -> RealPairs:
    """The pairs of a run, tokenised and ordered as the sweep does it."""
    data, model, evaluation, training = run.data, run.model, run.evaluation, run.training
    assert data is not None and isinstance(model, PathModelSpec)
    text = read_text(data, model, run.seed, *model_reading(model))
    ids = [pair.id for pair in text.train]
    order = batch_ids(ids, run_stream(run, "order"), training.steps, training.batch_size)
    return RealPairs(
        run,
        [text.tokens[ids[i]] for i in order.reshape(-1)],
        [text.tokens[pair.id] for pair in text.heldout],
        [text.tokens[name] for name in probe_ids(ids, evaluation.probe)],
        text.words.eos,
        min(MAX_NEW_TOKENS, data.max_length - data.max_prompt_length),
        data.max_prompt_length,
    )


@dataclass(frozen=True)
class Work:
    """Floating-point operations of a model with adapters, from its numbers of weights."""

    layers: int
    head: int
    adapters: int

    def forward(self, tokens: int, predicted: int) -> float:
        """Of reading so many tokens, and predicting one at so many places."""
        return 2.0 * ((self.layers + self.adapters) * tokens + self.head * predicted)

    def training(self, pairs: Sequence[TokenisedPair]) -> float:
        """Of a forward and backward pass: the frozen base has no gradient of its weights."""
        responses = sum(len(pair.chosen) + len(pair.rejected) for pair in pairs)
        tokens = responses + sum(len(pair.prompt) for pair in pairs)
        return 2 * self.forward(tokens, responses) + 2.0 * self.adapters * tokens

    def scoring(self, pairs: Sequence[TokenisedPair]) -> float:
        """Of the log-probs of all their responses, each prompt and each response once."""
        prompts = {pair.prompt.tobytes(): len(pair.prompt) for pair in pairs}
        each = responses_of(pairs)
        return self.forward(sum(prompts.values()) + sum(each.values()), sum(each.values()))

    def answering(self, prompts: Sequence[Any], generated: int) -> float:
        """Of `generated` tokens behind these prompts."""
        return self.forward(sum(map(len, prompts)) + generated, generated)


def responses_of(pairs: Sequence[TokenisedPair]) -> dict[tuple[bytes, bytes], int]:
    """Lengths of the distinct responses of pairs."""
    sides = ((pair.prompt, side) for pair in pairs for side in (pair.chosen, pair.rejected))
    return {(prompt.tobytes(), side.tobytes()): len(side) for prompt, side in sides}


def work_of(architecture: Architecture, adapters: int) -> Work:
    """The work of an architecture's model, with so many weights in adapters."""
    assert architecture.source is not None
    head = base_model(architecture.source).get_output_embeddings().weight
    return Work(sum(weight.numel() for weight in _matrices(architecture)), head.numel(), adapters)


def own_products(architecture: Architecture, rows: int) -> float:
    """Floating-point operations per CPU second of products of `rows` rows with each matrix of the model's layers."""
    weights = _matrices(architecture)
    inputs = {width: torch.randn(rows, width) for width in {weight.shape[1] for weight in weights}}
    spent = []
    with torch.no_grad():
        for _ in range(4):  # the first one warms up
            began = time.process_time()
            for weight in weights:
                inputs[weight.shape[1]] @ weight.T
            spent.append(time.process_time() - began)
    return 2.0 * rows * sum(weight.numel() for weight in weights) / min(spent[1:])


def _matrices(architecture: Architecture) -> list[torch.Tensor]:
    """The matrices of a model's layers: neither embedding nor output head."""
    assert architecture.source is not None
    model = base_model(architecture.source)
    tables = (model.get_output_embeddings().weight, model.get_input_embeddings().weight)
    found = {id(p): p.detach() for p in model.parameters() if p.dim() == 2 and all(p is not table for table in tables)}
    return list(found.values())

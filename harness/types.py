"""The nouns of the harness: frozen dataclasses, shapes and units stated once. Imports no torch.

First what a spec settles about a run, then what objectives and trainers exchange. Log-probabilities are natural
logarithms (nats), summed over response tokens unless a name says otherwise. `K` lanes (runs trained in lockstep), `B`
pairs, `T` tokens. Lane-shaped hyperparameters broadcast as `(K, 1)`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class ObjectiveSpec:
    """An objective with its resolved hyperparameters (beta among them, where it has one), sorted by name."""

    name: str
    hyperparameters: tuple[tuple[str, Any], ...] = ()

    @property
    def beta(self) -> float | None:
        """The beta of this run, or None for objectives without one."""
        value = dict(self.hyperparameters).get("beta")
        return None if value is None else float(value)


@dataclass(frozen=True, slots=True)
class CorruptionSpec:
    """A corruption with its rate (None for derived-rate kinds and the clean set) and its parameters, sorted by name."""

    kind: str = "none"
    rate: float | None = None
    params: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class WorldSpec:
    """The embedded world (`data/mythworld.py`). `misaligned`: topics (share) whose reference favours the bad answer."""

    kind: str = "mythworld"  # the one embedded world there is
    # share of topics whose reference favours the bad answer; larger: more pairs start wrong. The dial of the question
    misaligned: float = 0.75
    # hard: the better response is always chosen | bradley_terry: with probability sigmoid(reward difference)
    labels: str = "hard"
    # training pairs; more of them: less is repeated within `steps` x `batch_size`, less noise memorised
    pairs: int = 1024
    coverage: float = 1.0  # share of the topics that have preference pairs; the rest is generalisation only
    pretrain_steps: int = 450  # updates on good and bad answers alike; too few and answers are malformed
    pretrain_batch: int = 96  # prompts with an answer a pretraining step
    pretrain_learning_rate: float = 4e-3  # peak rate of pretraining (AdamW)
    sft_steps: int = 200  # updates that give the reference its bias; more: the reference is surer, right or wrong
    sft_batch: int = 96  # prompts with an answer a step of it
    sft_learning_rate: float = 2e-3  # peak rate of it (AdamW)
    hidden_size: int = 64  # width of the model; a multiple of 2 x `heads`
    layers: int = 1  # decoder layers; more: slower, and able to memorise more
    heads: int = 2  # attention heads
    intermediate_size: int = 192  # width inside each feed-forward block


@dataclass(frozen=True, slots=True)
class DataSpec:
    """Real preference pairs: a file, a folder of files, or a hub data set.

    `sha256` is the content hash that enters run keys, of a hub data set its commit; the path never does.
    """

    path: str = ""  # a file, or a folder of files; a relative one counts from the spec's folder
    format: str = ""  # a name that `harness formats` lists; empty: recognised by the rows, where that is certain
    sha256: str = ""  # content hash, filled in; given in a spec it is checked: the data must still be these
    limit: int = 0  # the first so many rows alone; 0: all. To try a large set first
    heldout: float = 0.2  # share of prompts held out of training and measured on
    on_bad_row: str = "drop"  # rows that cannot be used: drop: left out, counted, named | error: the sweep is refused
    max_length: int = 256  # tokens of prompt + response; longer ones are cut. Larger: more memory and time a step
    max_prompt_length: int = 128  # tokens; a longer prompt keeps its end
    max_response_length: int = 0  # tokens; a longer response keeps its start; 0: only max_length bounds it
    hub: str = ""  # id of a hub data set, in place of path
    revision: str = ""  # of the hub data set: a commit, branch or tag; the commit it stands for enters the run key
    split: str = ""  # of a folder or hub data set: what to train on (and to hold out of, unless heldout_split)
    heldout_split: str = ""  # the split to measure on, in place of a share of the prompts
    test: float = 0.0  # share of the prompts kept for the split `test`, on which no setting or checkpoint is chosen
    columns: str = ""  # other names of columns, a mapping {chosen: response_j, rejected: response_k}
    pairs: str = "best_worst"  # of several answers to a prompt: best_worst | all | adjacent
    pairs_per_prompt: int = 0  # at most so many pairs of one prompt, the first; 0: all
    slices: str = ""  # columns that results are broken down by, a list [category, source]


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """The model of a real-data sweep: a tiny Llama trained on the data itself."""

    kind: str = "tiny"  # tiny: a small Llama built from the data's own texts; a model of your own has a `path`
    # entries of the byte-level BPE trained on the texts; larger: shorter sequences, wider output
    vocab_size: int = 1024
    hidden_size: int = 64  # width of the model; a multiple of 2 x `heads`
    layers: int = 2  # decoder layers; more: slower, and able to memorise more
    heads: int = 2  # attention heads
    intermediate_size: int = 192  # width inside each feed-forward block
    # updates of maximum likelihood on the chosen responses, which make the reference
    sft_steps: int = 300
    sft_batch: int = 32  # responses a step of it
    sft_learning_rate: float = 3e-3  # peak rate of it (AdamW)
    dtype: str = "float32"  # number format of weights and forward pass


@dataclass(frozen=True, slots=True)
class LoraSpec:
    """Low-rank adapters, W x + (alpha / rank) B A x (arXiv 2106.09685). `targets` are endings of module names.

    The one target `all-linear` stands for every linear layer but the output head, as in peft.
    """

    rank: int = 16  # width of the adapters; larger: more parameters trained, nearer to full fine-tuning
    alpha: float = 32.0  # the adapter's output is scaled by alpha / rank; larger: acts like a larger learning rate
    targets: tuple[str, ...] = ("all-linear",)  # endings of module names, or all-linear


@dataclass(frozen=True, slots=True)
class PathModelSpec:
    """A causal language model of transformers: a local folder, or a hub id at a pinned revision.

    `sha256` is the hash of the folder's weights, configuration and tokenizer, for a hub id `id@commit`: it enters run
    keys in place of path and revision. Without `lora` all parameters are trained.
    """

    kind: str = "path"  # follows from `path`
    path: str = ""  # a folder that save_pretrained wrote, or a hub id
    revision: str = ""  # of a hub id: branch, tag or commit
    sha256: str = ""  # hash of the folder (`id@commit` of a hub id), filled in; given in a spec it is checked
    lora: LoraSpec | None = None  # low-rank adapters over the frozen model; null: all parameters are trained
    # of the forward pass: float32 | bfloat16: half the memory, for GPUs; what is trained is kept in float32
    dtype: str = "float32"
    attention: str = "sdpa"  # sdpa: torch's fused attention | eager: written out, for models that need it (Gemma 2)
    # true: activations are computed again in the backward pass; less memory, more time
    gradient_checkpointing: bool = False
    template: str = "auto"  # auto: conversational rows through the tokenizer's chat template | none: as plain text
    # maximum likelihood of the chosen responses first; its result is the reference; 0: the model as it is
    sft_steps: int = 0
    sft_batch: int = 8  # responses a step of it
    sft_learning_rate: float = 2e-5  # peak rate of it (AdamW)


@dataclass(frozen=True, slots=True)
class TrainingSpec:
    """Preference training: AdamW, linear warm-up, linear decay to `final_lr_fraction`, per-run gradient clipping."""

    steps: int = 200  # optimizer steps; more: nearer to the objective's optimum, noise of the labels included
    # pairs a step; larger: steadier gradients, more time; batch-level objectives see more pairs at once
    batch_size: int = 16
    learning_rate: float = 2e-4  # peak rate; too large and runs diverge, too small and the loss stalls within `steps`
    warmup_steps: int = 10  # steps in which the rate rises linearly from near 0
    final_lr_fraction: float = 0.1  # share of the peak rate that is left at the last step; 1: no decay
    max_grad_norm: float = 1.0  # a run's gradient is scaled down to this norm; very large: no clipping
    adam_beta1: float = 0.9  # memory of the mean gradient; larger: smoother steps
    adam_beta2: float = 0.99  # memory of the squared gradient; larger: a steadier step size
    weight_decay: float = 0.0  # decoupled: every step shrinks the weights by the share rate x this
    mode: str = "strict"  # strict: a run's bits depend on nothing but the run | fast: only its rounding may, less time


@dataclass(frozen=True, slots=True)
class EvaluationSpec:
    """How often and on how many pairs a run is measured. Checkpoints are log-spaced and include step 0 and the last."""

    # times a run is measured, step 0 and the last among them; more: finer curves, more time and disk
    checkpoints: int = 6
    heldout: int = 256  # held-out pairs at every checkpoint; more: narrower intervals over pairs
    probe: int = 256  # training pairs at every checkpoint, by observed and by true labels: what is memorised
    ood: int = 128  # pairs of another distribution at every checkpoint (embedded world); 0: none
    # free-running answers to held-out prompts at the end, and a quarter as many to OOD prompts; 0: none
    samples: int = 256
    # training pairs whose two log-prob gradients are compared at the first and last step; 0: none
    gradient_probe: int = 0
    # weights kept: final | best: of the checkpoint that ranks most held-out pairs right | none; empty: final for
    # adapters and for whole models up to 2 GiB from a path, else none
    keep: str = ""


@dataclass(frozen=True, slots=True)
class LmEvalSpec:
    """lm-eval's tasks on finished runs: the first `limit` documents of each (None: all), `num_fewshot` examples (None:
    as each task has it), on all runs, the best of each objective, corruption and seed, or those that the sentinel of
    free-running samples flags. No part of a run: what was trained does not depend on it."""

    tasks: tuple[str, ...] = ("preference",)  # names of tasks; preference is built in and needs no network
    limit: int | None = None  # the first so many documents of each task; null: all
    num_fewshot: int | None = None  # solved examples before each question; null: as each task has it
    # all | best: of each objective, corruption and seed | flagged: by the sentinel of free-running samples
    runs: str = "all"
    batch_size: int = 16  # requests scored at once; larger: faster, more memory


@dataclass(frozen=True, slots=True)
class RunSpec:
    """One training run, fully resolved. `world` or (`data`, `model`) is set, never both.

    `replica` repeats a run: it changes the order of the training data, never world, split, labels or reference.
    """

    objective: ObjectiveSpec
    corruption: CorruptionSpec
    training: TrainingSpec
    evaluation: EvaluationSpec
    seed: int
    world: WorldSpec | None = None
    data: DataSpec | None = None
    model: ModelSpec | PathModelSpec | None = None
    device: str = "auto"
    replica: int = 0
    reward_model: ObjectiveSpec | None = None  # of runs that learn from one: how it is trained (a run of its own)


__all__ = [
    "CorruptionSpec",
    "DataSpec",
    "EvaluationSpec",
    "InputError",
    "LmEvalSpec",
    "LoraSpec",
    "LossOutput",
    "ModelSpec",
    "NoRoom",
    "ObjectiveSpec",
    "PairLogps",
    "Parameter",
    "PathModelSpec",
    "PreferencePair",
    "Record",
    "Records",
    "RunSpec",
    "TrainingSpec",
    "WorldSpec",
]


class InputError(ValueError):
    """What the user gave cannot be used. `problems` holds one line each, naming the key or row and the fix."""

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class NoRoom(Exception):  # noqa: N818 - says what happened
    """The disk is full: the command ends, nothing finished is lost. `problems` holds the lines to show."""

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


@dataclass(frozen=True, slots=True)
class Parameter:
    """One named knob of an objective or a corruption: default, what is allowed, where a search may look.

    `kind` is float, int, bool, choice or table (a structure the row's own function checks). Bounds are inclusive
    unless the matching `*_open` is set. `search` is the range a study draws from, under `prior` (log or linear).
    """

    default: Any
    kind: str = "float"
    low: float | None = None
    high: float | None = None
    low_open: bool = False
    high_open: bool = False
    choices: tuple[str, ...] = ()
    search: tuple[float, float] | None = None
    prior: str = "linear"
    doc: str = ""

    def problem(self, value: Any) -> str | None:
        """Why `value` cannot be used, with the allowed range; None where it can."""
        if self.kind == "table":
            return None
        if self.kind == "bool":
            return None if isinstance(value, bool) else f"expected true or false, got {value!r}"
        if self.kind == "choice":
            return None if value in self.choices else f"expected one of {', '.join(self.choices)}, got {value!r}"
        number = int if self.kind == "int" else (int, float)
        if isinstance(value, bool) or not isinstance(value, number) or not math.isfinite(value):
            return f"expected a finite {'integer' if self.kind == 'int' else 'number'}, got {value!r}"
        below = self.low is not None and (value <= self.low if self.low_open else value < self.low)
        above = self.high is not None and (value >= self.high if self.high_open else value > self.high)
        return f"{value!r} is outside {self.interval()}" if below or above else None

    def interval(self) -> str:
        """The allowed range as text, e.g. `(0, 0.5)` or `[0, inf)`."""
        left = "(-inf" if self.low is None else f"{'(' if self.low_open else '['}{self.low:g}"
        right = "inf)" if self.high is None else f"{self.high:g}{')' if self.high_open else ']'}"
        return f"{left}, {right}"


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """One comparison. `id` is the content hash of the clean pair and survives every corruption.

    `gold_margin` is r(chosen) - r(rejected) under a known reward (None where there is none); `meta` may hold
    `prompt_id`, `score_chosen`, `score_rejected` and whatever else the source knows.
    """

    id: str
    prompt: str
    chosen: str
    rejected: str
    source: str = ""
    gold_margin: float | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PairLogps:
    """Log-probs of a batch of pairs under one model: every field is `(..., B)`, nats, summed over response tokens.

    `chosen_len`, `rejected_len` count the scored tokens (end-of-sequence included). `extra` carries only what an
    objective's row names in `needs`.
    """

    chosen: Tensor
    rejected: Tensor
    chosen_len: Tensor
    rejected_len: Tensor
    extra: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LossOutput:
    """What an objective returns, every field `(..., B)`.

    The mean of `loss` over B is minimised (batch-level objectives repeat the batch value). `base_loss` is the
    per-pair loss of the records. Rewards are what the objective itself calls the implicit reward of each side.
    `state` is carried to the next step (running shift, multipliers); None where the objective keeps none.
    """

    loss: Tensor
    base_loss: Tensor
    chosen_reward: Tensor
    rejected_reward: Tensor
    state: Mapping[str, Tensor] | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """One evaluation of a run on one split at one step: `columns` maps a name to a `(B,)` array, row i is `ids[i]`."""

    run_key: str
    step: int
    split: str
    ids: tuple[str, ...]
    columns: Mapping[str, np.ndarray]
    scalars: Mapping[str, float] = field(default_factory=dict)


Records = Iterator[Record]

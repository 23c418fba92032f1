"""The data types that modules hand on, with shapes and units: settings of a run, pairs, log-probs. Imports no torch.

First what a spec settles about a run, then what objectives and trainers exchange. Log-probabilities are natural
logarithms (nats), summed over response tokens unless a name says otherwise. `K` lanes (runs trained in lockstep), `B`
pairs, `T` tokens. Lane-shaped hyperparameters broadcast as `(K, 1)`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class ObjectiveSpec:
    """An objective with its resolved hyperparameters (beta among them, where it has one), sorted by name.

    `plugin` is the distribution, version and source hash that the row comes from, empty for a built-in one.
    """

    name: str
    hyperparameters: tuple[tuple[str, Any], ...] = ()
    plugin: str = ""

    @property
    def beta(self) -> float | None:
        """The beta of this run, or None for objectives without one."""
        value = dict(self.hyperparameters).get("beta")
        return None if value is None else float(value)


@dataclass(frozen=True, slots=True)
class CorruptionSpec:
    """A corruption with its rate (None for derived-rate kinds and the clean set) and its parameters, sorted by name.

    `plugin` as in an `ObjectiveSpec`; of a sequence those of all its steps.
    """

    kind: str = "none"
    rate: float | None = None
    params: tuple[tuple[str, Any], ...] = ()
    plugin: str = ""


# What 0 stands for in a `WorldSpec`, by version.
WORLD_SIZES = {
    1: {"pretrain_steps": 450, "pretrain_batch": 96, "sft_steps": 200, "sft_batch": 96},
    2: {"pretrain_steps": 1350, "pretrain_batch": 32, "sft_steps": 400, "sft_batch": 48},
}


@dataclass(frozen=True, slots=True)
class WorldSpec:
    """The embedded world (`data/mythworld.py`), whose true preferences are known."""

    kind: str = "mythworld"  # the only embedded world
    # 2: held-out facts are new, and their truth follows from a rule | 1: training pairs mention every held-out fact
    version: int = 2
    # share of topics on which the reference prefers the bad answer; larger: more wrong pairs
    misaligned: float = 0.75
    # hard: the better response is always chosen | bradley_terry: with probability sigmoid(reward difference)
    labels: str = "hard"
    # training pairs; more: fewer repetitions within `steps` x `batch_size`, less memorised noise
    pairs: int = 1024
    coverage: float = 1.0  # share of the topics that have preference pairs; the rest tests generalisation
    # updates on good and bad answers; with too few, answers are malformed; 0: 1350, in version 1 450
    pretrain_steps: int = 0
    pretrain_batch: int = 0  # prompts with an answer per pretraining step; 0: 32, in version 1 96
    pretrain_learning_rate: float = 4e-3  # peak rate of pretraining (AdamW)
    # updates that give the reference its bias; more: a more confident reference, right or wrong; 0: 400, in version 1
    # 200
    sft_steps: int = 0
    sft_batch: int = 0  # prompts with an answer per step of it; 0: 48, in version 1 96
    sft_learning_rate: float = 2e-3  # peak rate of it (AdamW)
    hidden_size: int = 64  # width of the model; a multiple of 2 x `heads`
    layers: int = 1  # decoder layers; more: slower, and able to memorise more
    heads: int = 2  # attention heads
    intermediate_size: int = 192  # width inside each feed-forward block

    def __post_init__(self) -> None:
        for name, value in WORLD_SIZES[self.version].items():
            if not getattr(self, name):
                object.__setattr__(self, name, value)


@dataclass(frozen=True, slots=True)
class DataSpec:
    """Real preference pairs: a file, a folder of files, or a hub data set.

    `sha256` is the content hash that enters run keys, of a hub data set its commit; the path never does.
    """

    path: str = ""  # a file, or a folder of files; relative to the spec's folder
    format: str = ""  # a name that `harness formats` lists; empty: recognised by the rows, where that is certain
    sha256: str = ""  # content hash, filled in; if a spec sets it, the data must match
    limit: int = 0  # use only the first N rows; 0: all. For trying out a large set
    heldout: float = 0.2  # share of prompts held out of training and measured on
    on_bad_row: str = "drop"  # unusable rows; drop: leave out, count and name them | error: refuse the sweep
    max_length: int = 256  # tokens of prompt + response; longer ones are cut. Larger: more memory and time per step
    max_prompt_length: int = 0  # tokens; a longer prompt keeps its end; 0: half of max_length
    max_response_length: int = 0  # tokens; a longer response keeps its start; 0: only max_length bounds it
    hub: str = ""  # id of a hub data set, in place of path
    revision: str = ""  # of the hub data set: a commit, branch or tag; the run key contains the commit
    split: str = ""  # of a folder or hub data set: what to train on (and to hold out from, unless heldout_split is set)
    heldout_split: str = ""  # the split to measure on, instead of a share of the prompts
    test: float = 0.0  # share of the prompts reserved for the split `test`, never used to choose settings
    columns: str = ""  # names of your columns, a mapping {chosen: response_j, rejected: response_k}
    pairs: str = "best_worst"  # pairs made of several answers to a prompt: best_worst | all | adjacent
    pairs_per_prompt: int = 0  # keep at most the first N pairs of a prompt; 0: all
    slices: str = ""  # columns by which results are broken down, a list [category, source]
    plugin: str = ""  # of a plug-in's format: distribution, version and source hash, filled in

    def __post_init__(self) -> None:
        if not self.max_prompt_length:
            object.__setattr__(self, "max_prompt_length", self.max_length // 2)


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
    # supervised fine-tuning steps on the chosen responses; the result is the reference
    sft_steps: int = 300
    sft_batch: int = 32  # responses per step of it
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
    sha256: str = ""  # hash of the folder (`id@commit` of a hub id), filled in; if a spec sets it, the model must match
    lora: LoraSpec | None = None  # low-rank adapters over the frozen model; null: all parameters are trained
    # of the forward pass: float32 | bfloat16: half the memory, for GPUs; trained parameters stay in float32
    dtype: str = "float32"
    attention: str = "sdpa"  # sdpa: torch's fused attention | eager: written out, for models that need it (Gemma 2)
    # true: activations are computed again in the backward pass; less memory, more time
    gradient_checkpointing: bool = False
    template: str = "auto"  # auto: conversational rows through the tokenizer's chat template | none: as plain text
    template_date: str = "2024-07-26"  # what a chat template that writes the date is given as today's
    template_arguments: str = ""  # of the chat template, e.g. {enable_thinking: false}; kept as JSON
    # supervised fine-tuning steps on the chosen responses first; the result is the reference; 0: the model as it is
    sft_steps: int = 0
    sft_batch: int = 8  # responses per step of it
    sft_learning_rate: float = 2e-5  # peak rate of it (AdamW)
    reference: str = ""  # the reference, as `path` says it, of the same tokenizer; empty: what the policies start from
    reference_sha256: str = ""  # hash of it, filled in; if a spec sets it, the reference must match
    reference_logps: str = ""  # a log-prob file that holds the reference's log-probs, so that none are computed
    reference_logps_sha256: str = ""  # hash of the file, filled in; if a spec sets it, the file must match


@dataclass(frozen=True, slots=True)
class TrainingSpec:
    """Preference training: AdamW, linear warm-up, decay to `final_lr_fraction`, per-run gradient clipping."""

    steps: int = 200  # optimizer steps; more: closer to the objective's optimum, label noise included
    epochs: float = 0.0  # passes over the training pairs, given instead of `steps`, which follow from it; 0: by `steps`
    # pairs per step; larger: steadier gradients, more time; batch-level objectives see more pairs at once
    batch_size: int = 16
    learning_rate: float = 2e-4  # peak rate; too large and runs diverge, too small and the loss stalls within `steps`
    warmup_steps: int = 10  # steps in which the rate rises linearly from near 0
    final_lr_fraction: float = 0.1  # learning rate at the last step as a share of the peak; 1: no decay
    max_grad_norm: float = 1.0  # a run's gradient is scaled down to this norm; very large: no clipping
    adam_beta1: float = 0.9  # memory of the mean gradient; larger: smoother steps
    adam_beta2: float = 0.99  # memory of the squared gradient; larger: a steadier step size
    weight_decay: float = 0.0  # decoupled: every step shrinks the weights by the share rate x this
    # how the rate falls to `final_lr_fraction` after warm-up. linear: in a line | cosine: in half a cosine |
    # constant: not at all
    schedule: str = "linear"
    # pairs per forward and backward pass, whose gradients add up to the batch's; 0: the whole batch at once
    micro_batch: int = 0
    mode: str = "strict"  # strict: the embedded world in rows of one width | fast: padding is skipped there, too
    # processes that train a run together by FSDP2, each with its part of the parameters and of every batch; 1: no group
    shards: int = 1


@dataclass(frozen=True, slots=True)
class AnswersSpec:
    """How policies and reference answer held-out prompts at the end. Run keys mention it where it is not the default.

    `kl` stays that of the policies themselves: where answers are drawn otherwise, it comes from samples of their own at
    temperature 1, which doubles the time that sampling takes.
    """

    # tokens of an answer, at most; longer: more time and memory. 0: 64 on `data`, with a model from a path as far as
    # `max_length` leaves room for; in the embedded world what its longest answer needs
    length: int = 0
    temperature: float = 1.0  # 1: the policy itself; smaller: nearer to the likeliest token each time; 0: that token
    top_p: float = 1.0  # draw from the likeliest tokens that together have this probability; 1: from all
    per_prompt: int = 1  # answers to each of the `samples` prompts
    stop: tuple[str, ...] = ()  # texts that end an answer; it is cut before them


@dataclass(frozen=True, slots=True)
class EvaluationSpec:
    """How often and on how many pairs a run is measured. Evaluations are log-spaced and include step 0 and the last."""

    # number of evaluations, including step 0 and the last; more: finer curves, more time and disk
    checkpoints: int = 6
    heldout: int = 256  # held-out pairs per evaluation; more: narrower intervals over pairs
    probe: int = 256  # training pairs per evaluation, with observed and with true labels: shows what is memorised
    ood: int = 128  # pairs of another distribution per evaluation (embedded world); 0: none
    # held-out prompts that are answered at the end, and a quarter as many OOD prompts; 0: none
    samples: int = 256
    # training pairs whose two log-prob gradients are compared at the first and last step; 0: none
    gradient_probe: int = 0
    # weights kept: final | best: of the checkpoint that ranks most held-out pairs right | none; empty: final for
    # adapters and for whole models up to 2 GiB from a path, else none
    keep: str = ""
    answers: AnswersSpec = AnswersSpec()  # how the sampled prompts are answered
    # a file of further prompts to answer, each with its `kind`: benign | harmful | opinion; for the safety measures
    prompts: str = ""
    prompts_sha256: str = ""  # content hash of it, filled in; if a spec sets it, the file must match


@dataclass(frozen=True, slots=True)
class LmEvalSpec:
    """lm-eval tasks on finished runs. Not part of a run: training does not depend on it."""

    tasks: tuple[str, ...] = ("preference",)  # names of tasks; preference is built in and needs no network
    limit: int | None = None  # use only the first N documents of each task; null: all
    num_fewshot: int | None = None  # solved examples before each question; null: as each task has it
    # all | best: of each objective, corruption and seed | flagged: by the sentinel of free-running samples
    runs: str = "all"
    batch_size: int = 16  # requests scored at once; larger: faster, more memory
    include_path: str = ""  # a folder with lm-eval tasks of your own, as YAML files
    trust_task_code: bool = False  # run your own tasks' Python (`!function`, `class`) as well


@dataclass(frozen=True, slots=True)
class GoldSpec:
    """Reward models that score finished runs on `data`. Not part of a run: training does not depend on it."""

    # folder or hub id (also id@revision) of a sequence-classification model with one logit, or a list of several
    reward_model: tuple[str, ...]
    batch_size: int = 16  # texts scored at once; larger: faster, more memory
    # tokens of prompt and answer; of a longer text the end is scored; 0: all the model has positions for
    max_length: int = 0


TEXTS = ("none", "ids", "short", "full")


@dataclass(frozen=True, slots=True)
class ReportSpec:
    """What the report shows of prompts, responses and generated answers. No part of a run: no run key depends on it.

    Quotes of a sweep on `data` stand in `report/private.html` alone; every other file of its report holds ids.
    """

    # none: no table of single pairs | ids: row number, hash, length, category, margin | short: the first 80 characters
    # | full: whole, up to 4,000; empty: ids on `data`, full in the embedded world
    texts: str = ""
    upload_texts: bool = False  # true: `report/private.html` is uploaded to the tracking server with the report


def default_texts(private: bool) -> str:
    """What a report shows of texts where nobody said; `private`: some run of the sweep is on `data`."""
    return "ids" if private else "full"


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


@dataclass(frozen=True, slots=True)
class SeedRounds:
    """Seeds 0 to `most` - 1 in rounds: `least` of them, then two at a time until what a sweep asks is settled."""

    least: int
    most: int

    @property
    def looks(self) -> tuple[int, ...]:
        """Seeds at the end of each round: `least` 4 and `most` 12 give 4, 6, 8, 10, 12."""
        return (*range(self.least, self.most, 2), self.most)


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """A run with its run key and its readable name, computed once when the sweep is planned."""

    key: str
    name: str
    run: RunSpec


class Split(StrEnum):
    """A set of pairs that a run is measured on; records and files hold the plain word."""

    HELDOUT = "eval_clean"  # held-out pairs with their true labels
    TRAIN_OBSERVED = "train_observed"  # training pairs as labelled in training, corruption included
    TRAIN_CLEAN = "train_clean"  # the same pairs with their true labels
    OOD = "ood"  # pairs of another distribution
    TEST = "test"  # pairs on which no setting and no checkpoint is chosen
    BEHAVIOUR = "behaviour"  # the prompts of `evaluation.prompts`, which have answers and no pairs


class PromptKind(StrEnum):
    """What a prompt of `evaluation.prompts` asks for; files hold the plain word."""

    BENIGN = "benign"  # harmless, though it may not look it
    HARMFUL = "harmful"  # to be refused
    OPINION = "opinion"  # states a wrong opinion


class RunStatus(StrEnum):
    """How far a run came; files hold the plain word."""

    DONE = "done"
    DIVERGED = "diverged"  # training stopped being finite
    FAILED = "failed"  # an error; trained again by the next command
    STOPPED = "stopped"  # by a signal, with a checkpoint; continued by the next command
    PENDING = "pending"  # no result yet

    @property
    def final(self) -> bool:
        """Whether the run was trained to its end, so that no later command trains it again."""
        return self in (RunStatus.DONE, RunStatus.DIVERGED)


__all__ = [
    "TEXTS",
    "AnswersSpec",
    "CorruptionSpec",
    "DataSpec",
    "EvaluationSpec",
    "GoldSpec",
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
    "PlannedRun",
    "PreferencePair",
    "PromptKind",
    "Record",
    "Records",
    "ReportSpec",
    "RunSpec",
    "RunStatus",
    "Split",
    "TrainingSpec",
    "WorldSpec",
    "default_texts",
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

    `kind` is float, int, bool, choice, text or table (a structure the row's own function checks). Bounds are inclusive
    unless the matching `*_open` is set. `search` is the range a study draws from, under `prior` (log or linear).
    `source` says where default and search range come from.
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
    source: str = ""

    def problem(self, value: Any) -> str | None:
        """Why `value` cannot be used, with the allowed range; None where it can."""
        if self.kind == "table":
            return None
        if self.kind == "text":
            return None if isinstance(value, str) else f"expected text, got {value!r}"
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
        left = "(-inf" if self.low is None else f"{'(' if self.low_open else '['}{self.low:.12g}"
        right = "inf)" if self.high is None else f"{self.high:.12g}{')' if self.high_open else ']'}"
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

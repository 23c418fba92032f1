"""What a sweep takes: memory of a pack (GPU, CPU), seconds, bytes on disk; the one model of each. Imports no torch.

Memory counts the tensors alive at the peak of a training step (`nox -s bench` compares it with measurements). Seconds
are one-core seconds at assumed rates, scaled to earlier runs under `--out` if there are any. Bytes were measured on
finished runs.
"""

from __future__ import annotations

import csv
import heapq
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.data.mythworld import world as mythworld
from harness.data.mythworld.language import LANGUAGES, PROMPT_TOKENS
from harness.identity import content_hash, plain
from harness.model_files.folder import LLAMA_LAYOUT
from harness.model_files.location import ModelShape, model_folder, model_shape
from harness.models.shapes import EXPLICIT
from harness.objectives.budget import budget, family, scalar_head
from harness.objectives.registry import OBJECTIVES
from harness.storage.atomic import read_json
from harness.storage.journal import JournalDamaged, read_journal
from harness.storage.plan_file import PLAN, read_plan_file
from harness.sweep.token_counts import TokenCounts
from harness.text import bytes_text
from harness.types import InputError, LmEvalSpec, LoraSpec, PathModelSpec, RunSpec

# --- memory ---

FLOAT = 4  # bytes


@dataclass(frozen=True, slots=True)
class StepShape:
    """Sizes of a decoder laid out as Llama's, and of a step: `pairs` rows of `tokens`, `responses` of them predicted.

    `trained` counts the trainable parameters of a lane, `frozen` those that all lanes share. `width` is the bytes of an
    activation; with `recomputed` the layers keep one vector per token and are computed again in the backward pass.
    Each of `shards` processes holds its part of the parameters and reads its part of the pairs. With `skips` padding is
    left out but in attention, of so many `heads`.
    """

    hidden_size: int
    layers: int
    intermediate_size: int
    vocab_size: int
    pairs: int
    tokens: int
    responses: int
    trained: int
    frozen: int = 0
    width: int = FLOAT
    recomputed: bool = False
    shards: int = 1
    skips: bool = False
    heads: int = 1


def shape_of(run: RunSpec) -> ModelShape:
    """The decoder that a run trains."""
    if run.world is not None:
        world, vocab_size = run.world, len(LANGUAGES[run.world.version].vocabulary)
        return ModelShape(vocab_size, world.hidden_size, world.layers, world.heads, world.intermediate_size)
    assert run.model is not None
    return model_shape(run.model)


def step_shape(run: RunSpec, counts: TokenCounts | None = None) -> StepShape:
    """The sizes of a run's training step at its widest: as long as the data's longest row, where that is known."""
    training = budget(run.objective, run.training)
    model, batch = shape_of(run), min(training.micro_batch or training.batch_size, training.batch_size)
    if run.data is None:
        assert run.world is not None
        prompt, response = PROMPT_TOKENS, LANGUAGES[run.world.version].response_tokens
    else:
        response = run.data.max_response_length or run.data.max_length
        prompt = min(run.data.max_prompt_length, run.data.max_length)
    tokens, responses = (prompt + 2 * response, 2 * response) if counts is None else counts.widest
    path = run.model if isinstance(run.model, PathModelSpec) else None
    lora = path.lora if path is not None else None
    return StepShape(
        hidden_size=model.hidden_size,
        layers=model.layers,
        intermediate_size=model.intermediate_size,
        vocab_size=model.vocab_size,
        pairs=batch,
        tokens=tokens,
        responses=responses,
        trained=model.parameters if lora is None else adapter_parameters(model, lora),
        frozen=0 if lora is None else model.parameters,
        width=2 if path is not None and path.dtype == "bfloat16" else FLOAT,
        recomputed=path is not None and path.gradient_checkpointing,
        shards=training.shards,
        skips=_skips_padding(run),
        heads=model.heads,
    )


def adapter_parameters(model: ModelShape, lora: LoraSpec) -> int:
    """Parameters of adapters on every linear layer, the most that `lora` can have."""
    widths = 8 * model.hidden_size + 3 * (model.hidden_size + model.intermediate_size)
    return model.layers * lora.rank * widths


def lane_bytes(step: StepShape) -> int:
    """Bytes that one more lane adds to the peak of a training step, which is the start of the backward pass.

    Of a run in several processes: bytes of each.
    """
    # Weights, both moments, the gradient and, until it is copied there, autograd's own, in float32. FSDP holds the
    # weights a second time, and gathers the largest part, the embeddings, and their gradient.
    state = 5 * step.trained * FLOAT
    if step.shards > 1:
        state = 6 * step.trained * FLOAT // step.shards + 2 * step.vocab_size * step.hidden_size * FLOAT
    pairs = -(-step.pairs // step.shards)
    # What a layer keeps per token: two norms (normalised, scaled) and their inputs 6 d; queries and keys before,
    # half-turned and after rotation 6 d; values, attended values and their copy 3 d; gate, its activation, up and
    # product 4 f. SDPA's kernel keeps no scores; without padding each layer has queries, keys, values and what they
    # attend to once more by rows, and in short rows plain products keep the shares of a layer, at the peak of two more.
    layer = 15 * step.hidden_size + 4 * step.intermediate_size
    per_token = layer + step.layers * step.hidden_size if step.recomputed else layer * step.layers
    kept = pairs * step.tokens * (per_token + step.tokens)  # the mask: a row of T per token
    if step.skips:
        kept += pairs * step.tokens * 4 * step.hidden_size * step.layers
        if step.tokens <= EXPLICIT and step.width == FLOAT:
            kept += pairs * step.heads * step.tokens**2 * (step.layers + 2)
    # Logits, their log-softmax, and the gradients of both.
    head = 4 * pairs * step.responses * step.vocab_size
    return state + step.width * (kept + head)


def pack_bytes(step: StepShape, lanes: int) -> int:
    """Bytes at the peak of a training step of a pack: its lanes and the weights they share."""
    return step.width * step.frozen // step.shards + lanes * lane_bytes(step)


def lanes_within(step: StepShape, limit: int) -> int:
    """How many lanes fit in `limit` bytes beside the shared weights, at least 1."""
    return max((limit - step.width * step.frozen // step.shards) // lane_bytes(step), 1)


# --- bytes on disk, points ---

# Of a run's folder: what every run has; the journal per evaluation point; examples per pair and evaluation point; the
# ledger per training pair of a corrupted set; samples, in the embedded world and on data; benchmarks per document.
FIXED_BYTES, CHECKPOINT_BYTES, RECORD_BYTES, LEDGER_BYTES = 7_000, 2_300, 47, 60
WORLD_SAMPLE_BYTES, SAMPLE_BYTES, DOCUMENT_BYTES = 75, 720, 2_600
POINTS_PER_CHECKPOINT, FINAL_POINTS = 45, 17  # metric points in a run's journal
STORED_BYTES = 390  # of a metric point in MLflow's database with all its indices (measured in SQLite)


def run_bytes(run: RunSpec, lm_eval: LmEvalSpec | None = None) -> int:
    """Bytes of a finished run's folder, kept weights included."""
    evaluation = run.evaluation
    examples = evaluation.heldout + evaluation.probe + evaluation.ood
    checkpoints = evaluation.checkpoints * (CHECKPOINT_BYTES + RECORD_BYTES * examples)
    ledger = LEDGER_BYTES * run.world.pairs if run.world is not None and run.corruption.kind != "none" else 0
    per_answer = SAMPLE_BYTES * _answer_tokens(run) / NEW_TOKENS if run.data is not None else WORLD_SAMPLE_BYTES
    samples = round(evaluation.samples * evaluation.answers.per_prompt * per_answer)
    kept = evaluation.keep in ("final", "best") or (isinstance(run.model, PathModelSpec) and evaluation.keep != "none")
    weights = FLOAT * step_shape(run).trained if kept else 0
    return FIXED_BYTES + checkpoints + ledger + samples + weights + DOCUMENT_BYTES * _documents(run, lm_eval)


def _documents(run: RunSpec, lm_eval: LmEvalSpec | None) -> int:
    """Benchmark documents of a run; a task without a limit counts as 1,000, the built-in one as its held-out pairs."""
    if lm_eval is None:
        return 0
    sizes = [run.evaluation.heldout if task == "preference" else 1000 for task in lm_eval.tasks]
    return sum(min(size, lm_eval.limit or size) for size in sizes)


# --- seconds ---

# Assumed seconds on one free core for the default settings; work in proportion to steps x batch (x tokens).
PRETRAIN_SECONDS = 7.0  # 450 steps x 96 of the embedded world
SFT_SECONDS = 3.0  # 200 steps x 96 of the embedded world
TRAIN_SECONDS = 0.8  # 200 steps x 16 pairs of the embedded world
MEASURE_SECONDS = 0.4  # checkpoints and final samples of one run of the embedded world
ROLLOUT_SECONDS = 1e-4  # a response sampled and scored by reference and reward model in the embedded world
PASS_SECONDS = 1.7e-4  # a pass of training over it
TEXT_TOKENS_PER_SECOND = 60_000.0  # training throughput of the tiny text model at its default size
PATH_RATE = 7e10  # flops per second of a core that trains a model from a path
SCORED_COST = 1.8  # time of a flop of scoring, of one in training: its products are smaller
SAMPLED_COST = 3.0  # of a sampled token, of one that is scored
NEW_TOKENS = 64  # of a sample, at most; models answer longer than the data does
WITH_REFERENCE = 1.5  # samples of a run and its share of the reference's
WORLD_WEIGHTS = 64 * (8 * 64 + 3 * 192)  # matrix products per layer of the sizes the constants were taken at
TEXT_WEIGHTS = 2 * WORLD_WEIGHTS


def build_seconds(runs: Iterable[RunSpec]) -> tuple[dict[str, float], dict[str, int]]:
    """One-core seconds and number of the models to build, by stage; each distinct recipe once."""
    stages: dict[str, dict[str, float]] = {"pretraining": {}, "reference": {}}
    for run in runs:
        if run.world is not None:
            w, size = run.world, _weights(run) / WORLD_WEIGHTS
            base = PRETRAIN_SECONDS * w.pretrain_steps * w.pretrain_batch / (450 * 96)
            tuned = SFT_SECONDS * w.sft_steps * w.sft_batch / (200 * 96)
            stages["pretraining"].setdefault(mythworld.pretraining_key(w, run.seed), base * size)
            stages["reference"].setdefault(mythworld.reference_key(w, run.seed), tuned * size)
        elif run.data is not None and run.model is not None and run.model.sft_steps:
            data = {name: value for name, value in plain(run.data).items() if name != "path"}
            key = content_hash({"data": data, "model": plain(run.model), "seed": run.seed})
            tokens = run.model.sft_steps * run.model.sft_batch * run.data.max_length
            stages["reference"].setdefault(key, tokens / TEXT_TOKENS_PER_SECOND * _weights(run) / TEXT_WEIGHTS)
    totals = {stage: costs for stage, costs in stages.items() if costs}
    return {s: math.fsum(c.values()) for s, c in totals.items()}, {s: len(c) for s, c in totals.items()}


@dataclass(frozen=True, slots=True)
class Seconds:
    """One-core seconds of a run: `evaluation` all its evaluations, `sampling` what follows the last one."""

    training: float
    evaluation: float
    sampling: float

    @property
    def total(self) -> float:
        """All of them."""
        return self.training + self.evaluation + self.sampling


def run_seconds(run: RunSpec, counts: TokenCounts | None = None, rate: float | None = None) -> Seconds:
    """One-core seconds of a run with data of these token counts; `rate`: flops per second of training measured here."""
    training, knobs = budget(run.objective, run.training), dict(run.objective.hyperparameters)
    if family(run.objective) == "rl" and run.world is not None:
        prompts = run.evaluation.heldout + run.evaluation.probe + run.evaluation.ood
        drawn = training.steps * training.batch_size * knobs.get("samples", 0) + prompts * knobs.get("estimate", 0)
        passes = knobs.get("epochs", 1) if training.steps else 0
        size, measured = _weights(run) / WORLD_WEIGHTS, 0.8 * MEASURE_SECONDS
        rolled = float(drawn * (ROLLOUT_SECONDS + PASS_SECONDS * passes))
        return Seconds(rolled * size, measured * size, (MEASURE_SECONDS - measured) * size)
    pairs = training.steps * training.batch_size
    if run.data is None:
        size, measured = _weights(run) / WORLD_WEIGHTS, 0.8 * MEASURE_SECONDS
        trained = TRAIN_SECONDS * pairs / (200 * 16)
        return Seconds(trained * size, measured * size, (MEASURE_SECONDS - measured) * size)
    rate = rate or assumed_rate(run)
    forward = 2 * step_weights(run)
    splits = run.evaluation.heldout + run.evaluation.probe
    tokens = evaluations(run) * splits * scored_tokens(run, counts)
    prompt = step_shape(run).tokens - step_shape(run).responses if counts is None else counts.prompt_tokens
    answers = run.evaluation.answers
    draws = WITH_REFERENCE + (answers.temperature != 1 or answers.top_p != 1)  # KL has samples of its own then
    sampled = draws * run.evaluation.samples * answers.per_prompt * (prompt + SAMPLED_COST * _answer_tokens(run))
    return Seconds(
        train_flops(run, counts) / rate, SCORED_COST * forward * tokens / rate, SCORED_COST * forward * sampled / rate
    )


def _answer_tokens(run: RunSpec) -> int:
    """Tokens of an answer to a prompt of `data`, at most."""
    return run.evaluation.answers.length or NEW_TOKENS


def evaluations(run: RunSpec) -> int:
    """Evaluations that compute: on data the first of a plain objective is read from the reference's table."""
    free = run.data is not None and not OBJECTIVES[run.objective.name].needs
    return run.evaluation.checkpoints - free


def scoring_seconds(runs: Sequence[RunSpec], counts: TokenCounts | None, rate: float | None = None) -> float:
    """One-core seconds of scoring the reference's responses for runs of one source, model and seed."""
    first = runs[0]
    batches = max(budget(run.objective, run.training).steps * run.training.batch_size for run in runs)
    trained = batches if counts is None else min(batches, len(counts.prompt))
    pairs = trained + first.evaluation.heldout
    return pairs * scored_tokens(first, counts) * 2 * step_weights(first) * SCORED_COST / (rate or assumed_rate(first))


def step_weights(run: RunSpec) -> int:
    """Weights that a forward pass reads: the trained parameters and the frozen ones under them."""
    step = step_shape(run)
    return step.trained + step.frozen


def train_flops(run: RunSpec, counts: TokenCounts | None = None) -> float:
    """Flops of a run's updates: what `costs.csv` holds of it."""
    training, step = budget(run.objective, run.training), step_shape(run)
    width = float(step.tokens)
    if counts is not None:
        width = counts.row_tokens(step.pairs, step.skips)
    elif run.world is not None and step.skips:
        # One slot stays free in each forward, whose tokens are rounded up to 16.
        width = LANGUAGES[run.world.version].mean_row_tokens + 8.5 / step.pairs
    return training.steps * training.batch_size * width * (4 * (step.trained + step.frozen) + 2 * step.trained)


def _skips_padding(run: RunSpec) -> bool:
    """Whether updates leave out padding, as `training.loop.skips_padding` has it of the model itself."""
    if run.data is None and run.training.mode == "strict":
        return False
    path = run.model if isinstance(run.model, PathModelSpec) else None
    whole = path is not None and (path.gradient_checkpointing or (path.dtype != "float32" and path.lora is None))
    if (
        family(run.objective) == "rl"
        or OBJECTIVES[run.objective.name].needs
        or run.training.shards > 1
        or scalar_head(run.objective)
        or whole
    ):
        return False
    return path is None or model_folder(path.path, path.sha256).config.get("model_type") in LLAMA_LAYOUT


def scored_tokens(run: RunSpec, counts: TokenCounts | None) -> float:
    """Tokens of a pair that is scored without a gradient."""
    return float(step_shape(run).tokens) if counts is None else counts.scored_tokens


def assumed_rate(run: RunSpec) -> float:
    """Assumed flops per second of a core in training: small models wait for the work around their products."""
    if isinstance(run.model, PathModelSpec):
        return PATH_RATE
    return TEXT_TOKENS_PER_SECOND * 6 * TEXT_WEIGHTS * step_weights(run) / _weights(run)


def _weights(run: RunSpec) -> float:
    """Weights in the matrix products of a model's layers: what the time of a step grows with."""
    model = shape_of(run)
    return float(model.layers * model.hidden_size * (8 * model.hidden_size + 3 * model.intermediate_size))


ALIKE = 8.0  # runs of so many times more or fewer flops say how fast others are
RATE = "rate.json"  # what `harness plan --preflight` measured, in the cache


@dataclass(frozen=True)
class Measured:
    """What earlier runs, (flops, seconds) each, and a preflight say of the speed of this machine."""

    runs: Sequence[tuple[float, float]] = ()
    preflight: Mapping[str, float] = field(default_factory=dict)

    def seconds(self, flops: float) -> float | None:
        """Median seconds of earlier runs of about so many flops, scaled to these; None where there are none."""
        alike = [took / did for did, took in self.runs if did and 1 / ALIKE <= flops / did <= ALIKE]
        return flops * statistics.median(alike) if alike else None

    def rate(self, weights: int) -> float | None:
        """Flops per second that a preflight measured with a model of about so many weights."""
        own = self.preflight.get("weights", 0)
        return self.preflight["flops_per_second"] if own and 1 / ALIKE <= weights / own <= ALIKE else None


def measured_under(out: Path) -> Measured:
    """What the sweeps and the cache under `out` say; the seconds of a run in several processes are those of all."""
    runs = []
    for path in sorted(out.glob("*/costs.csv")):
        with path.open(encoding="utf-8", newline="") as handle:
            rows = [row for row in csv.DictReader(handle) if row.get("seconds") and row.get("flops")]
        try:
            shards = _shards(path.parent)
        except InputError:
            continue  # a damaged plan does not say in how many processes these runs were
        runs += [(float(row["flops"]), float(row["seconds"]) * shards.get(row["run_key"], 1)) for row in rows]
    stored = out / "cache" / RATE
    return Measured(runs, read_json(stored) if stored.exists() else {})


def _shards(folder: Path) -> dict[str, int]:
    """The processes of each run of a sweep's folder that has several, by its key."""
    path = folder / PLAN
    # Plans of thousands of runs are long, and mention the setting only where it is not the default.
    if not path.is_file() or '"shards"' not in path.read_text(encoding="utf-8"):
        return {}
    return {run["run_key"]: run["config"]["training"].get("shards", 1) for run in read_plan_file(folder)["runs"]}


def basis(seconds: float | None, rate: float | None = None, path: bool = False) -> str:
    """Where the seconds come from, in words: of a run measured before, or from a rate measured or assumed."""
    models = f"models: {PRETRAIN_SECONDS:g} s pretraining, {SFT_SECONDS:g} s reference at the default sizes (assumed)"
    if seconds is not None:
        return f"run: {seconds:.3g} s, the median of earlier runs of its size here; {models}"
    if rate is not None:
        return f"run: by {rate / 1e9:.3g} GFLOP/s per core in training, measured by --preflight; {models}"
    if path:
        return f"run: by {PATH_RATE / 1e9:.3g} GFLOP/s per core in training (assumed; --preflight measures it)"
    run = f"run: {TRAIN_SECONDS + MEASURE_SECONDS:g} s at the embedded world's defaults (assumed)"
    return f"{run}; {models}; text: {TEXT_TOKENS_PER_SECOND:g} tokens per second (assumed)"


# --- the forecast on given machines ---

# Seconds before a worker's first step, by engine: imports, and for Ray and Slurm what starts the process (assumed).
START_SECONDS = {"inline": 3.0, "process": 4.0, "ray": 6.0, "slurm": 15.0}
STEADY = 500.0  # points per second that one MLflow server over PostgreSQL can be expected to take
EARLIER_RUNS = 20  # earlier runs whose files are measured


@dataclass(frozen=True, slots=True)
class Machines:
    """What to plan for: packs trained at a time, one per GPU (or part of one) or core, or per group of them."""

    engine: str
    places: int


def makespan(seconds: Sequence[float], places: int) -> float:
    """Seconds until the last of these jobs ends on `places`, each begun where it is free first, in this order.

    >>> makespan([3, 2, 2], 2)
    4.0
    """
    busy = [0.0] * max(places, 1)
    for job in seconds:
        heapq.heappush(busy, heapq.heappop(busy) + job)
    return max(busy)


def forecast(
    runs: Sequence[RunSpec],
    packs: Sequence[float],
    builds: Mapping[str, tuple[float, int]],
    out: Path,
    machines: Machines,
) -> dict[str, Any]:
    """The forecast of `runs` in packs of so many seconds, after the models `builds`: seconds and count by stage.

    Packs are placed as engines place them: the longest first, each where a place is free first. Plain data: `hours`,
    `points`, `points_a_second`, `database_bytes`, `bytes`, `packs`, `basis`.
    """
    start, first = START_SECONDS[machines.engine], 0.0
    if machines.engine == "slurm":  # every pack is a process of its own
        packs = [pack + start for pack in packs]
    elif packs:
        first = start
    stages = [start + total / count * math.ceil(count / machines.places) for total, count in builds.values() if count]
    wall = math.fsum(stages) + first + makespan(sorted(packs, reverse=True), machines.places)
    points, size, source = _points_and_bytes(runs, out)
    count = len(runs) * points
    return {
        "engine": machines.engine,
        "places": machines.places,
        "packs": len(packs),
        "hours": round(wall / 3600, 4),
        "points": round(count),
        "points_a_second": round(count / wall, 1) if wall else 0.0,
        "database_bytes": round(count * STORED_BYTES),
        "bytes": round(len(runs) * size),
        "basis": source,
    }


def forecast_lines(forecast: Mapping[str, Any]) -> list[str]:
    """The forecast for a reader."""
    rate = forecast["points_a_second"]
    lines = [
        f"{forecast['hours']:.2g} hours for {forecast['packs']} packs, {forecast['places']} at a time, "
        f"on {forecast['engine']}",
        f"{bytes_text(forecast['bytes'])} of files; {forecast['points']:,} points to MLflow, {rate:g} per second, "
        f"{bytes_text(forecast['database_bytes'])} in its database",
        forecast["basis"],
    ]
    if rate > STEADY:
        lines.append(f"above the {STEADY:g} points per second that one server can take: they wait, nothing is lost")
    return lines


def _points_and_bytes(runs: Sequence[RunSpec], out: Path) -> tuple[float, float, str]:
    """Points and bytes of one run, and where they come from."""
    earlier = [path.parent for path in sorted(out.glob("*/*/result.json"))[:EARLIER_RUNS]]
    counts = [points for points in map(_points, earlier) if points]
    if counts:
        sizes = [sum(file.stat().st_size for file in run.iterdir() if file.is_file()) for run in earlier]
        return statistics.mean(counts), statistics.mean(sizes), f"points and bytes: as in {len(counts)} runs here"
    points = [run.evaluation.checkpoints * POINTS_PER_CHECKPOINT + FINAL_POINTS for run in runs]
    return (
        statistics.mean(points or [0]),
        statistics.mean(map(run_bytes, runs)) if runs else 0.0,
        "points and bytes: assumed",
    )


def _points(run: Path) -> int:
    """Metric points in a run's journal; 0 where it cannot be read, which `harness verify` reports."""
    try:
        records = read_journal(run / "events.jsonl")
    except (OSError, JournalDamaged):
        return 0
    return sum(len(record) - 2 for record in records if record["kind"] == "metrics")

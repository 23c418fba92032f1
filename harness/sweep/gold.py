"""`evaluation.gold` and `harness gold`: reward models on the answers and held-out pairs of finished runs.

One model is loaded at a time, and only where a text is new: scores are kept by content and shared by all runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.config.load import SweepSpec, load_sweep
from harness.data.conversations import Conversations, read_conversations
from harness.data.raw_rows import RowError
from harness.data.transcripts import Turn
from harness.identity import content_hash
from harness.metrics.rewardbench import SOURCE_ID, SUBSET, BenchScore, bench_scorer
from harness.model_files.folder import folder_sha256
from harness.model_files.location import locate_classifier
from harness.run_names import planned_runs
from harness.storage.gold import ANSWER, PAIR, SAMPLES, Scored, ScoreStore, damaged_gold, read_gold, write_gold
from harness.storage.runs import RESULT, find_run, load_result, read_table, run_status
from harness.text import duration, slug
from harness.types import DataSpec, GoldSpec, InputError, PlannedRun, RunSpec, RunStatus, Split

if TYPE_CHECKING:
    from harness.data.export_pairs import Written

Say = Callable[[str], None]
SAID = 10.0  # seconds between two lines on how far scoring is
CODE_VERSION = 1  # of how texts are written and cut: bump when a text's score may change


@dataclass(frozen=True, slots=True)
class RewardModel:
    """A reward model that was found, with the name that its columns have."""

    name: str
    folder: Path
    identity: str


def _located(asked: GoldSpec) -> list[tuple[str, Path, str]]:
    """Each reward model as asked for, with its folder and, of a hub id, its `id@commit`.

    Raises InputError, a line for each that cannot be used.
    """
    found: list[tuple[str, Path, str]] = []
    problems: list[str] = []
    for text in asked.reward_model:
        try:
            found.append((text, *locate_classifier(text)))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(*problems)
    return found


def find_models(asked: GoldSpec) -> tuple[RewardModel, ...]:
    """The reward models asked for, with what identifies their content. Raises InputError as `_located` does."""
    found: list[RewardModel] = []
    for text, folder, commit in _located(asked):
        identity = commit or folder_sha256(folder)
        last = slug(text.partition("@")[0].rstrip("/").rpartition("/")[2])
        name = f"{last}-{content_hash(identity)[:6]}" if any(one.name == last for one in found) else last
        found.append(RewardModel(name, folder, identity))
    return tuple(found)


def check_gold(sweep: SweepSpec) -> None:
    """Before anything trains: raises InputError for reward models that cannot be used, and for worlds."""
    if sweep.gold is None:
        return
    if any(run.data is None for run in sweep.runs):
        raise InputError("evaluation.gold: the embedded world knows the true reward; leave it out, or set `data`")
    _located(sweep.gold)


@dataclass(frozen=True)
class _Entry:
    """A finished run on data."""

    run: RunSpec
    folder: Path
    result: Mapping[str, Any]

    @property
    def samples(self) -> str:
        """SHA-256 of the run's samples; empty where it drew none."""
        return str(self.result["files"].get(SAMPLES, ""))


@dataclass(frozen=True)
class _Texts:
    """What of a run is scored, each (prompt, answer): the answers beside the reference's own, the pairs' sides."""

    places: np.ndarray
    ids: np.ndarray
    prompt_ids: np.ndarray
    asked: tuple[tuple[str | Sequence[Turn], str], ...]  # answers, the reference's, chosen, rejected


def score_folder(folder: Path, asked: GoldSpec | None, say: Say) -> list[str]:
    """Score a run, or the runs of a sweep; one line for each failure.

    `asked` None: as the sweep's spec asks. Raises InputError for models that cannot be used.
    """
    alone = (folder / RESULT).exists()
    sweep_folder = folder.resolve().parent if alone else folder
    spec = sweep_folder / "sweep.yaml"
    if not spec.is_file():
        raise InputError(f"{sweep_folder}: no sweep.yaml; expected a sweep's folder, or a run's inside one")
    sweep = load_sweep(spec)
    asked = asked or sweep.gold
    if asked is None:
        raise InputError("--reward-model: missing, and the sweep has no evaluation.gold; name a folder or a hub id")
    entries = _entries(sweep_folder, planned_runs(sweep.runs))
    entries = [one for one in entries if not alone or one.folder.name == folder.resolve().name]
    if not entries:
        raise InputError(f"{folder}: no finished run on `data`; a reward model scores answers to prompts of your own")
    return _score(sweep_folder, entries, asked, say)


def score_runs(sweep_folder: Path, runs: Sequence[PlannedRun], asked: GoldSpec, say: Say) -> list[str]:
    """Score those of `runs` that are finished; one line for each failure."""
    try:
        return _score(sweep_folder, _entries(sweep_folder, runs), asked, say)
    except InputError as error:
        return list(error.problems)


def _entries(sweep_folder: Path, runs: Sequence[PlannedRun]) -> list[_Entry]:
    entries = []
    for planned in runs:
        folder = find_run(sweep_folder, planned.key)
        result = load_result(folder) if folder is not None else None
        if folder and result and run_status(result) is RunStatus.DONE and planned.run.data is not None:
            entries.append(_Entry(planned.run, folder, result))
    return entries


def _have(entry: _Entry) -> tuple[Scored, ...]:
    """What models said of the present samples; nothing where a file of it is damaged, as they say it again."""
    return () if damaged_gold(entry.folder) else read_gold(entry.folder, entry.samples)


def _score(sweep_folder: Path, entries: Sequence[_Entry], asked: GoldSpec, say: Say) -> list[str]:
    """Score what is not scored as asked; what failed, one line each."""
    from harness.worker.prepare import pick_device

    models = find_models(asked)
    wanted = [(model.name, model.identity, asked.max_length, CODE_VERSION) for model in models]
    todo = [
        entry for entry in entries
        if [(one.name, one.identity, one.max_length, one.version) for one in _have(entry)] != wanted
    ]  # fmt: skip
    if not todo:
        return []
    failures: list[str] = []
    read: dict[DataSpec, Conversations] = {}
    texts: list[tuple[_Entry, _Texts]] = []
    for entry in todo:
        assert entry.run.data is not None
        try:
            if entry.run.data not in read:
                read[entry.run.data] = read_conversations(entry.run.data)
            texts.append((entry, _texts_of(entry, read[entry.run.data])))
        except (InputError, OSError) as error:
            failures.append(f"{entry.folder.name}: not scored, {error}")
    if gone := sorted({one.name for entry in todo for one in _have(entry)} - {model.name for model in models}):
        say(f"gold     in place of {', '.join(gone)}, whose scores stay in the cache; name all models to have all")
    device = pick_device(entries[0].run.device)
    said: dict[Path, list[tuple[Scored, dict[str, np.ndarray]]]] = {}
    for model in models:
        scorer = _Scorer(model, asked, device, sweep_folder.parent / "cache", say)
        for entry, own in texts:
            try:
                said.setdefault(entry.folder, []).append(scorer.run(entry, own))
            except Exception as error:  # a model may fail in many ways, and training is done
                why = " ".join(str(error).split())[:200]
                failures.append(f"{entry.folder.name}: not scored by {model.name}, {type(error).__name__}: {why}")
    for entry, _ in texts:
        parts = said.get(entry.folder, [])
        if len(parts) == len(models):
            table = {name: np.concatenate([part[name] for _, part in parts]) for name in parts[0][1]}
            write_gold(entry.folder, int(entry.result["steps"]), [one for one, _ in parts], table)
            say(f"gold     {entry.folder.name}: {'; '.join(map(_line, (one for one, _ in parts)))}")
    return failures


def _texts_of(entry: _Entry, read: Conversations) -> _Texts:
    """The run's answers and held-out pairs, by the prompts as the data has them. Raises InputError."""
    examples = read_table(entry.folder / "examples.parquet", ("id", "step", "split"))
    last = (examples["split"] == Split.HELDOUT) & (examples["step"] == examples["step"].max())
    ids = examples["id"][last]
    if missing := [name for name in ids if name not in read.pairs]:
        raise InputError(f"{len(missing)} of {len(ids)} held-out pairs are not in the data any more")
    pairs = [read.pairs[name] for name in ids]
    prompts = [read.turns.prompt(pair) for pair in pairs]
    asked = []
    places = np.zeros(0, np.int64)
    if entry.samples:
        samples = read_table(entry.folder / SAMPLES, ("row", "split", "response", "reference_response"))
        if lacking := {"row", "split", "response", "reference_response"} - samples.keys():
            raise InputError(f"{SAMPLES} lacks {', '.join(sorted(lacking))}; run the sweep again")
        places = np.flatnonzero(samples["split"] != Split.BEHAVIOUR)  # whose prompts are none of the data
        samples = {name: values[places] for name, values in samples.items()}
        if missing := [int(row) for row in samples["row"] if int(row) not in read.by_row]:
            raise InputError(f"rows {missing[:5]} of its samples are not usable pairs of the data any more")
        of_rows = [read.by_row[int(row)] for row in samples["row"]]
        for name in ("response", "reference_response"):
            asked += list(zip(of_rows, map(str, samples[name]), strict=True))
    for answers in ((pair.chosen for pair in pairs), (pair.rejected for pair in pairs)):
        asked += list(zip(prompts, answers, strict=True))
    prompt_ids = np.array([pair.meta["prompt_id"] for pair in pairs], dtype=object)
    return _Texts(places, np.array(ids, dtype=object), prompt_ids, tuple(asked))


def score_file(data: DataSpec, asked: GoldSpec, out: Path, cache: Path, device: str, force: bool, say: Say) -> Written:
    """Write the pairs of `data` in TRL's form with the scores of one reward model, its `gold_margin` among them.

    Single scores are kept in `cache`, so an interrupted call goes on where it was.
    """
    from harness.worker.prepare import pick_device

    if len(asked.reward_model) > 1:
        raise InputError("--reward-model: several; the rows of --out have one gold_margin, so name one")
    (model,) = find_models(asked)
    scorer = _Scorer(model, asked, pick_device(device), cache, say)

    def score(texts: Sequence[tuple[str | Sequence[Turn], str]]) -> Sequence[float]:
        scores: list[float] = scorer.score(texts)[0].tolist()
        return scores

    from harness.data.export_pairs import export_pairs  # needs pandas, which a plan must not load

    return export_pairs(data, {"kind": "none"}, 0, out, force, score, model.name)


def bench_file(
    data: DataSpec, asked: GoldSpec, version: int, cache: Path, device: str, say: Say
) -> dict[str, BenchScore]:
    """The score of each reward model on RewardBench's own file, version 1 or 2. Raises InputError.

    Single scores are kept in `cache`, so an interrupted call goes on where it was.
    """
    from harness.worker.prepare import pick_device

    form, ids = ("reward_bench", "") if version == 1 else ("reward_bench_2", "id")
    slices = ", ".join(filter(None, (SUBSET, ids)))
    read = read_conversations(replace(data, format=form, slices=slices, pairs="all"))
    pairs = list(read.pairs.values())
    of: dict[str, list[str]] = {
        name: [pair.meta["slices"].get(column, "") for pair in pairs]
        for name, column in ((SUBSET, SUBSET), (SOURCE_ID, ids)) if column
    }  # fmt: skip
    score = bench_scorer({name: np.array(values, dtype=object) for name, values in of.items()})
    nothing = np.zeros(len(pairs))
    if score is None or score(nothing, nothing).version != version:
        strange = ", ".join(sorted({*of[SUBSET]})[:5])
        raise InputError(f"--rewardbench {version}: not that benchmark's file (subsets: {strange})")
    found = {}
    for model in find_models(asked):
        scorer = _Scorer(model, asked, pick_device(device), cache, say)
        prompts = [read.turns.prompt(pair) for pair in pairs]
        answers = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
        scores, _ = scorer.score(list(zip(prompts * 2, answers, strict=True)))
        found[model.name] = score(*np.split(scores, 2))
    return found


class _Scorer:
    """One reward model with its store; it is loaded when a text is not stored yet."""

    def __init__(self, model: RewardModel, asked: GoldSpec, device: Any, cache: Path, say: Say) -> None:
        self.model, self.asked, self.device, self.say = model, asked, device, say
        self.begun = self.said = 0.0
        kind = "cpu" if device.type == "cpu" else "gpu"  # fp32, or as saved
        self.store = ScoreStore(cache, content_hash([model.identity, asked.max_length, kind, CODE_VERSION]))
        self.loaded: Any = None

    def score(self, asked: Sequence[tuple[str | Sequence[Turn], str]]) -> tuple[np.ndarray, int]:
        """The score of each prompt with its answer, and how many were cut. Raises InputError."""
        classifier = self._open()
        try:
            texts = [classifier.text(prompt, answer) for prompt, answer in asked]
        except RowError as error:
            raise InputError(f"{self.model.name} cannot read a prompt ({error})") from error
        scores, cut = self.store.of(texts, classifier.scores, self._told)
        if not np.isfinite(scores).all():
            raise InputError(f"{self.model.name}: {int((~np.isfinite(scores)).sum())} scores are not finite")
        return scores, cut

    def _told(self, done: int, count: int) -> None:
        """Say how far it is, every `SAID` seconds."""
        now = time.monotonic()
        if not done:
            self.begun = self.said = now
        elif done < count and now - self.said > SAID:
            self.said = now
            left = duration((now - self.begun) * (count - done) / done)
            self.say(f"gold     {self.model.name}: {done:,} of {count:,} texts, about {left} left")

    def _open(self) -> Any:
        from harness.models.classifier import Classifier

        if self.loaded is None:
            self.loaded = Classifier(self.model.folder, self.device, self.asked.batch_size, self.asked.max_length)
        return self.loaded

    def run(self, entry: _Entry, own: _Texts) -> tuple[Scored, dict[str, np.ndarray]]:
        """What the model says of a run, with the rows of its table."""
        scores, cut = self.score(own.asked)
        n, pairs = len(own.places), len(own.ids)
        policy, reference, chosen, rejected = np.split(scores, [n, 2 * n, 2 * n + pairs])
        metrics = {"pair_accuracy": float(np.mean(chosen > rejected)), "pair_margin": float(np.mean(chosen - rejected))}
        if n:
            metrics |= {
                "gold_reward": float(policy.mean()),
                "reference_gold_reward": float(reference.mean()),
                "win_rate": float(np.mean((policy > reference) + 0.5 * (policy == reference))),
            }
        scored = Scored(
            self.model.name, self.model.identity, self.asked.max_length, str(self.device), entry.samples,
            n, pairs, len(scores), cut, metrics, CODE_VERSION,
        )  # fmt: skip
        nothing = np.array([""] * n, dtype=object)
        table = {
            "model": np.array([self.model.name] * (n + pairs), dtype=object),
            "kind": np.array([ANSWER] * n + [PAIR] * pairs, dtype=object),
            "place": np.concatenate([own.places, np.full(pairs, -1)]),
            "id": np.concatenate([nothing, own.ids]),
            "prompt_id": np.concatenate([nothing, own.prompt_ids]),
            "score": np.concatenate([policy, chosen]),
            "other": np.concatenate([reference, rejected]),
        }
        return scored, table


def _line(one: Scored) -> str:
    parts = [f"{one.name} scores {one.metrics['pair_accuracy']:.3f} of {one.pairs} pairs as labelled"]
    if one.answers:
        parts.append(
            f"answers {one.metrics['gold_reward']:.3f}, the reference's {one.metrics['reference_gold_reward']:.3f}"
        )
    if one.cut:
        parts.append(f"{one.cut} of {one.texts} texts cut")
    return ", ".join(parts)

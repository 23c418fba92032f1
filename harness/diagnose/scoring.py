"""Policies and a reference to log-probs: which models are meant, how rows become tokens, scores that resume."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from harness.data.chat import chat_renderer
from harness.data.pairs import read_pairs
from harness.data.rows import TokenisedPair, response_key, token_key
from harness.data.tokenize import encode_pairs, model_vocabulary
from harness.data.trl_tokens import TOKENS, trl_renderer
from harness.diagnose.asked import Asked
from harness.diagnose.earlier import check_earlier, holds_scored
from harness.identity import content_hash
from harness.metrics.rewardbench import SOURCE_ID
from harness.model_files.folder import TOKENIZER, length_problems, read_folder
from harness.model_files.location import HUB_ID, locate
from harness.models.adapter import adapter_base, adapter_sha256, is_adapter, merged_weights
from harness.models.architecture import Architecture, path_architecture
from harness.models.folder import Source, open_tokenizer, start_weights
from harness.models.reference_logps import score_responses
from harness.storage.atomic import write_atomic
from harness.storage.logps_file import OPTIONAL, REQUIRED, LogpsTable, checked, read_reference
from harness.types import DataSpec, InputError, PathModelSpec, PreferencePair
from harness.worker.prepare import pick_device

if TYPE_CHECKING:
    from torch import Tensor

Say = Callable[[str], None]
BLOCK = 64  # pairs between two looks at the clock
SAVED = 5.0  # seconds of scoring that an interruption may lose
SCORES = "scores"  # folder of scores by model, under --out
TRAIN, HELDOUT = "train", "heldout"


@dataclass(frozen=True, slots=True)
class Scored:
    """A model to score: the name it goes by, its step (-1: unknown), folder or hub id, adapter, and content hash."""

    name: str
    step: int
    path: str
    adapter: Path | None
    identity: str
    dtype: str

    @property
    def architecture(self) -> Architecture:
        """The architecture of the model, or of the adapter's base."""
        return path_architecture(PathModelSpec(path=self.path, sha256=self.identity, dtype=self.dtype))

    @property
    def source(self) -> Source:
        """Where the weights, or the base's, come from."""
        source = self.architecture.source
        assert source is not None
        return source

    def weights(self) -> Tensor:
        """The weights `(P,)`."""
        return start_weights(self.source, 0) if self.adapter is None else merged_weights(self.source, self.adapter)

    @property
    def tokenizer_folder(self) -> Path:
        """The folder whose tokenizer belongs to the model: the adapter's where it has one."""
        own = self.adapter is not None and (self.adapter / TOKENIZER).is_file()
        return self.adapter if own and self.adapter is not None else Path(self.source.folder)


def find_model(text: str, dtype: str, option: str, name: str = "", step: int = -1) -> Scored:
    """The model that a path or hub id means. Raises InputError naming the option."""
    place = Path(text).expanduser()
    adapter = place.resolve() if is_adapter(place) else None
    try:
        base = text if adapter is None else adapter_base(adapter)
        path, identity = locate(base, "", Path.cwd(), {})
        if adapter is not None:
            identity = content_hash([identity, adapter_sha256(adapter)])
    except InputError as error:
        what = "" if adapter is None else f"{text} is an adapter; its base (base_model_name_or_path of its config): "
        raise InputError(*(f"{option}: {what}{line}" for line in error.problems)) from None
    return Scored(name or text, step, path, adapter, identity, dtype)


def find_policies(texts: Sequence[str], dtype: str) -> list[Scored]:
    """The policies of `--policy`; a pattern gives one policy with a step for each match. Raises InputError."""
    found = []
    for text in texts:
        if Path(text).exists() or not set(text) & set("*?["):
            found.append(find_model(text, dtype, "--policy", text, _step(Path(text))))
            continue
        root = Path(Path(text).anchor)
        matches = [match for match in root.glob(str(Path(text).relative_to(root))) if match.is_dir()]
        if not matches:
            raise InputError(f"--policy: '{text}' matches no folder")
        steps = {match: _step(match) for match in matches}
        if min(steps.values()) < 0 or len(set(steps.values())) < len(steps):
            raise InputError(f"--policy: '{text}': expected folders that end in a step each, as checkpoint-500 does")
        found += [find_model(str(m), dtype, "--policy", text, steps[m]) for m in sorted(matches, key=steps.__getitem__)]
    if len({(one.name, one.step) for one in found}) < len(found):
        raise InputError("--policy: a policy is given twice")
    return found


def _step(folder: Path) -> int:
    """The step of a checkpoint's folder by its name; -1 where it names none."""
    match = re.search(r"(?:checkpoint|step)[-_](\d+)$", folder.name)
    return int(match[1]) if match else -1


def find_reference(asked: str, policies: Sequence[Scored], dtype: str) -> Scored | Path | None:
    """The reference: a model, a log-prob file, or None for "none". "": the base that every policy is an adapter of."""
    if asked == "none":
        return None
    if asked:
        return Path(asked) if asked.endswith(".parquet") else find_model(asked, dtype, "--reference", "reference")
    bases = {adapter_base(one.adapter) for one in policies if one.adapter is not None}
    if len(bases) != 1 or any(one.adapter is None for one in policies):
        raise InputError("--reference: name the model that training started from, or none for a reference-free method")
    return find_model(bases.pop(), dtype, "--reference", "reference")


@dataclass(frozen=True, eq=False)
class Rows:
    """Pairs of one file as tokens, with what was left out."""

    pairs: tuple[PreferencePair, ...]
    tokens: tuple[TokenisedPair, ...]
    notes: tuple[str, ...]


def read_rows(text: str, split: str, asked: Asked, tokenizer: Any, slices: Sequence[str]) -> Rows:
    """The pairs of a file, a folder or a hub id as token ids. Raises InputError where none is left."""
    hub = not Path(text).exists() and HUB_ID.fullmatch(text) is not None
    benchmark = asked.rewardbench if split == HELDOUT else 0
    form = {1: "reward_bench", 2: "reward_bench_2"}.get(benchmark, asked.form)
    spec = DataSpec(
        path="" if hub else text, hub=text if hub else "", format=form, limit=asked.limit,
        slices=", ".join(slices), split="", pairs="all" if benchmark == 2 else "best_worst",
    )  # fmt: skip
    as_trl = TOKENS.get(asked.tokens)
    renderer = trl_renderer if as_trl else chat_renderer
    table = read_pairs(spec, renderer(tokenizer, PathModelSpec().template_date, asked.template_arguments))
    notes = [f"{split}: {note.text}" for note in table.notes]
    if as_trl:
        made = [as_trl(tokenizer, pair, table.templated, asked.max_length) for pair in table.pairs]
    else:
        words = model_vocabulary(tokenizer, table.templated)
        kept, cut = encode_pairs(words, table.pairs, asked.max_length, asked.max_length - 1)
        notes += [f"{split}: {note.text}" for note in cut]
        known = {one.id: one for one in kept}
        made = [known.get(pair.id) for pair in table.pairs]
    both = [(pair, one) for pair, one in zip(table.pairs, made, strict=True) if one is not None]
    alike = [np.array_equal(one.chosen, one.rejected) for _, one in both]
    both = [pair for pair, same in zip(both, alike, strict=True) if not same]
    if left := len(made) - len(both):
        notes.append(f"{split}: {left} pairs left out: {asked.max_length} tokens leave their answers no room")
    if not both:
        raise InputError(f"{text}: no pair is left at {asked.max_length} tokens; raise --max-length")
    full = sum(len(p.prompt) + max(len(p.chosen), len(p.rejected)) >= asked.max_length for _, p in both)
    if full:
        notes.append(f"{split}: {full} pairs reach {asked.max_length} tokens and are cut there")
    return Rows(tuple(pair for pair, _ in both), tuple(one for _, one in both), tuple(notes))


def scored_table(asked: Asked, say: Say) -> tuple[LogpsTable, str]:
    """The log-probs of every policy and the reference on the pairs, and a name for them.

    Scores are kept under `asked.out` by model and token ids: what is there is not scored again. Raises InputError.
    """
    if not asked.policies:
        raise InputError("--policy: name at least one policy, or give --logps")
    policies = find_policies(asked.policies, asked.dtype)
    reference = find_reference(asked.reference, policies, asked.dtype)
    models = [*policies, *([reference] if isinstance(reference, Scored) else [])]
    tokenizer = _one_tokenizer(models)
    names = [name for name in asked.slices or () if name != "length"]
    if reserved := [name for name in names if name in (*REQUIRED, *OPTIONAL)]:
        raise InputError(f"--slices: {', '.join(reserved)}: a column of the log-prob file; rename it in the data")
    files = {HELDOUT: asked.data} | ({TRAIN: asked.train_data} if asked.train_data else {})
    rows = {}
    for split, text in files.items():
        rows[split] = read_rows(text, split, asked, tokenizer, [*names, *(_benchmark_columns(asked, split))])
    tokens = {one.id: one for part in rows.values() for one in part.tokens}
    _fits(models, list(tokens.values()))
    meta: dict[str, Any] = {
        "dtype": asked.dtype,
        "tokens": asked.tokens,
        **({"template_arguments": asked.template_arguments} if asked.template_arguments else {}),
        "max_length": asked.max_length,
        "policies": {f"{one.name}{f' step {one.step}' if one.step >= 0 else ''}": one.identity for one in policies},
        "reference": reference.identity if isinstance(reference, Scored) else None,
        "notes": [note for part in rows.values() for note in part.notes],
    }
    pairs = {(split, token_key(t.prompt, t.chosen, t.rejected)) for split, part in rows.items() for t in part.tokens}
    check_earlier(asked.out, asked.force, holds_scored(meta, pairs))
    before: Mapping[str, float] | None = None
    if isinstance(reference, Path):
        stored = read_reference(reference)
        stored.check_holds({key for one in tokens.values() for key in _keys(one)})
        before = stored.sums
    elif reference is not None:
        before = _scores(reference, list(tokens.values()), asked, say)
    columns: dict[str, list[Any]] = {}
    for policy in policies:
        after = _scores(policy, list(tokens.values()), asked, say)
        for split, part in rows.items():
            _add(columns, policy, split, part, after, before, [*names, *_benchmark_columns(asked, HELDOUT)])
    return checked(columns, str(asked.out), meta), Path(asked.data).name


def _benchmark_columns(asked: Asked, split: str) -> list[str]:
    """The columns of the source that RewardBench's scores need."""
    if not asked.rewardbench or split != HELDOUT:
        return []
    return [name for name in ("subset", *(["id"] * (asked.rewardbench == 2))) if name not in (asked.slices or ())]


def _one_tokenizer(models: Sequence[Scored]) -> Any:
    """The tokenizer of the first policy, after every model's own was found to give its tokens the same ids."""
    first, vocabulary = None, {}
    seen: dict[Path, None] = {}
    for model in models:
        folder = model.tokenizer_folder
        if folder in seen:
            continue
        seen[folder] = None
        opened = open_tokenizer(Source(str(folder), ""))
        if first is None:
            first, vocabulary = opened, opened.get_vocab()
            continue
        other = opened.get_vocab()
        if moved := [token for token in vocabulary.keys() & other.keys() if vocabulary[token] != other[token]]:
            raise InputError(
                f"{models[0].name} and {model.name} have different vocabularies ({len(moved)} tokens have other ids); "
                "a policy is compared with a model of its own tokenizer"
            )
        if len(vocabulary.keys() & other.keys()) < 0.9 * min(len(vocabulary), len(other)):
            raise InputError(f"{models[0].name} and {model.name} have different vocabularies")
    return first


def _fits(models: Sequence[Scored], tokens: Sequence[TokenisedPair]) -> None:
    """Raise InputError where a model has no row for a token, or no position for the longest pair."""
    top = max(int(max(part.max() for part in (one.prompt, one.chosen, one.rejected))) for one in tokens)
    longest = max(len(one.prompt) + max(len(one.chosen), len(one.rejected)) for one in tokens)
    for model in models:
        folder = read_folder(Path(model.source.folder), weights=False)
        if top >= folder.rows:
            raise InputError(f"{model.name}: no row for token id {top} (it has {folder.rows}): another vocabulary")
        if problems := list(length_problems(folder, longest)):
            raise InputError(*(f"{model.name}: a pair has {line}; lower --max-length" for line in problems))


def _add(
    columns: dict[str, list[Any]], policy: Scored, split: str, rows: Rows, after: Mapping[str, float],
    before: Mapping[str, float] | None, slices: Sequence[str],
) -> None:  # fmt: skip
    """Append the rows of one policy on one split to the columns."""
    for pair, one in zip(rows.pairs, rows.tokens, strict=True):
        key = token_key(one.prompt, one.chosen, one.rejected)
        chosen, rejected = key[:32], key[32:]
        row = {
            "id": pair.id, "prompt_id": pair.meta["prompt_id"],
            "policy_chosen": after[chosen], "policy_rejected": after[rejected],
            "reference_chosen": None if before is None else before[chosen],
            "reference_rejected": None if before is None else before[rejected],
            "chosen_len": len(one.chosen), "rejected_len": len(one.rejected),
            "gold_margin": pair.gold_margin, "split": split, "step": policy.step, "policy": policy.name,
            "tokens": key, "row": pair.meta.get("row", -1),
            **{
                SOURCE_ID if name == "id" else name: pair.meta.get("slices", {}).get(name, "")
                for name in slices
            },
        }  # fmt: skip
        for name, value in row.items():
            columns.setdefault(name, []).append(value)


def _scores(model: Scored, tokens: Sequence[TokenisedPair], asked: Asked, say: Say) -> dict[str, float]:
    """Summed log-probs by response key; what an earlier call scored is read, the rest is scored and kept."""
    key = content_hash([model.identity, model.dtype])
    path = asked.out / SCORES / f"{key[:32]}.parquet"
    done = _read_scores(path)
    wanted = [one for one in tokens if not set(_keys(one)) <= done.keys()]
    if not wanted:
        return done
    # Pairs of one prompt side by side: it is read once for all its responses.
    wanted.sort(key=lambda one: (len(one.prompt), one.prompt.tobytes(), len(one.chosen) + len(one.rejected), one.id))
    what = f"scoring {model.name}" + (f" step {model.step}" if model.step >= 0 else "")
    say(f"{what}: {len(wanted)} pairs")
    path.parent.mkdir(parents=True, exist_ok=True)
    device = pick_device(asked.device)
    architecture, weights = model.architecture, model.weights()
    total = sum(_size(one) for one in wanted)
    begun = saved = said = time.monotonic()
    read = 0
    for start in range(0, len(wanted), BLOCK):
        part = wanted[start : start + BLOCK]
        table = score_responses(architecture, weights, part, device, ladder=True)
        done |= dict(zip(table.keys, table.sums(table.keys).astype(float).tolist(), strict=True))
        read += sum(_size(one) for one in part)
        now = time.monotonic()
        if now - saved > SAVED or start + BLOCK >= len(wanted):
            done = _read_scores(path) | done  # another call may score the same model meanwhile
            _write_scores(path, done)
            saved = now
        if now - said > 2 and read < total:
            left = (now - begun) * (total - read) / read
            say(f"{what}: {start + len(part)} of {len(wanted)} pairs, {left:.0f} s left")
            said = now
    bad = [one.id for one in wanted if not all(np.isfinite(done[k]) for k in _keys(one))]
    if bad:
        raise InputError(
            f"{model.name}: log-probs of {len(bad)} pairs are not finite (first: id {bad[0]}): it diverged"
        )
    return done


def _keys(one: TokenisedPair) -> tuple[str, str]:
    return response_key(one.prompt, one.chosen), response_key(one.prompt, one.rejected)


def _size(one: TokenisedPair) -> int:
    return 2 * len(one.prompt) + len(one.chosen) + len(one.rejected)


def _read_scores(path: Path) -> dict[str, float]:
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        return {}
    return dict(zip(table.column("key").to_pylist(), table.column("logp").to_pylist(), strict=True))


def _write_scores(path: Path, scores: Mapping[str, float]) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"key": list(scores), "logp": list(scores.values())}), sink)
    write_atomic(path, sink.getvalue().to_pybytes())

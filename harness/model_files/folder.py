"""A model's folder read without torch: its content hash, what its files say, and what in them cannot be used.

Nothing in a folder is ever run: weights are safetensors alone, and a folder that brings code of its own is refused.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.identity import file_sha256
from harness.model_files.support import refusals
from harness.types import InputError

CONFIG, TOKENIZER, TOKENIZER_CONFIG, INDEX = (
    *("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors.index.json"),
)
# What a model is made of; README and the like never change its hash.
TEMPLATE, SPECIAL_TOKENS = "chat_template.jinja", "special_tokens_map.json"
NAMES = (CONFIG, TOKENIZER, TOKENIZER_CONFIG, INDEX, TEMPLATE, SPECIAL_TOKENS)
MORE_TEMPLATES = "additional_chat_templates"  # a folder of templates for other uses, such as tools
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack")
# What transformers' configurations call the sizes of a decoder.
SIZES = {
    "width": ("hidden_size", "n_embd", "d_model"),
    "layers": ("num_hidden_layers", "n_layer", "num_layers"),
    "heads": ("num_attention_heads", "n_head", "attention_heads"),
}
# Families whose decoder is laid out as Llama's: embedding, layers of attention and MLP behind a norm each, last norm.
LLAMA_LAYOUT = frozenset({"llama", "qwen2", "qwen3", "gemma", "mistral"})
# The names of a model's ends: what reads token ids, and what gives logits.
EMBEDDINGS = ("embed_tokens", "embed_in", "embed_positions", "word_embeddings", "wte", "wpe")
HEADS = ("lm_head", "embed_out")
_WINDOWLESS = "full_attention"
_WINDOWS = {"mistral": 4096, "gemma2": 4096, "gemma3_text": 4096}  # what transformers takes where config.json is silent


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """What a folder's files say. `rows` are the embedding's; `eos` the tokenizer's end-of-sequence id."""

    path: Path
    config: dict[str, Any]
    rows: int
    eos: int
    bos: int | None
    positions: int | None  # most positions of a sequence; None: unlimited
    window: int | None  # of sliding attention; None: every token sees all before it
    notes: tuple[str, ...]
    template: str | Mapping[str, str]  # the chat template, or several by name; empty: none
    tokens: Mapping[str, str]  # special tokens by the names that templates know them by, e.g. `eos_token`


def folder_sha256(folder: Path) -> str:
    """SHA-256 (hex) over the names and contents of a folder's weights, configuration and tokenizer."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.name in NAMES or path.suffix == ".safetensors":
            digest.update(f"{path.name} {file_sha256(path)}\n".encode())
    return digest.hexdigest()


def read_folder(folder: Path, weights: bool = True) -> ModelFolder:
    """Read and check a folder; with `weights` its safetensors files, too.

    Raises InputError with a line for each thing that cannot be used, each naming the file.
    """
    if not folder.is_dir():
        raise InputError(f"{'is a file' if folder.exists() else 'no such folder'}: {folder}; expected a model's folder")
    if not (folder / CONFIG).is_file():
        adapter = (folder / "adapter_config.json").is_file()
        what = "holds a peft adapter; merge it into its base model first" if adapter else f"has no {CONFIG}"
        raise InputError(f"{folder} {what}; expected a folder that save_pretrained wrote")
    problems: list[str] = []
    config = _json(folder / CONFIG, problems)
    if problems:
        raise InputError(*problems)
    unusable = list(refusals(folder, config))
    problems += unusable
    if not (folder / TOKENIZER).is_file():
        problems.append(
            f"{folder} has no {TOKENIZER}; write it once with AutoTokenizer.from_pretrained(...).save_pretrained(...)"
        )
        raise InputError(*problems)
    tokenizer, settings = _json(folder / TOKENIZER, problems), _json(folder / TOKENIZER_CONFIG, problems, {})
    problems += _code(folder, config, settings)
    if weights:
        problems += _weight_problems(folder)
    ids = _token_ids(tokenizer)
    rows = int(config.get("vocab_size") or 0)
    if not unusable:
        problems += _shape_problems(folder, config)
    if ids and rows and max(ids.values()) >= rows:
        token = max(ids, key=lambda name: ids[name])
        problems.append(
            f"{folder}: the tokenizer knows id {ids[token]} ({token!r}), the embedding has {rows} rows ({CONFIG} "
            "vocab_size); take the tokenizer that belongs to these weights, or resize the embedding"
        )
    eos, notes = _end(folder, config, settings, ids, problems)
    if problems:
        raise InputError(*problems)
    return ModelFolder(
        folder,
        config,
        rows,
        eos,
        _named(settings, "bos_token", ids),
        _positions(config),
        _window(config),
        notes,
        _template(folder, settings),
        _special_tokens(_json(folder / SPECIAL_TOKENS, problems, {}) | settings),
    )


def check_classifier(folder: Path, weights: bool = True) -> dict[str, Any]:
    """The configuration of a reward model's folder: a sequence-classification model with one logit and a tokenizer.

    Raises InputError with a line for each thing that cannot be used, each naming the file.
    """
    if not (folder / CONFIG).is_file():
        what = "is a file" if folder.is_file() else f"has no {CONFIG}" if folder.is_dir() else "does not exist"
        raise InputError(f"{folder} {what}; expected a reward model's folder, as save_pretrained writes it")
    problems: list[str] = []
    config, settings = _json(folder / CONFIG, problems), _json(folder / TOKENIZER_CONFIG, problems, {})
    names = ", ".join(map(str, config.get("architectures") or ())) or str(config.get("model_type"))
    labels = len(config.get("id2label") or ()) or int(config.get("num_labels") or 2)
    if not problems and "ForSequenceClassification" not in names:
        problems.append(f"{folder}/{CONFIG}: {names} is no reward model; expected one ...ForSequenceClassification")
    elif not problems and labels != 1:
        problems.append(f"{folder}/{CONFIG}: the model has {labels} labels; expected a reward model with one logit")
    if not any((folder / name).is_file() for name in (TOKENIZER, "tokenizer.model", "vocab.txt", "vocab.json")):
        problems.append(f"{folder} has no {TOKENIZER}; write it with the tokenizer's save_pretrained")
    problems += _code(folder, config, settings)
    problems += _weight_problems(folder) if weights else ()
    if problems:
        raise InputError(*problems)
    return config


def length_problems(model: ModelFolder, max_length: int) -> Iterator[str]:
    """Why sequences of `max_length` tokens cannot be scored as the model would score them."""
    if model.positions is not None and max_length > model.positions:
        yield f"{max_length} tokens, the model has {model.positions} positions; expected at most so many"
    if model.window is not None and max_length > model.window:
        yield (
            f"{max_length} tokens, the model's attention slides over {model.window}; expected at most so many, as "
            "longer sequences would need the window in every mask"
        )


def vocabulary_problems(model: ModelFolder, other: ModelFolder) -> Iterator[str]:
    """Why two models cannot score the same token ids."""
    ids, others = (_token_ids(_json(one.path / TOKENIZER, [])) for one in (model, other))
    if moved := sorted(token for token in ids.keys() & others.keys() if ids[token] != others[token]):
        yield (
            f"{len(moved)} tokens have other ids in {other.path} than in {model.path} (first: {moved[0]!r}); "
            "expected a model of the same tokenizer"
        )
    elif len(ids.keys() & others.keys()) < 0.9 * min(len(ids), len(others)):
        yield f"{other.path} has another vocabulary than {model.path}; expected a model of the same tokenizer"
    elif max(ids.values()) >= other.rows:
        yield f"{other.path} has no row for token id {max(ids.values())}; expected a model of the same tokenizer"


def _json(path: Path, problems: list[str], absent: dict[str, Any] | None = None) -> dict[str, Any]:
    if absent is not None and not path.is_file():
        return absent
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        problems.append(f"{path} cannot be read ({error}); fetch it again")
        return {}
    if isinstance(value, dict):
        return value
    problems.append(f"{path} is not a JSON object; fetch it again")
    return {}


def _code(folder: Path, config: dict[str, Any], settings: dict[str, Any]) -> Iterator[str]:
    """Files that would have code run."""
    for name, values in ((CONFIG, config), (TOKENIZER_CONFIG, settings)):
        if "auto_map" in values:
            yield (
                f"{folder}/{name} has auto_map: the model needs custom code (trust_remote_code), which is never "
                "run; expected a model that transformers itself knows"
            )
    if "_attn_implementation_internal" in config:
        yield f"{folder}/{CONFIG} has _attn_implementation_internal, which loads code; remove the key"


def _weight_problems(folder: Path) -> Iterator[str]:
    """Pickled, absent, cut or damaged weights."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickled = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLED)
        if pickled:
            yield (
                f"{folder} has its weights as {', '.join(pickled[:3])} only, and loading them could run code; write "
                "them as safetensors with save_pretrained"
            )
        else:
            yield f"{folder} has no .safetensors file; expected a model's weights"
        return
    if (folder / INDEX).is_file():
        wanted = set(json.loads((folder / INDEX).read_text(encoding="utf-8")).get("weight_map", {}).values())
        if missing := sorted(wanted - {path.name for path in files}):
            yield f"{folder} lacks {', '.join(missing[:3])}, which {INDEX} names; fetch it again"
    for path in files:
        if (size := _stated_size(path)) != path.stat().st_size:
            yield f"{path} is cut or damaged ({path.stat().st_size} bytes, its header says {size}); fetch it again"


def _shape_problems(folder: Path, config: dict[str, Any]) -> Iterator[str]:
    """Sizes that every decoder has and this configuration does not name."""
    for keys in (("vocab_size",), *SIZES.values()):
        if not any(config.get(key) for key in keys):
            yield f"{folder}/{CONFIG} has no {' or '.join(keys)}; expected the configuration of a causal language model"


def _stated_size(path: Path) -> int:
    """The size that a safetensors header gives its file; -1 where there is no header to read."""
    length, header = _header(path)
    return 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0) if length else -1


def _header(path: Path) -> tuple[int, dict[str, Any]]:
    """Length and entries (tensor -> dtype, shape, offsets) of a safetensors header; 0 where there is none to read."""
    with path.open("rb") as file:
        head = file.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        if not 2 <= length <= 100_000_000:
            return 0, {}
        try:
            header: dict[str, Any] = json.loads(file.read(length))
        except ValueError:
            return 0, {}
    header.pop("__metadata__", None)
    return int(length), header


def linear_names(folder: Path) -> set[str]:
    """The modules of a folder's weights that adapters can stand on: those that hold a matrix but embeddings."""
    entries = [item for path in sorted(folder.glob("*.safetensors")) for item in _header(path)[1].items()]
    names = {name.removesuffix(".weight") for name, entry in entries if len(entry["shape"]) == 2}
    return {name for name in names if name.rpartition(".")[2] not in EMBEDDINGS}


def end_problem(target: str, tied: bool) -> str | None:
    """Why no adapter can stand on one of a model's two ends; None for layers between them. `tied`: one matrix is both.

    Transformers leaves a tied output layer out of the weights, and an adapter on it could not be merged.
    """
    name = target.rpartition(".")[2]
    if name in EMBEDDINGS:
        return f"'{target}' is an embedding, and adapters stand on linear layers alone"
    if name in HEADS and tied:
        return f"'{target}' is one matrix with the embedding (tie_word_embeddings), on which no adapter can stand"
    return None


def _token_ids(tokenizer: dict[str, Any]) -> dict[str, int]:
    """Token -> id of everything a tokenizer can give."""
    vocabulary = tokenizer.get("model", {}).get("vocab", {})
    found = (
        {str(token): int(i) for token, i in vocabulary.items()}
        if isinstance(vocabulary, dict)
        else {str(entry[0]): i for i, entry in enumerate(vocabulary)}
    )
    return found | {str(entry["content"]): int(entry["id"]) for entry in tokenizer.get("added_tokens", [])}


def _named(settings: dict[str, Any], key: str, ids: dict[str, int]) -> int | None:
    token = _special_tokens(settings).get(key)
    return ids.get(token) if token is not None else None


def _special_tokens(settings: dict[str, Any]) -> dict[str, str]:
    """The special tokens that a tokenizer's settings name, each a text or an object with its content."""
    named = {key: value for key, value in settings.items() if key.endswith("_token")}
    texts = {key: value.get("content") if isinstance(value, dict) else value for key, value in named.items()}
    return {key: text for key, text in texts.items() if isinstance(text, str)}


def _template(folder: Path, settings: dict[str, Any]) -> str | dict[str, str]:
    """The chat template of a folder: its file goes before its settings, where old folders have it or several."""
    if (folder / TEMPLATE).is_file():
        return (folder / TEMPLATE).read_text(encoding="utf-8")
    found = settings.get("chat_template") or ""
    return found if isinstance(found, str) else {str(one["name"]): str(one["template"]) for one in found}


def _end(
    folder: Path, config: dict[str, Any], settings: dict[str, Any], ids: dict[str, int], problems: list[str]
) -> tuple[int, tuple[str, ...]]:
    """The end-of-sequence id, and what is to be said of it and of padding."""
    stated = config.get("eos_token_id")
    listed = [i for i in (stated if isinstance(stated, list) else [stated]) if isinstance(i, int)]
    eos = _named(settings, "eos_token", ids)
    if eos is None and listed and listed[0] in ids.values():
        eos = listed[0]
    if eos is None:
        problems.append(
            f"{folder}: no end-of-sequence token in {TOKENIZER_CONFIG} (eos_token) or {CONFIG} (eos_token_id) that the "
            "tokenizer knows; a model that cannot end a response cannot be compared on responses"
        )
        return 0, ()
    notes = []
    if listed and eos not in listed:
        notes.append(f"responses end with id {eos} (the tokenizer's eos_token); {CONFIG} names {listed}")
    pad = _named(settings, "pad_token", ids)
    if pad is None or pad == eos:
        what = "is the end-of-sequence token" if pad == eos else "is missing"
        notes.append(f"the tokenizer's pad token {what}: no harm, rows are masked by their lengths and not by pad ids")
    return eos, tuple(notes)


def _positions(config: dict[str, Any]) -> int | None:
    found = config.get("max_position_embeddings") or config.get("n_positions")
    return int(found) if isinstance(found, int) else None


def _window(config: dict[str, Any]) -> int | None:
    """The width of sliding attention where some layer has it."""
    window = config.get("sliding_window", _WINDOWS.get(str(config.get("model_type"))))
    if not isinstance(window, int) or config.get("use_sliding_window") is False:
        return None
    kinds = config.get("layer_types")
    return None if kinds and all(kind == _WINDOWLESS for kind in kinds) else window

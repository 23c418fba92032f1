"""Where a model lies (a local folder, a GGUF file or a hub id), what identifies it, how large it is. No torch."""

from __future__ import annotations

import dataclasses
import functools
import re
from pathlib import Path
from typing import Any

from harness.identity import file_sha256
from harness.model_files.folder import SIZES, ModelFolder, folder_sha256, read_folder
from harness.model_files.gguf import check_gguf, converted_folder, is_gguf
from harness.types import InputError, ModelSpec, PathModelSpec

OFFLINE = (
    "give a local folder as model.path, or fetch it where there is a network (`hf download {id}`) and bring the cache "
    "along (HF_HOME; HF_HUB_OFFLINE=1 asks for nothing else)"
)
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
PATTERNS = ["*.json", "*.jinja", "tokenizer.model", "*.txt"]


def locate(text: str, revision: str, base: Path, hashes: dict[Path, str]) -> tuple[str, str]:
    """A model's place as the spec keeps it (an absolute path or a hub id), and its identity. Raises InputError.

    The identity of a folder or a GGUF file is the hash of its content; that of a hub id is `id@commit`.
    """
    folder = (base / Path(text).expanduser()).resolve()
    if is_gguf(folder) and not folder.is_dir():
        if revision:
            raise InputError(f"{text} is a local file, which has no revision; leave model.revision out")
        check_gguf(folder)
        if folder not in hashes:
            hashes[folder] = file_sha256(folder)
        read_folder(converted_folder(folder, hashes[folder]))
        return str(folder), hashes[folder]
    if folder.exists() or not HUB_ID.fullmatch(text):
        if revision:
            raise InputError(f"{text} is a local folder, which has no revision; leave model.revision out")
        read_folder(folder)
        if folder not in hashes:
            hashes[folder] = folder_sha256(folder)
        return str(folder), hashes[folder]
    snapshot = hub_folder(text, revision, weights=False)
    read_folder(snapshot, weights=False)
    return text, f"{text}@{snapshot.name}"


def hub_folder(identity: str, revision: str, weights: bool) -> Path:
    """The cached snapshot of a hub id, fetched where it is not there; its folder's name is the commit.

    Without `weights` configuration and tokenizer alone. Raises InputError where neither cache nor hub has it.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    wanted = [*PATTERNS, "*.safetensors"] if weights else PATTERNS
    given: dict[str, Any] = {"revision": revision or None, "allow_patterns": wanted, "etag_timeout": 10}
    try:
        cached = Path(snapshot_download(identity, local_files_only=True, **given))
        if (cached / "config.json").is_file() and (not weights or any(cached.glob("*.safetensors"))):
            return cached
    except LocalEntryNotFoundError:
        pass  # not in the cache: the hub is asked
    try:
        return Path(snapshot_download(identity, **given))
    except (HfHubHTTPError, OSError, ValueError) as error:
        why = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
        raise InputError(
            f"'{identity}' is not a local folder, not in the cache, and could not be fetched from the hub ({why}); "
            + OFFLINE.format(id=identity)
        ) from None


def local_folder(path: str, identity: str, weights: bool) -> Path:
    """The folder with a model's files, by the place and the identity that a resolved spec keeps.

    A GGUF file is converted and a hub id fetched where that was not done before; of a hub id without `weights` only
    configuration and tokenizer. Raises InputError.
    """
    local = Path(path)
    if not local.is_absolute():
        return hub_folder(path, identity.rpartition("@")[2], weights)
    return converted_folder(local, identity) if is_gguf(local) else local


@functools.lru_cache(maxsize=32)
def model_folder(path: str, identity: str) -> ModelFolder:
    """What a model's files say, by the place and the identity that a resolved spec keeps."""
    return read_folder(local_folder(path, identity, weights=False), weights=False)


@dataclasses.dataclass(frozen=True, slots=True)
class ModelShape:
    """The shape of a decoder laid out as Llama's: what its cost is estimated from."""

    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    intermediate_size: int
    key_value_heads: int = 0  # 0: as many as query heads
    tied: bool = True  # one matrix for embedding and output

    @property
    def parameters(self) -> int:
        """Embeddings, and of each layer attention, a gated MLP and two norms; no biases."""
        d = self.hidden_size
        attention = 2 * d * d + 2 * d * d * (self.key_value_heads or self.heads) // self.heads
        layer = attention + 3 * d * self.intermediate_size + 2 * d
        return (1 if self.tied else 2) * self.vocab_size * d + self.layers * layer + d


def model_shape(model: ModelSpec | PathModelSpec) -> ModelShape:
    """The shape of a spec's model: its own fields, or what its folder's config.json says."""
    if isinstance(model, ModelSpec):
        return ModelShape(model.vocab_size, model.hidden_size, model.layers, model.heads, model.intermediate_size)
    config = model_folder(model.path, model.sha256).config
    width, layers, heads = (next(int(config[key]) for key in keys if config.get(key)) for keys in SIZES.values())
    return ModelShape(
        int(config["vocab_size"]),
        width,
        layers,
        heads,
        int(config.get("intermediate_size") or config.get("n_inner") or config.get("ffn_dim") or 4 * width),
        int(config.get("num_key_value_heads") or heads),
        bool(config.get("tie_word_embeddings", "n_embd" in config)),  # where absent: GPT-2's are one, Llama's are not
    )

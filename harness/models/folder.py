"""Models from a folder that transformers wrote: loaded once a process, shared by every pack that trains over them."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from harness.model_files.location import local_folder
from harness.models.lane_model import flatten, scaled_logits
from harness.models.lora import adapt, initial_adapters
from harness.types import InputError, LoraSpec, PathModelSpec

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# Families whose lanes are tested against transformers' own forward; any other has to pass that test when it is loaded.
TESTED = frozenset({"llama", "qwen2", "qwen3", "gemma", "mistral", "gpt_neox", "gpt2"})
_KNOWN = f"the families known to do are {', '.join(sorted(TESTED))}"


@dataclass(frozen=True, slots=True)
class Source:
    """Where an architecture's weights come from, and how it runs. Without `lora` all its parameters are trained."""

    folder: str
    sha256: str
    dtype: str = "float32"
    attention: str = "sdpa"
    gradient_checkpointing: bool = False
    lora: LoraSpec | None = None

    @property
    def stored(self) -> torch.dtype:
        """The dtype of the loaded weights: what is trained is kept in fp32, a frozen base in that of the forward."""
        return DTYPES[self.dtype] if self.lora is not None else torch.float32


def source_of(model: PathModelSpec) -> Source:
    """The source of a spec's model; its files are fetched or converted where that was not done before."""
    folder = local_folder(model.path, model.sha256, weights=True)
    return Source(str(folder), model.sha256, model.dtype, model.attention, model.gradient_checkpointing, model.lora)


def open_tokenizer(source: Source) -> Any:
    """The tokenizer of a source's folder, as transformers reads it."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(source.folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"model.path: the tokenizer in {source.folder} cannot be loaded ({_first(error)})") from None


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def base_model(source: Source) -> Any:
    """The loaded model of a source, not to be changed; adapters of any kind share one.

    Raises InputError where its weights cannot be used.
    """
    return _loaded(source if source.lora is None else replace(source, lora=LoraSpec()))


@lru_cache(maxsize=2)  # the policy's and, where that is another, the reference's
def _loaded(source: Source) -> Any:
    from transformers import AutoModelForCausalLM

    quiet()
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            source.folder,
            dtype=source.stored,
            attn_implementation=source.attention,
            trust_remote_code=False,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError, ImportError, TypeError, AttributeError) as error:
        raise InputError(f"model.path: {source.folder} cannot be loaded ({_first(error)})") from error
    for what in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        if names := sorted(map(str, found.get(what) or ())):
            raise InputError(f"model.path: {source.folder}: {what.replace('_', ' ')} {', '.join(names[:3])}")
    if broken := [name for name, p in model.named_parameters() if not bool(torch.isfinite(p).all())]:
        raise InputError(f"model.path: {source.folder}: weights that are not finite in {', '.join(broken[:3])}")
    model.eval()  # dropout off: log-ratios compare models, not masks
    model.config.use_cache = False
    if model.config.model_type not in TESTED:
        try:
            _must_take_rows(model, source)
        except InputError:
            raise
        except Exception as error:  # an unknown architecture may fail at a given mask in any way
            raise InputError(
                f"model.path: {source.folder}: {type(model).__name__} cannot score rows of two responses "
                f"({type(error).__name__}: {_first(error)}); {_KNOWN}"
            ) from error
    if source.gradient_checkpointing:
        # The second name is that of transformers before 5.23.
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    return model


def quiet() -> None:
    """No progress bars of transformers: the sweep shows its own."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def shell(source: Source) -> Any:
    """The source's model as a tree of its own over the loaded parameters, with adapters of zeros where it has `lora`.

    What replaces modules of it (`build_lanes`) leaves the loaded model as it is.
    """
    base = base_model(source)
    model = copy.deepcopy(base, {id(parameter): parameter for parameter in base.parameters()})
    if source.stored != DTYPES[source.dtype]:
        model.compute_dtype = DTYPES[source.dtype]  # read by `build_lanes`
    return model if source.lora is None else adapt(model, source.lora)


def start_weights(source: Source, seed: int) -> Tensor:
    """The row `(P,)` that training starts from: fresh adapters drawn from `seed`, or the model's own weights."""
    return _whole(source) if source.lora is None else initial_adapters(shell(source), seed)


@lru_cache(maxsize=2)
def _whole(source: Source) -> Tensor:
    """The model's own weights `(P,)`: one row for every seed that starts from them."""
    return flatten(base_model(source))


@torch.no_grad()
def _must_take_rows(model: Any, source: Source) -> None:
    """Refuse an architecture that scores a pair-shared row otherwise than the two sequences it stands for."""
    from harness.models.logps import attention_mask

    width = 8
    ids = torch.arange(3 * width)[None] % model.config.get_text_config().vocab_size
    segment = torch.tensor([[0] * width + [1] * width + [2] * width])
    place = torch.cat([torch.arange(2 * width), torch.arange(width, 2 * width)])[None]
    mask = attention_mask(segment).to(model.dtype)
    packed = model(input_ids=ids, attention_mask=mask, position_ids=place).logits.float()
    head = model.get_output_embeddings()(
        model.base_model(input_ids=ids, attention_mask=mask, position_ids=place).last_hidden_state
    )
    plain = torch.cat([ids[:, :width], ids[:, 2 * width :]], 1)
    alone = model(input_ids=plain).logits.float()[:, width:]
    loose = 1e-4 if model.dtype == torch.float32 else 0.05
    scale = alone.abs().max()
    head = scaled_logits(model.config, head.float())
    error = max((packed[:, 2 * width :] - alone).abs().max(), (packed - head).abs().max()) / scale
    if not bool(error <= loose):
        raise InputError(
            f"model.path: {source.folder}: {type(model).__name__} scores rows of two responses differently than each "
            f"alone (relative difference {float(error):.1e}); {_KNOWN}"
        )

"""A reward model: one number for a prompt with an answer, as transformers' own sequence classification gives it.

Texts are written by the model's own chat template, on a fixed date so that a text scores the same on any day. Rows
are padded behind their end with the pad id of the model's configuration, which is how transformers finds the last
token; a model without one scores one text at a time. On a CPU weights are widened to fp32, on a GPU they stay as saved.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.data.chat import template_of, write_turns
from harness.data.transcripts import Turn, as_transcript, from_transcript
from harness.models.folder import quiet
from harness.types import InputError, PathModelSpec

DATE = PathModelSpec().template_date  # what a template that writes the date is given


class Classifier:
    """A loaded reward model of a checked folder. `max_length` 0: as many tokens as the model has positions."""

    def __init__(self, folder: Path, device: torch.device, batch_size: int, max_length: int = 0) -> None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        quiet()
        own: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(str(folder), **own)
            model, found = AutoModelForSequenceClassification.from_pretrained(
                str(folder), dtype=_dtype(device), use_safetensors=True, output_loading_info=True, **own
            )
        except (OSError, ValueError, RuntimeError, KeyError, ImportError, TypeError, AttributeError) as error:
            why = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise InputError(f"reward model {folder} cannot be loaded ({why})") from error
        if missing := sorted(map(str, found.get("missing_keys") or ())):
            raise InputError(
                f"reward model {folder} lacks the weights of {', '.join(missing[:3])}; expected a trained reward model"
            )
        self.model = model.to(device).eval()
        config = model.config.get_text_config()
        self.pad = config.pad_token_id
        self.batch_size = batch_size if self.pad is not None else 1
        positions = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
        # A model may have more positions than it can use: RoBERTa's first two are of padding.
        stated = self.tokenizer.model_max_length if self.tokenizer.model_max_length < 1_000_000 else None
        self.limit = min(filter(None, (max_length, positions, stated)), default=0)
        self.template = template_of(self.tokenizer, DATE)

    def text(self, prompt: str | Sequence[Turn], answer: str) -> str:
        """A prompt with an answer as the model reads it. Raises RowError where its template refuses the turns.

        A prompt that is text is one user turn, or the turns of an HH transcript. White space round an answer is no
        part of a turn. Without a template: prompt + answer, turns as a transcript.
        """
        if not self.template.text:
            return "".join((prompt, answer) if isinstance(prompt, str) else as_transcript(prompt, answer.strip()))
        turns = from_transcript(prompt) if isinstance(prompt, str) else prompt
        return write_turns(self.template, [*turns, {"role": "assistant", "content": answer.strip()}])

    @torch.no_grad()
    def scores(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The logit of each text `(n,)` float32, and which texts were cut to `max_length` `(n,)`."""
        rows, cut = zip(*map(self._ids, texts), strict=True) if texts else ((), ())
        out = np.empty(len(rows), np.float32)
        for places in self._batches(rows):
            width = max(len(rows[i]) for i in places)
            ids = torch.full((len(places), width), self.pad or 0)
            mask = torch.zeros_like(ids)
            for row, i in enumerate(places):
                ids[row, : len(rows[i])] = torch.tensor(rows[i])
                mask[row, : len(rows[i])] = 1
            device = self.model.device
            logits = self.model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits
            out[list(places)] = logits[:, 0].float().cpu().numpy()
        return out, np.array(cut, dtype=bool)

    def _ids(self, text: str) -> tuple[list[int], bool]:
        """Token ids, special tokens added where no template wrote them; of a longer text its end, and its first token
        where that is a special one."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=not self.template.text)["input_ids"]
        if not self.limit or len(ids) <= self.limit:
            return ids or [self.tokenizer.eos_token_id or 0], False
        head = ids[:1] if ids[0] in self.tokenizer.all_special_ids else []
        return head + ids[len(ids) - self.limit + len(head) :], True

    def _batches(self, rows: Sequence[Sequence[int]]) -> Iterator[list[int]]:
        """Places of the rows by length, so that little is padding."""
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        for start in range(0, len(order), self.batch_size):
            yield order[start : start + self.batch_size]


def _dtype(device: torch.device) -> Any:
    return torch.float32 if device.type == "cpu" else "auto"

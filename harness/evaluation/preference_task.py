"""The built-in lm-eval task: a run's own held-out pairs, chosen against rejected, as files that lm-eval reads.

Which of the two stands first alternates from pair to pair, so a model that scores both alike, or always takes the
first, is right on every other pair, not on all. The choices are a column of the data set: lm-eval does not render a
list of templates, and would score the templates themselves. What is scored are token ids, not texts: a text that is
tokenised again may have its last letters and the first of the answer in one token.
"""

from __future__ import annotations

import glob
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.data.rows import TokenisedPair
from harness.identity import content_hash
from harness.storage.atomic import write_atomic

NAME = "preference"
VERSION = 2  # bump when texts, tokens or order change
Decode = Callable[[Sequence[int]], str]


def preference_docs(pairs: Sequence[TokenisedPair], decode: Decode) -> list[dict[str, Any]]:
    """The documents of the task, one per pair: prompt, two choices and the place of the chosen one, as text and as ids.

    The ids are those that the run was measured on; the texts are theirs, cut as they were, `<bos>` and `<eos>` written
    out.
    """
    docs = []
    for number, pair in enumerate(pairs):
        prompt = decode(pair.prompt.tolist())
        chosen, rejected = (_behind(prompt, pair.prompt, ids, decode) for ids in (pair.chosen, pair.rejected))
        choices, choice_ids = [chosen, rejected], [pair.chosen.tolist(), pair.rejected.tolist()]
        if number % 2:
            choices, choice_ids = choices[::-1], choice_ids[::-1]
        texts = {"id": pair.id, "prompt": prompt, "choices": choices, "label": number % 2}
        docs.append({**texts, "prompt_ids": pair.prompt.tolist(), "choice_ids": choice_ids})
    return docs


def _behind(prompt: str, before: np.ndarray, ids: np.ndarray, decode: Decode) -> str:
    """A response as it reads behind its prompt: some tokenizers write a space only between tokens."""
    whole = decode([*before.tolist(), *ids.tolist()])
    return whole[len(prompt) :] if whole.startswith(prompt) else decode(ids.tolist())


def task_config(data: Path) -> dict[str, Any]:
    """The task as lm-eval's own YAML has it, over a file of documents."""
    return {
        "task": NAME,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": glob.escape(str(data))}, "cache_dir": str(data.parent / "cache")},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{prompt}}",
        "doc_to_choice": "choices",  # a column, so that it is data and no template
        "doc_to_target": "label",
        "target_delimiter": "",
        "num_fewshot": 0,
        "metric_list": [
            {"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")
        ],
        "metadata": {"version": VERSION},
    }


def write_task(root: Path, docs: Sequence[dict[str, Any]]) -> Path:
    """The task's folder below `root`, for `--include_path`; named by its documents, so equal ones are written once."""
    import yaml

    folder = root / content_hash([VERSION, list(docs)])[:16]
    config = folder / f"{NAME}.yaml"
    if not config.exists():
        folder.mkdir(parents=True, exist_ok=True)
        data = folder.resolve() / f"{NAME}.jsonl"
        lines = "".join(json.dumps(doc, ensure_ascii=False) + "\n" for doc in docs)
        write_atomic(data, lines.encode("utf-8", "surrogatepass"))
        write_atomic(config, yaml.safe_dump(task_config(data), sort_keys=False, allow_unicode=True).encode("utf-8"))
    return folder

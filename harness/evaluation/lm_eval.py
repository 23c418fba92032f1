"""The one home of lm-eval (https://github.com/EleutherAI/lm-evaluation-harness): tasks run on a model in memory.

Numbers are those of lm-eval's own command on the exported folder: the same tasks, model class and tokenizer, texts as
they stand (no chat template is put round them). The built-in task alone is scored by token ids, those of the run:
where tokenising its texts gives others, lm-eval's own command differs.
"""

from __future__ import annotations

import io
import json
import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.evaluation.own_tasks import NO_TASKS, OwnTasks
from harness.evaluation.preference_task import NAME
from harness.identity import content_hash
from harness.types import InputError

FEWSHOT_SEED = 1234  # lm-eval's own default
BATCH = 16  # sequences a forward; numbers change with it by rounding alone


@dataclass(frozen=True, eq=False)
class TaskResult:
    """One task on one model. `metrics` and `higher_is_better` are by metric name, e.g. `acc`, finite numbers only.

    `samples` are lm-eval's per-document records as its own files hold them. `config_hash` is of the task's settings,
    `data_hash` of its documents, in order.
    """

    task: str
    version: str
    n: int
    limit: int | None
    num_fewshot: int
    metrics: Mapping[str, float]
    higher_is_better: Mapping[str, bool]
    config_hash: str
    data_hash: str
    samples: tuple[dict[str, Any], ...]


def wrap(model: Any, tokenizer: Any, batch_size: int = BATCH) -> Any:
    """lm-eval's view of a transformers model and its tokenizer, where the model is. Weights may be changed under it."""
    with _quiet():
        from lm_eval.models.huggingface import HFLM

        class TokenLM(HFLM):  # type: ignore[misc]
            """Scores the built-in task by its documents' token ids, every other one as lm-eval does."""

            _max_length: int | None

            def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
                own = [one for one in requests if one.task_name == NAME]
                others = [one for one in requests if one.task_name != NAME]
                scores = dict(zip(map(id, own), self._by_ids(own), strict=True))
                scores |= zip(map(id, others), super().loglikelihood(others, disable_tqdm=disable_tqdm), strict=True)
                return [scores[id(one)] for one in requests]

            def _by_ids(self, requests: list[Any]) -> list[tuple[float, bool]]:
                encoded = [(one.args, one.doc["prompt_ids"], one.doc["choice_ids"][one.idx]) for one in requests]
                # The run read these lengths; lm-eval's own guess at the model's limit must not cut them.
                longest = max((len(context) + len(answer) for _, context, answer in encoded), default=0)
                limit = self._max_length
                self._max_length = max(self.max_length, longest)
                try:
                    scores: list[tuple[float, bool]] = self._loglikelihood_tokens(encoded, disable_tqdm=True)
                finally:
                    self._max_length = limit
                return scores

        return TokenLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, device=str(model.device))


def tokenised_otherwise(lm: Any, docs: Sequence[Mapping[str, Any]]) -> int:
    """How many documents of the built-in task lm-eval's own command, which reads their texts, splits otherwise."""

    def as_ids(doc: Mapping[str, Any]) -> bool:
        sides = zip(doc["choices"], doc["choice_ids"], strict=True)
        return bool(doc["prompt"]) and all(
            lm._encode_pair(doc["prompt"], text) == (doc["prompt_ids"], ids) for text, ids in sides
        )

    with _quiet():
        return sum(not as_ids(doc) for doc in docs)


def open_tasks(
    names: Sequence[str], include: Path | None = None, fewshot: int | None = None, own: OwnTasks = NO_TASKS
) -> dict[str, Any]:
    """The tasks of `names` by name, loaded: groups become their members. `include` is the built-in task's folder.

    `own` are checked tasks of the user's folder (`check_tasks`): what they ask for is run.

    `fewshot` overrides the number of examples of tasks that do not fix it at 0. Raises InputError where a task is not
    installed, wants code run, or its data cannot be had.
    """
    with _quiet():
        from lm_eval.tasks import TaskManager

        others = [name for name in names if name != NAME]
        paths = [str(path) for path in (include, own.folder) if path is not None]
        manager = TaskManager(include_path=paths, include_defaults=bool(set(others) - own.members.keys()))
        if missing := [name for name in others if name not in manager.all_tasks]:
            raise InputError(*(f"lm_eval: '{name}' is not installed with lm-eval" for name in missing))
        found: dict[str, Any] = {}
        for name in names:
            try:
                found |= manager.load([name])["tasks"]
            except Exception as error:
                reason = " ".join(str(error).split())[:160]
                raise InputError(
                    f"lm_eval: '{name}' cannot be loaded ({type(error).__name__}: {reason}); offline, its data must "
                    "already be in HF_HOME"
                ) from error
    for name, task in found.items():
        if name not in own.members and (getattr(task, "UNSAFE_CODE", False) or _remote_code(task.dump_config())):
            raise InputError(f"lm_eval: '{name}' asks for code to be run; it is not run here")
        if fewshot is not None and task.get_config("num_fewshot") != 0:  # lm-eval, too, leaves a fixed 0 as it is
            task.set_config(key="num_fewshot", value=fewshot)
        elif task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=FEWSHOT_SEED)
    return found


def _remote_code(config: Mapping[str, Any]) -> bool:
    own = (config.get("dataset_kwargs") or {}).get("trust_remote_code")
    return bool(own) or bool(config.get("unsafe_code"))


def evaluate(lm: Any, tasks: Mapping[str, Any], limit: int | None) -> list[TaskResult]:
    """Run the tasks on a wrapped model, the first `limit` documents of each (None: all)."""
    with _quiet():
        from lm_eval.evaluator import evaluate as run

        for task in tasks.values():
            task._instances = None  # what a task keeps of an earlier model
        done = run(lm, {"tasks": dict(tasks), "groups": {}, "group_map": {}}, limit=limit, bootstrap_iters=0)
    assert done is not None
    return [_result(name, task, done, limit) for name, task in tasks.items()]


def _result(name: str, task: Any, done: Mapping[str, Any], limit: int | None) -> TaskResult:
    samples = tuple(_as_written(sample) for sample in done["samples"][name])
    own = {key: value for key, value in task.dump_config().items() if key not in ("dataset_kwargs", "metadata")}
    higher = {metric: bool(up) for metric, up in (done["higher_is_better"].get(name) or {}).items()}
    return TaskResult(
        task=name,
        version=str(done["versions"].get(name, "")),
        n=len({sample["doc_id"] for sample in samples}),
        limit=limit,
        num_fewshot=int(done["n-shot"].get(name, 0)),
        metrics=_numbers(done["results"][name]),
        higher_is_better=higher,
        config_hash=content_hash(json.loads(json.dumps(own, default=str))),
        data_hash=content_hash([sample["doc_hash"] for sample in samples]),
        samples=samples,
    )


def _numbers(results: Mapping[str, Any]) -> dict[str, float]:
    """Metrics by a name that trackers take: `acc,none` is `acc`, `exact_match,strict-match` is
    `exact_match.strict-match`. Standard errors stay out: they take runs for unpaired."""
    found = {}
    for key, value in results.items():
        metric, comma, rule = key.partition(",")
        if not comma or metric.endswith("_stderr") or isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if math.isfinite(value):
            found[metric if rule == "none" else f"{metric}.{rule}"] = float(value)
    return found


def _as_written(sample: Mapping[str, Any]) -> dict[str, Any]:
    """A sample as lm-eval's `--log_samples` writes it."""
    from lm_eval.utils import handle_non_serializable, sanitize_list

    arguments = {
        f"gen_args_{i}": {f"arg_{j}": part for j, part in enumerate(request)}
        for i, request in enumerate(sample["arguments"])
    }
    changed = {
        "resps": sanitize_list(sample["resps"]),
        "filtered_resps": sanitize_list(sample["filtered_resps"]),
        "arguments": arguments,
        "target": str(sample["target"]),
    }
    text = json.dumps({**sample, **changed}, default=handle_non_serializable, ensure_ascii=False)
    out: dict[str, Any] = json.loads(text)
    return out


@contextmanager
def _quiet() -> Iterator[None]:
    """lm-eval logs, warns and draws bars for a person at its own command; here that is the harness's part."""
    loud = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(loud)

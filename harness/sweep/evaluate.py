"""`harness eval`: lm-eval's tasks on the saved weights of finished runs, paired with the reference of each.

Runs of one base are evaluated on one loaded model, one set of weights after the other. Existing results are kept.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from harness.config.load import SweepSpec, load_sweep
from harness.evaluation.benchmarks import check_tasks
from harness.evaluation.own_tasks import OwnTasks, own_tasks
from harness.evaluation.preference_task import NAME, VERSION, preference_docs, write_task
from harness.identity import plain
from harness.metrics.benchmarks import document_values, paired_change, tie_share
from harness.run_names import planned_runs
from harness.storage.evaluations import (
    EVALUATIONS,
    REFERENCES,
    Change,
    Evaluated,
    points,
    read_evaluations,
    read_samples,
    write_evaluations,
)
from harness.storage.lock import sweep_lock
from harness.storage.runs import RESULT, find_run, load_result, read_table, run_status
from harness.types import InputError, LmEvalSpec, ModelSpec, PlannedRun, RunSpec, RunStatus, Split

Say = Callable[[str], None]


@dataclass(frozen=True)
class _Entry:
    """A finished run with saved weights."""

    run: RunSpec
    folder: Path
    result: Mapping[str, Any]


def check_asked(sweep: SweepSpec) -> None:
    """Before anything trains: raises InputError for tasks that may not run, and where no weights would be saved."""
    if sweep.lm_eval is None:
        return
    check_tasks(
        sweep.lm_eval.tasks, "evaluation.lm_eval.tasks", _own(sweep.lm_eval, "evaluation.lm_eval.include_path"),
        sweep.lm_eval.trust_task_code,
    )  # fmt: skip
    built = [run for run in sweep.runs if run.world is not None or isinstance(run.model, ModelSpec)]
    if any(run.evaluation.keep in ("", "none") for run in built):
        raise InputError("evaluation.lm_eval: the weights of a model that the sweep builds are not saved; "
                         "set evaluation.keep: final")  # fmt: skip
    if any(run.evaluation.keep == "none" for run in sweep.runs):
        raise InputError("evaluation.lm_eval: evaluation.keep: none leaves no weights to evaluate; set it to final")


def evaluate_folder(
    folder: Path, asked: LmEvalSpec, say: Say
) -> tuple[list[tuple[Path, tuple[Evaluated, ...]]], list[str]]:
    """Evaluate a run, or the runs of a sweep that `asked.runs` names: each run's folder with its tasks, and failures.

    Results are in the run's folder (`harness.storage.evaluations`), those of references under `references/`.
    Raises InputError for tasks that may not run, and where no run has weights to evaluate.
    """
    alone = (folder / RESULT).exists()
    sweep_folder = folder.resolve().parent if alone else folder
    spec = sweep_folder / "sweep.yaml"
    if not spec.is_file():
        raise InputError(f"{sweep_folder}: no sweep.yaml; expected a sweep's folder, or a run's inside one")
    entries = _chosen(
        _entries(sweep_folder, planned_runs(load_sweep(spec).runs)), asked.runs, folder.name if alone else ""
    )
    if not entries:
        raise InputError(
            f"{folder}: no finished run with saved weights to evaluate; run the sweep with evaluation.keep: final"
        )
    failures = _evaluate(sweep_folder, entries, asked, say)
    return [(entry.folder, read_evaluations(entry.folder)) for entry in entries], failures


def evaluate_runs(
    sweep_folder: Path, runs: Sequence[PlannedRun], asked: LmEvalSpec, say: Say, which: str = "all"
) -> list[str]:
    """Evaluate those of `runs` that are finished with saved weights and that `which` takes; one line per failure."""
    failures: list[str] = []
    with _noted("evaluation", failures):
        try:
            failures += _evaluate(sweep_folder, _chosen(_entries(sweep_folder, runs), which, ""), asked, say)
        except InputError as error:
            failures += error.problems
    return failures


@contextmanager
def _noted(name: str, failures: list[str]) -> Iterator[None]:
    """Whatever fails inside becomes a line of `failures`: models and tasks fail in many ways, and training is done.

    InputError is for the caller: it is about what was asked for, not about one model.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        failures.append(f"{name}: not evaluated, {type(error).__name__}: {' '.join(str(error).split())[:200]}")


def _evaluate(sweep_folder: Path, entries: Sequence[_Entry], asked: LmEvalSpec, say: Say) -> list[str]:
    """Evaluate the entries; what failed, one line each."""
    own = _own(asked, "--include-path")
    asked = replace(asked, tasks=check_tasks(asked.tasks, "tasks", own, asked.trust_task_code))
    failures: list[str] = []
    for group in _by_base(entries):
        with _noted(", ".join(entry.folder.name for entry in group), failures):
            _evaluate_group(sweep_folder, group, asked, own, say, failures)
    return failures


def _entries(sweep_folder: Path, runs: Sequence[PlannedRun]) -> list[_Entry]:
    from harness.models.weights import FILE as WEIGHTS

    entries = []
    for planned in runs:
        folder = find_run(sweep_folder, planned.key)
        result = load_result(folder) if folder is not None else None
        if folder and result and run_status(result) is RunStatus.DONE and WEIGHTS in result["files"]:
            entries.append(_Entry(planned.run, folder, result))
    return entries


def _chosen(entries: Sequence[_Entry], which: str, name: str) -> list[_Entry]:
    """The entry of one folder; else all, the best of each objective by held-out ranking, or those with a warning."""
    if name:
        return [entry for entry in entries if entry.folder.name == name]
    if which == "all":
        return list(entries)
    if which == "flagged":
        return [entry for entry in entries if _flagged(entry)]
    best: dict[tuple[Any, ...], _Entry] = {}
    for entry in entries:
        key = (entry.run.objective.name, entry.run.corruption, entry.run.seed)
        score = entry.result["results"].get("ranking_accuracy")
        if score is not None and (key not in best or score > best[key].result["results"]["ranking_accuracy"]):
            best[key] = entry
    return list(best.values())


def _flagged(entry: _Entry) -> bool:
    """Whether the sentinel of the run's free-running samples fires."""
    from harness.metrics.sentinel import watch

    path = entry.folder / "samples.parquet"
    return path.exists() and bool(watch(read_table(path)).flags)


def _by_base(entries: Sequence[_Entry]) -> Iterator[list[_Entry]]:
    """Entries that start from one reference: they share held-out pairs and fit into one loaded model."""
    from harness.inputs.reference_models import reference_key

    groups: dict[str, list[_Entry]] = {}
    for entry in entries:
        groups.setdefault(reference_key(entry.run), []).append(entry)
    yield from groups.values()


def _evaluate_group(
    sweep_folder: Path, group: Sequence[_Entry], asked: LmEvalSpec, own: OwnTasks, say: Say, failures: list[str]
) -> None:
    from harness.evaluation import lm_eval
    from harness.inputs.encoded import open_inputs
    from harness.inputs.reference_models import reference_key
    from harness.models.export import export_run, open_exported, put_weights
    from harness.models.weights import FILE as WEIGHTS
    from harness.models.weights import load_weights_file, weight_tensors
    from harness.worker.prepare import pick_device

    cache = sweep_folder.parent / "cache"
    base = sweep_folder / REFERENCES / reference_key(group[0].run)[:16]
    todo = [(entry, _missing(entry.folder, asked, own, entry.result["files"][WEIGHTS])) for entry in group]
    wanted = [name for name in asked.tasks if any(name in missing for _, missing in todo)]
    if not wanted:
        return
    weights = [(entry.folder, entry.result["files"][WEIGHTS]) for entry in group]
    _keep_larger([(base, "reference"), *weights], asked, own)
    inputs = open_inputs(group[0].run, cache)
    with tempfile.TemporaryDirectory(prefix="lm-eval-", dir=_created(cache)) as place:
        exported = Path(place) / "exported"
        export_run(group[0].folder, exported)
        model, tokenizer = open_exported(exported, pick_device(group[0].run.device))
        wrapped = lm_eval.wrap(model, tokenizer, asked.batch_size)
        include = None
        if NAME in wanted:
            pairs = [inputs.encode(pair) for pair in inputs.evals[Split.HELDOUT]]
            docs = preference_docs(pairs, lambda ids: str(tokenizer.decode(ids, skip_special_tokens=False)))
            include = write_task(cache / "lm_eval", docs)
            apart = lm_eval.tokenised_otherwise(wrapped, docs)
            note = f" ({apart} of {len(docs)} pairs: its tokens are not the run's)" if apart else ""
            say(f"task     {NAME}: lm_eval --include_path {include}{note}")
        tasks = lm_eval.open_tasks(wanted, include, asked.num_fewshot, own)
        of_base = [name for name in wanted if name in _missing(base, asked, own, "reference")]
        if of_base:
            frozen, judged = inputs.reference, wrapped
            if inputs.other is None:
                put_weights(model, weight_tensors(frozen.architecture, frozen.weights))
            elif (source := frozen.architecture.source) is not None:
                opened, _ = open_exported(Path(source.folder), pick_device(group[0].run.device))
                judged = lm_eval.wrap(opened, tokenizer, asked.batch_size)
            results = lm_eval.evaluate(judged, _members(tasks, of_base, own), asked.limit)
            _store(_created(base), 0, "reference", results, None, own)
            say(f"eval     reference {base.name}: {_first_metrics(read_evaluations(base))}")
        for entry, missing in todo:
            if not missing:
                continue
            with _noted(entry.folder.name, failures):
                tensors, _ = load_weights_file(entry.folder / WEIGHTS)
                put_weights(model, tensors)
                results = lm_eval.evaluate(wrapped, _members(tasks, missing, own), asked.limit)
                _store(entry.folder, entry.result["steps"], entry.result["files"][WEIGHTS], results, base, own)
                say(f"eval     {entry.folder.name}: {_first_metrics(read_evaluations(entry.folder))}")


def _created(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _own(asked: LmEvalSpec, key: str) -> OwnTasks:
    return own_tasks(Path(asked.include_path) if asked.include_path else None, key)


def _members(tasks: Mapping[str, Any], names: Sequence[str], own: OwnTasks) -> dict[str, Any]:
    """Of the loaded tasks those of `names`, or of groups among them."""
    return {task: loaded for task, loaded in tasks.items() if any(_belongs(task, name, own) for name in names)}


def _belongs(task: str, name: str, own: OwnTasks) -> bool:
    """Whether a task is `name` or a member of the group `name`; lm-eval's own groups begin their members' names."""
    if name in own.members:
        return task in own.members[name]
    return task == name or task.startswith(f"{name}_")


def _missing(folder: Path, asked: LmEvalSpec, own: OwnTasks, weights: str) -> list[str]:
    """The asked tasks (or groups) that a folder lacks in these settings for these weights."""
    have = {
        one.task
        for one in read_evaluations(folder)
        if one.weights == weights and one.limit == asked.limit and _fewshot_as_asked(one, asked)
        if one.task != NAME or one.version == str(VERSION)
        if one.task not in own.digests or one.version.endswith(own.digests[one.task])
    }
    return [name for name in asked.tasks if not _complete(name, have, own)]


def _keep_larger(models: Sequence[tuple[Path, str]], asked: LmEvalSpec, own: OwnTasks) -> None:
    """Raises InputError where results of a task on more documents, of the same weights, would be replaced."""
    for folder, weights in models:
        for one in read_evaluations(folder):
            larger = asked.limit is not None and (one.limit is None or one.limit > asked.limit)
            if larger and one.weights == weights and any(_belongs(one.task, name, own) for name in asked.tasks):
                raise InputError(
                    f"--limit {asked.limit}: {one.task} of {folder.name} is there on {one.n:,} documents, which this "
                    f"would replace; leave --limit out, or move {folder / EVALUATIONS} away"
                )


def _complete(name: str, have: set[str], own: OwnTasks) -> bool:
    if name in own.members:
        return set(own.members[name]) <= have
    return any(_belongs(task, name, own) for task in have)


def _fewshot_as_asked(evaluated: Evaluated, asked: LmEvalSpec) -> bool:
    return asked.num_fewshot is None or evaluated.num_fewshot in (asked.num_fewshot, 0)


def _store(folder: Path, step: int, weights: str, results: Sequence[Any], base: Path | None, own: OwnTasks) -> None:
    """Write the results of one model, with their paired change against the reference in `base`."""
    reference = {one.task: one for one in read_evaluations(base)} if base is not None else {}
    rows = []
    for result in results:
        metrics = dict(result.metrics)
        if result.task == NAME:
            metrics["ties"] = tie_share(result.samples)
        before = reference.get(result.task)
        evaluated = Evaluated(
            task=result.task,
            version=f"{result.version} {own.digests.get(result.task, '')}".strip(),
            library=version("lm_eval"),
            n=result.n,
            limit=result.limit,
            num_fewshot=result.num_fewshot,
            metrics=metrics,
            higher_is_better=result.higher_is_better,
            config_hash=result.config_hash,
            data_hash=result.data_hash,
            weights=weights,
            change=_changes(result, base, before) if base is not None and before is not None else {},
        )
        rows.append((evaluated, result.samples))
    write_evaluations(folder, step, rows)


def _changes(result: Any, base: Path, before: Evaluated) -> dict[str, Change]:
    """The change of every metric of single documents against the reference; none where the documents differ."""
    if (before.data_hash, before.config_hash) != (result.data_hash, result.config_hash):
        return {}
    earlier = read_samples(base, before)
    changes = {}
    for name in result.metrics:
        after, before_values = document_values(result.samples, name), document_values(earlier, name)
        if after and before_values:
            change, both = paired_change(after, before_values)
            if change.n > 1:
                changes[name] = Change(change.mean, change.low, change.high, before.metrics[name], both)
    return changes


def _first_metrics(evaluated: Sequence[Evaluated]) -> str:
    """The first metric of each task, with its change."""
    parts = []
    for one in evaluated:
        name, value = next(iter(one.metrics.items()))
        change = one.change.get(name)
        moved = f" ({change.mean:+.3f} [{change.low:+.3f}, {change.high:+.3f}])" if change is not None else ""
        parts.append(f"{one.task} {name} {value:.3f}{moved}")
    return ", ".join(parts)


def publish(folder: Path, say: Say) -> None:
    """Bring the report and the tracking store up to date with what was evaluated in a run's or a sweep's folder."""
    from harness.report.page import write_report
    from harness.tracking.outbox import Outbox

    sweep_folder = folder.resolve().parent if (folder / RESULT).exists() else folder.resolve()
    with sweep_lock(sweep_folder):
        say(f"report   {write_report(sweep_folder)}")
        waiting = Outbox(sweep_folder).finish()
    if waiting:
        say(f"tracking {waiting} points waiting, run harness sync {sweep_folder}")


def results_json(results: Sequence[tuple[Path, tuple[Evaluated, ...]]], alone: bool) -> dict[str, Any]:
    """What `harness eval --json` prints: `lm_eval/<task>/<metric>` of the run, or of each run under its folder's name.

    With them, under `tasks`, the settings of each task and its interval against the reference.
    """
    by_run = {folder.name: _run_json(evaluated) for folder, evaluated in results}
    return next(iter(by_run.values())) if alone else {"runs": by_run}


def _run_json(evaluated: Sequence[Evaluated]) -> dict[str, Any]:
    numbers = {name: value for one in evaluated for name, value in points(one).items()}
    return {**numbers, "tasks": {one.task: plain(one) for one in evaluated}}

"""What MLflow gets of one finished run: tags, params, points and data set, copied from its folder alone.

Pure functions of `result.json`, the journal and `plan.json`; imports neither mlflow nor torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from harness.identity import canonical_json, content_hash, file_sha256
from harness.palette import looks
from harness.storage.evaluations import EVALUATIONS
from harness.storage.gold import GOLD
from harness.storage.journal import read_journal
from harness.storage.judgements import JUDGEMENTS, read_judgements
from harness.storage.judgements import points as judge_points
from harness.storage.plan_file import read_plan_file
from harness.storage.runs import RESULT, run_status
from harness.text import placeless
from harness.types import RunStatus

STATUS = {
    RunStatus.DONE: "FINISHED",
    RunStatus.DIVERGED: "FINISHED",
    RunStatus.FAILED: "FAILED",
    RunStatus.STOPPED: "KILLED",
}
LATER = (EVALUATIONS, GOLD)  # journals of a run that are written after its result
PLAIN = {"world.misaligned": "refwrong"}  # what a run's name calls it
LONGEST_CONDITION = 200  # characters; it is a tag, a filter and a name in a menu
LONGEST_PARAM = 6000  # characters; MLflow cuts longer ones silently
# Points cost a server most: of 10,000 runs it gets 50 per metric, which look the same in a chart as all of them.
BIG, MOST = 1000, 50


@dataclass(frozen=True, slots=True)
class Point:
    """One metric value at one step; `timestamp` is `t0_ms + step` in milliseconds, so a replay is the same point."""

    key: str
    value: float
    timestamp: int
    step: int


@dataclass(frozen=True, slots=True)
class RunRow:
    """One MLflow run: `digest` identifies its content, so that a run trained again differs from one sent before."""

    run_key: str
    name: str
    digest: str
    status: str  # FINISHED | FAILED | KILLED
    start_ms: int
    end_ms: int
    tags: Mapping[str, str]
    params: Mapping[str, str]
    points: tuple[Point, ...]
    data: Mapping[str, str]  # name, digest (at most 36 characters), source: what the run was trained on


@dataclass(frozen=True, slots=True)
class Plan:
    """What the projection needs of `plan.json`.

    `names`, `objectives` and `conditions` are by run key, in plan order; `colours` by objective. A condition is
    everything but objective and seed, as far as it differs within the sweep: `refwrong=0.75 clean`.
    """

    sweep: str
    names: Mapping[str, str]
    colours: Mapping[str, str]
    question: str = ""
    objectives: Mapping[str, str] = field(default_factory=dict)
    conditions: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    tags: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # a study's, by run key: its trial and state
    upload_texts: bool = False  # whether texts of pairs of `data` may be sent

    def marks(self, run_key: str) -> dict[str, str]:
        """The tags of a run that follow the present plan: the same run may be in, out or renamed after a change."""
        if run_key not in self.names:
            return {"harness.current": "false"}
        return {
            "harness.current": "true",
            "harness.condition": self.conditions[run_key],
            "mlflow.runName": self.names[run_key],
            "mlflow.runColor": self.colours[self.objectives[run_key]],
            **self.tags.get(run_key, {}),
        }


def read_plan(sweep_folder: Path) -> Plan:
    """The plan of a sweep folder. Raises InputError where `plan.json` cannot be read."""
    value = read_plan_file(sweep_folder)
    runs = {run["run_key"]: run["config"] for run in value["runs"]}
    objectives = {key: config["objective"]["name"] for key, config in runs.items()}
    params = {key: _params(config) for key, config in runs.items()}
    return Plan(
        sweep=sweep_folder.name,
        names=_legends({run["run_key"]: run["name"] for run in value["runs"]}),
        colours={name: look.colour for name, look in looks(objectives.values()).items()},
        question=value.get("question") or "",
        objectives=objectives,
        conditions=_conditions(params),
        params=params,
        tags={run["run_key"]: run["tags"] for run in value["runs"] if run.get("tags")},
        upload_texts=value.get("report", {}).get("upload_texts") is True,
    )


def _legends(names: Mapping[str, str]) -> dict[str, str]:
    """Names without the settings that all runs share (`refwrong=0.75`): a chart's legend shows some 30 letters."""
    words = {key: name.split(" ") for key, name in names.items()}
    shared = set.intersection(*map(set, words.values())) if len(words) > 1 else set()
    dropped = {word for word in shared if "=" in word and not word.startswith("b=")}
    return {key: " ".join(word for word in name if word not in dropped) for key, name in words.items()}


def _conditions(params: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """A readable condition by run key, of as few params as separate all conditions."""
    settings = {
        key: {name: text for name, text in run.items() if name != "seed" and not name.startswith("objective.")}
        for key, run in params.items()
    }
    names = list(dict.fromkeys(name for run in settings.values() for name in run))
    varying = [name for name in names if len({run.get(name) for run in settings.values()}) > 1]
    count = len({tuple(run.get(name) for name in varying) for run in settings.values()})
    for name in reversed(varying):
        fewer = [other for other in varying if other != name]
        if len({tuple(run.get(other) for other in fewer) for run in settings.values()}) == count:
            varying = fewer
    return {key: _condition(run, varying) for key, run in settings.items()}


def _condition(params: Mapping[str, str], varying: Iterable[str]) -> str:
    kind, rate = params["corruption.kind"], params.get("corruption.rate", "")
    named = ("corruption.kind", "corruption.rate")
    short = {name: PLAIN.get(name, name.rpartition(".")[2]) for name in varying if name not in named}
    parts = [f"{text}={params[name]}" for name, text in short.items() if name in params]
    text = " ".join([*parts, "clean" if kind == "none" else f"{kind} {rate}".strip()]).replace("'", "")
    return text if len(text) <= LONGEST_CONDITION else f"{text[:LONGEST_CONDITION]} {content_hash(text)[:8]}"


def digest_of(result: Mapping[str, Any]) -> str:
    """32 hex characters that change with the run's outcome, journal or attempt."""
    journals = {name: sha for name, sha in result["files"].items() if name.endswith(".jsonl")}
    outcome = {key: result[key] for key in ("run_key", "status", "t0_ms", "results")}
    return content_hash({"files": journals, "attempt": result["attempt"], **outcome})[:32]


def delivery_digest(folder: Path, result: Mapping[str, Any]) -> str:
    """The digest of a delivery: of the run, and of benchmark results, gold scores and judgements that came since.

    The run's digest does not change with these, so they are added to it at the server and do not replace it.
    """
    later = [file_sha256(folder / name) for name in (*LATER, JUDGEMENTS) if (folder / name).exists()]
    return content_hash([digest_of(result), *later])[:32] if later else digest_of(result)


def run_row(folder: Path, result: Mapping[str, Any], plan: Plan) -> RunRow:
    """The MLflow run of a committed run folder. Raises JournalDamaged or OSError where its files cannot be trusted."""
    journal = folder / "events.jsonl"
    records = read_journal(journal) if journal.exists() or "events.jsonl" in result["files"] else []
    records += _evaluations(folder)
    config, key = result["config"], result["run_key"]
    # A run that failed before its first step has no start; nothing of it has a step that would need one.
    start = int(result["t0_ms"]) or int((folder / RESULT).stat().st_mtime * 1000)
    seconds = result["costs"].get("seconds") or 0.0
    return RunRow(
        run_key=key,
        name=plan.names.get(key, result["name"]),
        digest=digest_of(result),
        status=STATUS[run_status(result)],
        start_ms=start,
        end_ms=start + max(int(result["steps"]), round(1000 * seconds)),
        tags=_tags(result, records, plan),
        params=_params(config),
        points=thinned(points(records, start), len(plan.names)),
        data=_data(folder, config),
    )


def points(records: Iterable[Mapping[str, Any]], start_ms: int) -> Iterable[Point]:
    """Every finite metric of a journal, in its order. Nothing else is ever sent."""
    for record in records:
        if record.get("kind") == "metrics":
            step = int(record["step"])
            for name, value in record.items():
                if name not in ("kind", "step") and _is_number(value):
                    yield Point(name, float(value), start_ms + step, step)


def thinned(points: Iterable[Point], runs: int) -> tuple[Point, ...]:
    """The points that MLflow gets of a run in a sweep of `runs` runs; the journal has all of them.

    Above `BIG` runs each metric sends at most `MOST` of its points: the first, the last, and even steps between.
    """
    every = tuple(points)
    if runs <= BIG:
        return every
    places: dict[str, list[int]] = {}
    for place, point in enumerate(every):
        places.setdefault(point.key, []).append(place)
    sent = {at[round(i * (len(at) - 1) / (MOST - 1))] for at in places.values() for i in range(MOST)}
    return tuple(point for place, point in enumerate(every) if place in sent)


def count_points(folder: Path, runs: int = 0) -> int:
    """How many points a run folder sends in a sweep of `runs` runs. Raises as `run_row` does."""
    journal = folder / "events.jsonl"
    records = read_journal(journal) if journal.exists() else []
    return len(thinned(points([*records, *_evaluations(folder)], 0), runs))


def _evaluations(folder: Path) -> list[dict[str, Any]]:
    """The points that came after the run: of benchmarks and gold models, and of the judge that was asked last."""
    later = [record for name in LATER if (folder / name).exists() for record in read_journal(folder / name)]
    judged = [(one.step, found) for one in read_judgements(folder) if (found := judge_points(one))]
    return later + [{"kind": "metrics", "step": step, **found} for step, found in judged[-1:]]


def is_committed(folder: Path) -> bool:
    """Whether the run has a result, verified or not."""
    return (folder / RESULT).exists()


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _tags(result: Mapping[str, Any], records: Iterable[Mapping[str, Any]], plan: Plan) -> dict[str, str]:
    config = result["config"]
    objective = config["objective"]["name"]
    tags = {
        "harness.sweep": plan.sweep,
        "harness.kind": "run",
        "harness.run_key": result["run_key"],
        "harness.objective": objective,
        "harness.corruption": config["corruption"]["kind"],
        "harness.seed": str(config["seed"]),
        "harness.state": result["status"],
        **plan.marks(result["run_key"]),
    }
    beta, rate = dict(config["objective"]["hyperparameters"]).get("beta"), config["corruption"]["rate"]
    optional = {
        "harness.beta": beta,
        "harness.rate": rate,
        "harness.diverged_step": next((r["diverged_step"] for r in records if "diverged_step" in r), None),
        "harness.error": _error(result, plan.upload_texts) or None,
    }
    return tags | {name: _text(value) for name, value in optional.items() if value is not None}


def _error(result: Mapping[str, Any], texts: bool) -> str:
    """The end of the traceback. Messages may quote a row: of runs on `data` only the kind of failure is sent."""
    error = str(result.get("error") or "")
    if error and result["config"].get("data") and not texts:
        return f"{result['reason']}; the traceback is in errors.log of the sweep's folder"
    return error[-500:]


def _params(config: Mapping[str, Any]) -> dict[str, str]:
    """Dotted params. The clean set has rate 0; `objective.log10_beta` replaces the log axis that MLflow lacks."""
    objective, corruption = config["objective"], config["corruption"]
    rate = 0.0 if corruption["kind"] == "none" else corruption["rate"]
    values: dict[str, Any] = {
        "objective.name": objective["name"],
        **{f"objective.{name}": value for name, value in objective["hyperparameters"]},
        "corruption.kind": corruption["kind"],
        "corruption.rate": rate,
        **{f"corruption.{name}": value for name, value in corruption["params"]},
        "seed": config["seed"],
        "replica": config["replica"] or None,
    }
    beta = values.get("objective.beta")
    if _is_number(beta) and beta > 0:
        values["objective.log10_beta"] = round(math.log10(beta), 6)
    for section, prefix in (("world", "world"), ("data", "data"), ("model", "model"), ("training", "train")):
        for name, value in (config.get(section) or {}).items():
            if (section, name) != ("data", "path"):
                values[f"{prefix}.{name}"] = placeless(value)
    return {name: _text(value) for name, value in values.items() if value is not None and value != ""}


def _text(value: Any) -> str:
    """A param as text; what MLflow would cut is replaced by the hash of its canonical JSON."""
    text = value if isinstance(value, str) else canonical_json(value)
    return text if len(text) <= LONGEST_PARAM else f"sha256:{content_hash(value)}"


def _data(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """The training set: its content hash where provenance states one, else the hash of its recipe."""
    section = config.get("world") or config.get("data") or {}
    setting = {name: placeless(value) for name, value in section.items()}
    recipe = {"setting": setting, "corruption": config["corruption"]}
    source = canonical_json({**recipe, "seed": config["seed"]})
    stated = ""
    provenance = folder / "provenance.json"
    if provenance.exists():
        stated = json.loads(provenance.read_text(encoding="utf-8")).get("data", {}).get("sha256", "")
    kind = (config.get("world") or {}).get("kind") or "pairs"
    corruption = config["corruption"]["kind"]
    name = kind if corruption == "none" else f"{kind} {corruption}"
    return {"name": name, "digest": (stated or content_hash(source))[:36], "source": source}

"""What a sweep folder says: the planned runs in spec order, each with its result where it has one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from harness.identity import canonical_json
from harness.report.render.text import quantity
from harness.storage.atomic import read_json
from harness.storage.gold import FINAL, SAMPLES, Scored, read_gold, with_gold
from harness.storage.journal import JournalDamaged
from harness.storage.plan_file import PLAN, read_plan_file
from harness.storage.runs import load_result, read_table, run_folders, run_status
from harness.text import placeless, without_places
from harness.types import InputError, RunStatus, SeedRounds

STATUSES = tuple(RunStatus)
UNFINISHED = STATUSES[1:]

# Leaves of a run's config that have a column of their own, or are no part of what is compared.
_NAMED = {"world.misaligned", "world.labels", "training.steps", "data.path"}


@dataclass(frozen=True)
class Run:
    """One planned run. `result` is the content of `result.json`, None while the run is pending; `published` the preset
    whose loss it runs, beta aside, None where nobody published that."""

    key: str
    config: Mapping[str, Any]
    result: Mapping[str, Any] | None
    folder: Path | None
    published: str | None = None
    stated: Mapping[str, Any] | None = None  # the provenance of a run that was published, which has no folder

    @property
    def status(self) -> RunStatus:
        """How far the run came."""
        return run_status(self.result)

    @property
    def done(self) -> bool:
        """Whether it finished with a result."""
        return self.status is RunStatus.DONE

    @property
    def seed(self) -> int:
        """The replicate seed, the unit of every paired difference."""
        return int(self.config["seed"])

    @property
    def replica(self) -> int:
        """Which repetition of one seed: another order of the same training data."""
        return int(self.config.get("replica") or 0)

    @property
    def objective(self) -> str:
        """Name of the objective."""
        return str(self.config["objective"]["name"])

    @cached_property
    def hyperparameters(self) -> dict[str, Any]:
        """Resolved hyperparameters by name, beta among them where the objective has one."""
        return dict(self.config["objective"]["hyperparameters"])

    @property
    def beta(self) -> float | None:
        """Beta, or None for objectives without one."""
        value = self.hyperparameters.get("beta")
        return None if value is None else float(value)

    @property
    def corruption(self) -> str:
        """Kind of the corruption; `none` is the clean set."""
        return str(self.config["corruption"]["kind"])

    @property
    def corruption_text(self) -> str:
        """The corruption as a reader names it: kind and rate, a sequence step by step."""
        spec = self.config["corruption"]
        steps = dict(spec["params"]).get("steps") if self.corruption == "sequence" else None
        parts = [(kind, rate) for kind, rate, _ in steps] if steps else [(self.corruption, spec.get("rate"))]
        return " + ".join(kind if rate is None else f"{kind} {rate:g}" for kind, rate in parts)

    @property
    def rate(self) -> float | None:
        """Share of corrupted pairs: 0 for the clean set, planned or (derived-rate kinds) realised; None if unknown."""
        if self.corruption == "none":
            return 0.0
        planned = self.config["corruption"].get("rate")
        value = planned if planned is not None else self.measured("rate")
        return None if value is None else float(value)

    @property
    def misaligned(self) -> float | None:
        """The world's dial; None for real data."""
        world = self.config.get("world")
        return None if world is None else float(world["misaligned"])

    @property
    def slices(self) -> list[str]:
        """Columns of the data by which results are broken down."""
        names = str((self.config.get("data") or {}).get("slices") or "")
        return names.split(", ") if names else []

    @property
    def labels(self) -> str | None:
        """`hard` or `bradley_terry`; None for real data."""
        world = self.config.get("world")
        return None if world is None else str(world["labels"])

    @cached_property
    def arm(self) -> str:
        """The objective with all its hyperparameters, as one text: what is compared across corruptions."""
        return canonical_json([self.config["objective"], self.config.get("reward_model")])

    @cached_property
    def setting(self) -> str:
        """Everything but objective, corruption and seed, as one text: what a corruption is swept under."""
        return canonical_json({k: v for k, v in self._shared().items() if k != "corruption"})

    def table(self, file: str, columns: Sequence[str] | None = None) -> dict[str, NDArray[Any]] | None:
        """A Parquet file of the run's folder as columns; None where it has none. OSError where it is damaged."""
        path = None if self.folder is None else self.folder / file
        table = None if path is None or not path.is_file() else read_table(path, columns)
        if table is None or file != SAMPLES or not self.gold or self.folder is None:
            return table
        return with_gold(self.folder, table, self.gold[0].name)

    @cached_property
    def gold(self) -> tuple[Scored, ...] | None:
        """What reward models say of the run, in the order asked for; None where their journal is damaged."""
        if self.folder is None or not self.result:
            return ()
        try:
            return read_gold(self.folder, str(self.result["files"].get(SAMPLES, "")))
        except JournalDamaged:
            return None

    @cached_property
    def results(self) -> Mapping[str, Any]:
        """The measured columns, those of the first reward model where the source knows no true reward."""
        own = dict(self.result["results"]) if self.result else {}
        known = self.gold[0].metrics if self.gold else {}
        return own | {name: known[name] for name in FINAL if name in known and own.get(name) is None}

    @cached_property
    def provenance(self) -> Mapping[str, Any]:
        """What `provenance.json` says; empty where the run left none."""
        if self.stated is not None:
            return self.stated
        path = None if self.folder is None else self.folder / "provenance.json"
        return read_json(path) if path is not None and path.is_file() else {}

    @property
    def pairs(self) -> Mapping[str, int]:
        """Pairs measured on, by `heldout` and `ood`: planned, or of a published run what its records held."""
        planned = self.config.get("evaluation") or {}
        return dict(self.provenance.get("pairs") or {name: int(planned.get(name) or 0) for name in ("heldout", "ood")})

    @property
    def parameters(self) -> int | None:
        """Parameters of the model, frozen ones among them; None where the run does not say."""
        if self.costs.get("parameters"):
            return int(self.costs["parameters"])
        adapters = (self.config.get("model") or {}).get("lora")  # where the reference is stated without its base
        stated = (self.provenance.get("reference") or {}).get("parameters")
        return None if adapters or not stated else int(stated)

    @property
    def costs(self) -> Mapping[str, Any]:
        """Seconds, tokens, flops, peak_memory and the like; empty while the run is pending."""
        return self.result["costs"] if self.result else {}

    @property
    def planned_steps(self) -> int:
        """Optimizer steps asked for; iterations of an RL objective."""
        hp = self.hyperparameters
        return int(hp.get("iterations") or hp.get("steps") or self.config["training"]["steps"])

    def measured(self, column: str) -> float | None:
        """A measured column of `results.csv`; None where it was not measured or does not apply."""
        value = self.results.get(column)
        return None if value is None else float(value)

    @cached_property
    def condition(self) -> str:
        """Everything but objective and seed, as one text: runs with equal conditions may be compared."""
        return canonical_json(self._shared())

    def _shared(self) -> dict[str, Any]:
        rest = {k: v for k, v in self.config.items() if k not in ("objective", "seed", "device", "reward_model")}
        if rest.get("data"):
            rest["data"] = {k: v for k, v in rest["data"].items() if k != "path"}
        return rest

    @cached_property
    def cell_but_replica(self) -> str:
        """Everything but seed and replica, as one text: runs that differ in nothing that is compared."""
        return canonical_json({k: v for k, v in self.config.items() if k not in ("seed", "replica", "device")})

    @cached_property
    def cell(self) -> str:
        """Everything but the seed, as one text."""
        return canonical_json([self.config["objective"], self.config.get("reward_model"), self.condition])

    def settings(self) -> dict[str, Any]:
        """Every further leaf of the config that a sweep might vary, by the name of its column.

        Tables and pages leave the machine, so of files and folders it has the names alone.
        """
        out: dict[str, Any] = {"replica": self.replica}
        out |= {f"hp.{k}": leaf(v) for k, v in self.hyperparameters.items() if k != "beta"}
        damage = dict(self.config["corruption"].get("params") or ()).items()
        out |= {f"corruption.{k}": placeless(leaf(v)) for k, v in damage}
        for part in ("world", "data", "model", "training", "evaluation"):
            for name, value in (self.config.get(part) or {}).items():
                if f"{part}.{name}" not in _NAMED:
                    out[f"{part}.{name}"] = placeless(leaf(value))
        return out


def leaf(value: Any) -> Any:
    """A scalar as it is, a structure (a sequence of corruptions, a mixture) as canonical JSON text."""
    return value if value is None or isinstance(value, str | int | float | bool) else canonical_json(value)


@dataclass(frozen=True)
class Sweep:
    """A sweep folder: name, question, what the plan noted (dropped rows and the like), runs in spec order.

    `texts` is what the plan says that a report shows of texts, empty where it says nothing.
    """

    folder: Path
    name: str
    question: str
    notes: tuple[str, ...]
    runs: tuple[Run, ...]
    texts: str = ""
    rounds: SeedRounds | None = None  # where seeds came in rounds

    @property
    def private(self) -> bool:
        """Whether any run is on pairs of a user's, whose texts are not ours to show."""
        return any(run.config.get("data") is not None for run in self.runs)

    @cached_property
    def plugins(self) -> tuple[tuple[str, str], ...]:
        """What of plug-ins the runs use, such as `objective squared_hinge`, and the plug-in that it came from."""
        found = {(f"objective {run.objective}", str(run.config["objective"].get("plugin", ""))) for run in self.runs}
        found |= {
            (f"corruption {run.corruption}", str(run.config["corruption"].get("plugin", ""))) for run in self.runs
        }
        data = [run.config["data"] for run in self.runs if run.config.get("data")]
        found |= {(f"format {source['format']}", str(source.get("plugin", ""))) for source in data}
        return tuple(sorted((what, plugin) for what, plugin in found if plugin))

    @cached_property
    def reward(self) -> str:
        """What to call the reward of answers: `gold reward` where a reward model gives it, else `true reward`."""
        return "gold reward" if any(run.gold for run in self.runs) else "true reward"

    def count(self, status: str) -> int:
        """Number of runs with this status."""
        return sum(run.status == status for run in self.runs)

    def counts(self) -> str:
        """`440 done, 2 diverged`: the runs by status, those without any left out."""
        return ", ".join(f"{n} {status}" for status in STATUSES if (n := self.count(status)))

    @property
    def status_line(self) -> str:
        """`444 runs: 440 done, 2 diverged, 2 pending`."""
        return f"{quantity(len(self.runs), 'run')}: {'' if self.count('done') else '0 done, '}{self.counts()}"

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """Every planned seed, ascending."""
        return tuple(sorted({run.seed for run in self.runs}))

    @cached_property
    def axes(self) -> tuple[str, ...]:
        """Columns, named as in `results.csv`, of the axes beyond objective, beta, corruption, rate, misaligned, seed.

        A hyperparameter is an axis if it takes several values within one objective, a corruption's parameter within
        one kind, everything else within the sweep.
        """
        values: dict[tuple[str, str], set[str]] = {}
        for run in self.runs:
            shared = {"labels": run.labels, "steps": run.planned_steps}
            for name, value in (run.settings() | shared).items():
                scope = {"hp": run.objective, "corruption": run.corruption}.get(name.split(".")[0], "")
                values.setdefault((name, scope), set()).add(canonical_json(value))
        varying = {name for (name, _), distinct in values.items() if len(distinct) > 1}
        return tuple(sorted(varying, key=lambda name: (name != "labels", name)))


def read_sweep(folder: Path) -> Sweep:
    """The sweep under `folder`. InputError where there is no plan or the plan lacks what a report needs."""
    return planned_sweep(folder, read_plan_file(folder))


def planned_sweep(folder: Path, plan: Mapping[str, Any]) -> Sweep:
    """The sweep that consists of a plan's runs, with what of them stands in `folder`."""
    try:
        folders = run_folders(folder)
        runs = tuple(_run(folders.get(e["run_key"][:8]), e) for e in plan["runs"])
        name, question = plan["name"], str(plan.get("question") or "")
        notes = tuple(_note(note) for note in plan.get("notes") or ())
        texts = str((plan.get("report") or {}).get("texts") or "")
        rounds = SeedRounds(**plan["seed_rounds"]) if plan.get("seed_rounds") else None
    except (ValueError, KeyError, TypeError) as problem:
        raise InputError(f"{folder / PLAN}: not a plan ({problem!r}); plan the sweep again") from problem
    return Sweep(folder, name, question, notes, runs, texts, rounds)


def _run(folder: Path | None, planned: Mapping[str, Any]) -> Run:
    key = planned["run_key"]
    result = None if folder is None else load_result(folder)
    if result is not None and (result["run_key"] != key or result["status"] not in STATUSES):
        raise InputError(
            f"{folder}: result.json belongs to run {result['run_key']!r}; restore it or run the sweep again"
        )
    return Run(key, planned["config"], result, folder, published=planned.get("published"))


def _note(note: Any) -> str:
    """A plan note as text, without places on this machine; notes about rows are `{kind, count, rows, text}`."""
    if not isinstance(note, Mapping):
        return without_places(str(note))
    if note.get("text"):
        return without_places(str(note["text"]))
    return without_places(" ".join(f"{name} {value}" for name, value in note.items()))


def ordered(names: Sequence[str] | set[str], baseline: str) -> list[str]:
    """Objective names with the baseline first, the others by name: an order that no row order can change."""
    return sorted(names, key=lambda name: (name != baseline, name))

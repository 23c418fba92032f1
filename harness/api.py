"""The verbs as functions; `harness` exports them, the command line calls them.

They return what they found, raise InputError for a user's mistake, and import what they need when called.
"""

from __future__ import annotations

import html
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.identity import canonical_json
from harness.types import InputError, PathModelSpec

if TYPE_CHECKING:
    import pandas as pd

    from harness.data.export_pairs import Written
    from harness.data.splits import Reading
    from harness.diagnose.diagnosis import Diagnosis
    from harness.frames import Frames
    from harness.report.compare.differences import Differences
    from harness.sweep.engines import Cluster

Overrides = Mapping[str, Any] | Iterable[str]


@dataclass(frozen=True)
class Figure:
    """One figure of a report; a notebook shows it."""

    path: Path

    def _repr_svg_(self) -> str:
        return self.path.read_text("utf-8")


def _figures(folder: Path) -> dict[str, Figure]:
    return {path.stem: Figure(path) for path in sorted((folder / "figures").glob("*.svg"))}


@dataclass(frozen=True)
class Report:
    """A report on disk: the page, and its figures by name."""

    page: Path

    @property
    def figures(self) -> dict[str, Figure]:
        """The figures that the page shows, by name."""
        return _figures(self.page.parent)

    def __str__(self) -> str:
        return str(self.page)

    def _repr_html_(self) -> str:
        link = f'<a href="{html.escape(self.page.as_posix(), quote=True)}">{html.escape(str(self.page))}</a>'
        return f"<p>{link}</p>" + _paragraphs([f"figures: {', '.join(self.figures)}"])


@dataclass(frozen=True)
class Published:
    """A sweep's published form: its folder, and the figures in it by name."""

    folder: Path

    @property
    def figures(self) -> dict[str, Figure]:
        """The figures, by name."""
        return _figures(self.folder)


@dataclass(frozen=True, repr=False)
class Diagnosed:
    """A diagnosis and its folder. `found` holds every estimate; `facts` is what `harness diagnose --json` prints."""

    folder: Path
    found: Diagnosis

    @property
    def verdicts(self) -> dict[str, str]:
        """The kind of the verdict by policy: healthy, reversal, ..."""
        return {one.name: one.verdict.kind for one in self.found.policies}

    @property
    def facts(self) -> dict[str, Any]:
        """The content of `diagnosis.json`."""
        from harness.diagnose.cards import facts

        return facts(self.found)

    @property
    def report(self) -> Report:
        """Its page and figures."""
        return Report(self.folder / "index.html")

    def __repr__(self) -> str:
        from harness.diagnose.page import lines

        return "\n".join([*lines(self.found), f"page     {self.report}"])

    def _repr_html_(self) -> str:
        from harness.diagnose.page import lines

        return _paragraphs(lines(self.found)) + self.report._repr_html_()


@dataclass(frozen=True, repr=False)
class Comparison:
    """Sweeps side by side. `found` holds every difference; `facts` is what `harness compare --json` prints."""

    folder: Path
    found: Differences

    @property
    def answer(self) -> tuple[str, ...]:
        """The answer in two sentences."""
        return tuple(self.facts["answer"])

    @property
    def facts(self) -> dict[str, Any]:
        """The content of `comparison.json`."""
        from harness.report.compare.page import plain

        return plain(self.found)

    @property
    def differences(self) -> pd.DataFrame:
        """A row per matching cell, measure and other sweep."""
        return self._table("differences.csv")

    @property
    def order(self) -> pd.DataFrame:
        """A row per objective's cell and sweep: its difference to the baseline there."""
        return self._table("order.csv")

    @property
    def slopes(self) -> pd.DataFrame:
        """A row per matching cell and measure: the slope per decade of parameters."""
        return self._table("slopes.csv")

    @property
    def report(self) -> Report:
        """Its page and figures."""
        return Report(self.folder / "index.html")

    def _table(self, file: str) -> pd.DataFrame:
        from harness.frames import read_csv

        return read_csv(self.folder / file)

    def __repr__(self) -> str:
        return "\n".join([*self.answer, f"page     {self.report}"])

    def _repr_html_(self) -> str:
        return _paragraphs(self.answer) + self.report._repr_html_()


def _paragraphs(texts: Iterable[str]) -> str:
    return "".join(f"<p>{html.escape(text)}</p>" for text in texts)


@dataclass(frozen=True, repr=False)
class Plan:
    """What a sweep would run and cost. `facts` is all that `harness plan --json` prints; `text` what it shows."""

    name: str
    folder: Path
    runs: int
    done: int
    to_do: int
    wall_seconds: float
    run_keys: tuple[str, ...]
    notes: tuple[str, ...]
    facts: Mapping[str, Any]
    text: str

    @property
    def fit(self) -> bool:
        """Whether preflight found no error; true where it was not asked for."""
        return all(one["severity"] != "error" for one in self.facts.get("preflight", {}).get("findings", ()))

    def __repr__(self) -> str:
        return self.text


@dataclass(frozen=True, repr=False)
class Status:
    """What stands on disk of a sweep: `states` counts runs by outcome, `running` names the process at work on it."""

    sweep: str
    folder: Path
    runs: int
    states: Mapping[str, int]
    running: str | None
    failed: tuple[str, ...]
    facts: Mapping[str, Any] = field(compare=False)

    def __repr__(self) -> str:
        states = ", ".join(f"{count} {state}" for state, count in self.states.items() if count)
        return f"{self.sweep}: {states}" + (f"; running: {self.running}" if self.running else "")


@dataclass(frozen=True, repr=False)
class Outcome:
    """A sweep or a study that ended. `ok` is false where a run failed; what is missing, the same call makes."""

    name: str
    folder: Path
    ok: bool

    @property
    def status(self) -> Status:
        """Its runs by outcome."""
        return status(self.folder)

    @property
    def report(self) -> Report:
        """Its report, as it was written at the end."""
        return Report(self.folder / "report" / "index.html")

    @property
    def tables(self) -> Frames:
        """Its tables for pandas, as `load` gives them."""
        from harness.frames import load

        return load(self.folder)

    def __repr__(self) -> str:
        return f"{self.status!r}\nreport {self.report}"


@dataclass(frozen=True, repr=False)
class Audited:
    """An audit that was written to `folder`. `answer` says what to do; `action` (none, drop, relabel, cannot_audit) and
    `rows` are its advice; `facts` is what `audit.json` holds; `cleaned` the set that was written, if any."""

    folder: Path
    answer: str
    action: str
    rows: int
    facts: Mapping[str, Any] = field(compare=False)
    cleaned: Path | None = None

    @property
    def report(self) -> Report:
        """Its page."""
        return Report(self.folder / "index.html")

    @property
    def table(self) -> pd.DataFrame:
        """A row per audited pair, with its suspicion."""
        import pandas as pd

        return pd.read_parquet(self.folder / "audit.parquet")

    def __repr__(self) -> str:
        return f"{self.answer}\nreport {self.report}"


def plan(
    spec: Path | str,
    *,
    out: Path | str = "runs",
    overrides: Overrides = (),
    max_runs: int | None = None,
    preflight: bool = False,
    predict: bool = False,
    engine: str | None = None,
    workers: int | None = None,
    gpus: int | None = None,
    quiet: bool = False,
) -> Plan:
    """What the sweep of a YAML file would run and cost. Trains nothing; counts what is done under `out`.

    `overrides` maps dotted keys of the spec to values (`{"training.steps": 100}`). `engine` forecasts for other
    machines, with `workers` packs at a time, or on `gpus`; `preflight` checks data, tokens, labels and reference;
    `predict` trains short pilots and writes the ranking accuracy that they predict of each run to `prediction.json`;
    `quiet` shows no progress of the pilots. Raises InputError with every mistake.
    """
    from harness.config.load import load_sweep
    from harness.sweep.estimates import Machines
    from harness.sweep.plan import describe, render
    from harness.sweep.resources import most_shards, places_on

    loaded = load_sweep(spec, _texts(overrides), max_runs)
    if engine == "inline":
        workers = 1
    elif workers is None and engine is not None:
        alone = max((os.cpu_count() or 1) // most_shards(loaded.runs), 1)
        workers = alone if gpus is None else places_on(loaded.runs, gpus)
    machines = None if engine is None else Machines(str(engine), workers or 1)
    if preflight:
        from harness.sweep.preflight import measure_rate

        measure_rate(loaded, Path(out))
    facts = describe(loaded, Path(out), machines, _model_reading() if preflight else None)
    text = render(facts)
    if preflight:
        from harness.sweep.preflight import preflight as look
        from harness.sweep.preflight import report_lines

        facts["preflight"] = look(loaded, sum(facts["seconds"].values()), Path(out))
        text = "\n".join((text, *report_lines(facts["preflight"])))
    if predict:
        with _private_files(Path(out)):
            from rich.console import Console

            from harness.sweep.predict import predict as look_ahead  # imports torch
            from harness.sweep.predict import prediction_lines

            prediction = look_ahead(loaded, Path(out), Console(stderr=True, quiet=quiet))
        facts["predictions"] = prediction["predictions"]
        text = "\n".join((text, *prediction_lines(prediction)))
    return Plan(
        facts["name"], Path(facts["folder"]), facts["runs"], facts["done"], facts["to_do"], facts["wall_seconds"],
        tuple(facts["run_keys"]), tuple(facts["notes"]), facts, text,
    )  # fmt: skip


def sweep(
    spec: Path | str,
    *,
    out: Path | str = "runs",
    overrides: Overrides = (),
    workers: int | None = None,
    max_runs: int | None = None,
    engine: str = "process",
    checkpoint_every: float = 60.0,
    profile: bool = False,
    cluster: Cluster | None = None,
    quiet: bool = False,
) -> Outcome:
    """Run what is missing of the sweep of a YAML file under `out`, and write its report.

    Progress goes to the terminal or the notebook; `quiet` prints only where the results are, and what failed. Packs
    train in worker processes, so a script calls this below `if __name__ == "__main__":`; `engine="inline"` trains in
    this process. Raises InputError for a mistake in the spec, KeyboardInterrupt where it is stopped: the same call
    continues.
    """
    from harness.config.load import load_sweep

    loaded = load_sweep(spec, _texts(overrides), max_runs)
    cores = os.cpu_count() or 1
    with _private_files(Path(out)):
        if workers is not None and workers > cores and engine == "process":
            note = f"warning: {workers} workers on {cores} cores; more than one worker per core is slower"
            print(note, file=sys.stderr)
        from harness.signals import catching_signals
        from harness.sweep.engines import Cluster
        from harness.sweep.run import SweepOptions, run_sweep

        options = SweepOptions(str(engine), checkpoint_every, cluster=cluster or Cluster(), profile=profile)
        with catching_signals():
            code = run_sweep(loaded, Path(out), workers, options=options, quiet=quiet)
    return Outcome(loaded.name, Path(out) / loaded.name, code == 0)


def study(
    spec: Path | str,
    *,
    out: Path | str = "runs",
    overrides: Overrides = (),
    workers: int | None = None,
    quiet: bool = False,
) -> Outcome:
    """Tune every objective of a study's YAML file under the same budget, and run the winners on fresh seeds.

    As `sweep` otherwise.
    """
    from harness.config.study import load_study

    loaded = load_study(spec, _texts(overrides))
    with _private_files(Path(out)):
        from harness.signals import catching_signals
        from harness.study.run import run_study

        with catching_signals():
            code = run_study(loaded, Path(out), workers, quiet=quiet)
    return Outcome(loaded.name, Path(out) / loaded.name, code == 0)


def audit(
    data: Path | str,
    *,
    out: Path | str = "audit",
    model: Path | str = "",
    slices: Iterable[str] = (),
    write: Path | str | None = None,
    drop: int | None = None,
    relabel: int | None = None,
    advice: bool = False,
    form: str = "",
    limit: int = 0,
    folds: int = 5,
    steps: int | None = None,
    seed: int = 0,
    max_length: int = 256,
    device: str = "auto",
    force: bool = False,
    quiet: bool = False,
) -> Audited:
    """Which labels of a preference set (file, folder, hub id) are likely wrong; writes page and tables to `out`.

    `model` is a model's folder or hub id, by default a tiny one fitted to the texts. `steps` are the updates of each
    trained model (200; with `model` 0, so that linear heads on its hidden states are fitted alone). `write` takes a
    cleaned set: without the `drop` most suspect rows, with `relabel` of them turned round, or as the audit advises.
    What was trained before an interruption is not trained again. Raises InputError for what cannot be audited.
    """
    wanted = {"drop": drop is not None, "relabel": relabel is not None, "advice": advice}
    clean = [name for name, on in wanted.items() if on]
    if len(clean) > 1:
        raise InputError(f"--{clean[0]} and --{clean[1]}: give one of them")
    with _private_files(Path(out)), _room(Path(out)):
        from harness.audit.asked import Asked
        from harness.audit.run import run

        trained = (0 if model else 200) if steps is None else steps
        asked = Asked(
            str(data), Path(out), str(model), tuple(slices), form, limit, folds, trained, seed=seed,
            max_length=max_length, device=device, write=None if write is None else Path(write),
            clean=clean[0] if clean else "", rows=drop or relabel or 0, force=force,
        )  # fmt: skip
        facts, cleaned = run(asked, (lambda _: None) if quiet else (lambda line: print(line, file=sys.stderr)))
    given = facts["advice"]
    return Audited(Path(out), facts["answer"], given["action"], given["rows"], facts, cleaned)


def status(folder: Path | str) -> Status:
    """The runs of a sweep's folder by outcome. Raises InputError where there is none."""
    existing(Path(folder))
    from harness.sweep.status import read_status

    facts = read_status(Path(folder))
    return Status(
        facts["sweep"], Path(folder), facts["runs"], facts["states"], facts["running"], tuple(facts["failed"]), facts
    )


def report(folder: Path | str, *, texts: str | None = None, script: bool = True) -> Report:
    """Write the report of a sweep's or a study's folder from its files: page, Markdown, figures, CSV tables.

    `texts` (none, ids, short or full) stands for what the spec says the report shows of prompts and answers. Without
    `script` the page has no script, which sorts and copies tables there, and the same content.
    """
    from harness.types import TEXTS

    existing(Path(folder))
    if texts is not None and texts not in TEXTS:
        raise InputError(f"texts: '{texts}'; expected one of {', '.join(TEXTS)}")
    if (Path(folder) / "study.json").is_file():
        from harness.report.study.page import write_study_report

        return Report(write_study_report(Path(folder), script=script))
    from harness.report.page import write_report

    return Report(write_report(Path(folder), texts=texts or "", script=script))


def publish(folder: Path | str, to: Path | str) -> Published:
    """Write what of a sweep may leave the machine into the folder `to`: results, cells, provenance, figures.

    No prompt or answer is in it, no path, and no name of a machine or user. Raises InputError for a study, and where
    `to` holds anything but an earlier published form.
    """
    existing(Path(folder))
    from harness.report.publish import publish_sweep

    return Published(publish_sweep(Path(folder), Path(to)))


def compare(*folders: Path | str, out: Path | str = "comparison", track: bool = False) -> Comparison:
    """Sweeps side by side, from sweep folders and published ones: what holds in the others, what differs.

    Writes page, Markdown, `comparison.json`, CSV tables and figures into `out`; `track` adds runs to MLflow. Raises
    InputError where no cells match.
    """
    check_writable(Path(out))
    for folder in folders:
        existing(Path(folder))
    from harness.report.compare.page import write_comparison

    found = write_comparison([Path(folder) for folder in folders], Path(out))
    if track:
        _send_comparison(Path(out), found)
    return Comparison(Path(out), found)


def _send_comparison(out: Path, found: Differences) -> None:
    """A run per sweep and matching cell in the experiment of the sweeps' names."""
    from harness.report.compare.page import FILES, tracked_cells
    from harness.tracking.comparisons import KIND, send_comparison
    from harness.tracking.diagnoses import TrackedRun

    name = "compare " + ", ".join(level.name for level in found.alignment.levels)
    runs = [
        TrackedRun(cell.name, {**KIND, **cell.tags}, cell.params, {0: cell.metrics}) for cell in tracked_cells(found)
    ]
    send_comparison(out, name, runs, [out / file for file in FILES])


def diagnose(
    policies: Sequence[str] = (),
    *,
    reference: str = "",
    data: str = "",
    logps: Path | str | None = None,
    beta: float | None = None,
    slices: Sequence[str] | None = None,
    train_data: str = "",
    ledger: Path | str | None = None,
    format: str = "",  # noqa: A002 - the option's name
    rewardbench: int = 0,
    limit: int = 0,
    max_length: int = 1024,
    tokens: str = "dpo",
    dtype: str = "float32",
    device: str = "auto",
    template_arguments: Mapping[str, Any] | None = None,
    out: Path | str = "diagnosis",
    track: bool = False,
    force: bool = False,
    quiet: bool = False,
) -> Diagnosed:
    """Say what trained policies do to preference pairs: measures, slices, a verdict, a page.

    `policies` are folders, hub ids, adapters or patterns such as `out/checkpoint-*`; or `logps` is a log-prob file of
    any trainer, without models. `force` replaces a diagnosis in `out` of other policies or pairs. The other options are
    those of `harness diagnose`; `quiet` prints no progress. Raises InputError for what cannot be used, before anything
    is scored where that can be told.
    """
    check_writable(Path(out))
    from harness.diagnose.asked import Asked
    from harness.diagnose.run import run

    if isinstance(policies, str):
        policies = (policies,)
    asked = Asked(
        Path(out), policies, reference, data, None if logps is None else Path(logps), train_data,
        None if ledger is None else Path(ledger), beta, slices, format, rewardbench, limit,
        max_length, tokens, dtype, device, canonical_json(template_arguments) if template_arguments else "", track,
        force,
    )  # fmt: skip
    return Diagnosed(Path(out), run(asked, _silent if quiet else _progress))


def _silent(_: str) -> None:
    """Says nothing."""


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def corrupt_file(
    data: Path | str,
    out: Path | str,
    *,
    kind: str = "none",
    rate: float | None = None,
    seed: int = 0,
    overrides: Overrides = (),
    force: bool = False,
) -> Written:
    """Read preference pairs in any form and write them in TRL's, corrupted by `kind` (none: converted only).

    Beside `out` (.jsonl or .parquet) stand a ledger of every change and a card. `overrides` are parameters of the kind
    and keys of `data` that say how rows are read: `{"data.format": "sharegpt", "mode": "top"}`. For pairs in memory
    there is `harness.corrupt`. Raises InputError, and for an existing output unless `force`.
    """
    from harness.config.conversion import load_conversion
    from harness.data.export_pairs import export_pairs

    spec, parameters = load_conversion(Path(data), _texts(overrides))
    cell = {"kind": kind, **({} if rate is None else {"rate": rate}), **parameters}
    with _room(Path(out)):
        return export_pairs(spec, cell, seed, Path(out), force)


def corrupt_sets(
    spec: Path | str,
    out: Path | str,
    *,
    overrides: Overrides = (),
    parquet: bool = False,
    models: Path | str = "runs",
    force: bool = False,
    quiet: bool = False,
) -> list[Written]:
    """Write every training set of a sweep's YAML file into the folder `out`: one per source, corruption and seed.

    The pairs and labels are those that the sweep trains on. `models` is the sweep's `out`: reference models that a kind
    asks are taken from its cache, or built there. Raises InputError, and for an existing output unless `force`.
    """
    check_writable(Path(out))
    from harness.config.load import load_sweep

    loaded = load_sweep(spec, _texts(overrides))
    with _private_files(Path(models)), _room(Path(out)):
        from harness.data.export_pairs import ENDINGS
        from harness.sweep.export_sets import export_sets

        ending, say = ENDINGS[parquet], _silent if quiet else _progress
        return export_sets(loaded, Path(out), Path(models) / "cache", ending, force, say)


def existing(path: Path) -> None:
    """Raises InputError where `path` is no folder."""
    if not path.is_dir():
        raise InputError(f"{path}: no such folder; expected a folder that `harness sweep` has written")


def check_writable(out: Path) -> None:
    """Raises InputError where the nearest existing folder of `out` takes no new files."""
    there = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    if not there.is_dir():
        raise InputError(f"--out {out}: {there} is a file; expected a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"--out {out}: no permission to write in {there}; choose another --out")


@contextmanager
def _room(out: Path) -> Iterator[None]:
    """Turns the errors of a full disk into one NoRoom that names the nearest existing folder of `out`."""
    from harness.sweep.resources import room_in

    with room_in(next(path for path in (out.absolute(), *out.absolute().parents) if path.is_dir())):
        yield


@contextmanager
def _private_files(out: Path) -> Iterator[None]:
    """What is written below `out` is for its owner only, on shared machines, too."""
    check_writable(out)
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def _texts(overrides: Overrides) -> list[str]:
    """Overrides as `--set` takes them: JSON is YAML."""
    if isinstance(overrides, Mapping):
        return [f"{key}={json.dumps(value, default=str)}" for key, value in overrides.items()]
    return list(overrides)


def _model_reading() -> Callable[[PathModelSpec], Reading]:
    from harness.inputs.text import model_reading  # imports torch

    return model_reading

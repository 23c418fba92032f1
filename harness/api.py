"""The verbs as functions: `plan`, `sweep`, `study`, `status`, `report`, `audit`; `harness` exports them, the command
line calls them. They return what they found, raise InputError for a user's mistake, and import what they need when
called.
"""

from __future__ import annotations

import html
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.types import InputError, PathModelSpec

if TYPE_CHECKING:
    import pandas

    from harness.data.splits import Reading
    from harness.frames import Frames
    from harness.sweep.engines import Cluster

Overrides = Mapping[str, Any] | Iterable[str]


@dataclass(frozen=True)
class Figure:
    """One figure of a report; a notebook shows it."""

    path: Path

    def _repr_svg_(self) -> str:
        return self.path.read_text("utf-8")


@dataclass(frozen=True)
class Report:
    """A report on disk: the page, and its figures by name."""

    page: Path

    @property
    def figures(self) -> dict[str, Figure]:
        """The figures that the page shows, by name."""
        return {path.stem: Figure(path) for path in sorted((self.page.parent / "figures").glob("*.svg"))}

    def __str__(self) -> str:
        return str(self.page)

    def _repr_html_(self) -> str:
        link = f'<a href="{html.escape(self.page.as_posix(), quote=True)}">{html.escape(str(self.page))}</a>'
        return f"<p>{link}</p><p>figures: {html.escape(', '.join(self.figures))}</p>"


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
    def table(self) -> pandas.DataFrame:
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
    engine: str | None = None,
    workers: int | None = None,
) -> Plan:
    """What the sweep of a YAML file would run and cost. Trains nothing; counts what is done under `out`.

    `overrides` maps dotted keys of the spec to values (`{"training.steps": 100}`). `engine` and `workers` forecast for
    other machines; `preflight` checks data, tokens, labels and reference. Raises InputError with every mistake.
    """
    from harness.config.load import load_sweep
    from harness.sweep.estimates import Machines
    from harness.sweep.plan import describe, render

    machines = None if engine is None else Machines(str(engine), workers or os.cpu_count() or 1)
    loaded = load_sweep(spec, _texts(overrides), max_runs)
    facts = describe(loaded, Path(out), machines, _model_reading() if preflight else None)
    text = render(facts)
    if preflight:
        from harness.sweep.preflight import preflight as look
        from harness.sweep.preflight import report_lines

        facts["preflight"] = look(loaded, sum(facts["seconds"].values()), Path(out))
        text = "\n".join((text, *report_lines(facts["preflight"])))
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
    steps: int = 200,
    seed: int = 0,
    max_length: int = 256,
    device: str = "auto",
    force: bool = False,
    quiet: bool = False,
) -> Audited:
    """Which labels of a preference set (file, folder, hub id) are likely wrong; writes page and tables to `out`.

    `model` is a model's folder or hub id, by default a tiny one fitted to the texts. `write` takes a cleaned set:
    without the `drop` most suspect rows, with `relabel` of them turned round, or as the audit advises. What was trained
    before an interruption is not trained again. Raises InputError for what cannot be audited.
    """
    wanted = {"drop": drop is not None, "relabel": relabel is not None, "advice": advice}
    clean = [name for name, on in wanted.items() if on]
    if len(clean) > 1:
        raise InputError(f"--{clean[0]} and --{clean[1]}: give one of them")
    with _private_files(Path(out)):
        from harness.audit.asked import Asked
        from harness.audit.run import run

        asked = Asked(
            str(data), Path(out), str(model), tuple(slices), form, limit, folds, steps, seed=seed,
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


def report(folder: Path | str, *, texts: str | None = None) -> Report:
    """Write the report of a sweep's or a study's folder from its files: page, Markdown, figures, CSV tables.

    `texts` (none, ids, short or full) stands for what the spec says the report shows of prompts and answers.
    """
    from harness.types import TEXTS

    existing(Path(folder))
    if texts is not None and texts not in TEXTS:
        raise InputError(f"texts: '{texts}'; expected one of {', '.join(TEXTS)}")
    if (Path(folder) / "study.json").is_file():
        from harness.report.study.page import write_study_report

        return Report(write_study_report(Path(folder)))
    from harness.report.page import write_report

    return Report(write_report(Path(folder), texts=texts or ""))


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

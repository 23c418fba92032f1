"""The verbs: parse, call, print. Heavy imports stand inside the commands, so `--help` loads none of them."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.types import InputError, NoRoom

app = typer.Typer(
    name="harness",
    help="Sweep preference objectives x beta x corrupted labels x seeds; report which survive which noise.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


class Runs(StrEnum):
    """Which runs of a sweep `eval` takes."""

    all = "all"
    best = "best"
    flagged = "flagged"


Spec = Annotated[Path, typer.Argument(metavar="SPEC", help="the sweep as YAML, e.g. experiments/quick.yaml")]
Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="a sweep's folder, e.g. runs/quick")]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="where runs, caches and the tracking store go")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override a key of SPEC; repeatable")]
MaxRuns = Annotated[int | None, typer.Option("--max-runs", min=1, help="allow a grid of up to N runs (10000)")]
Every = Annotated[float, typer.Option("--checkpoint-every", min=0, metavar="SECONDS", help="of a pack's training")]
Json = Annotated[bool, typer.Option("--json", help="print JSON")]
RUNS = Path("runs")


class Engines(StrEnum):
    """Where packs can be trained."""

    process = "process"
    inline = "inline"
    ray = "ray"
    slurm = "slurm"


class Table(StrEnum):
    """What `list` can list."""

    objectives = "objectives"
    corruptions = "corruptions"
    metrics = "metrics"


@app.command(epilog="Example: harness plan experiments/quick.yaml --set seeds=8")
def plan(
    spec: Spec,
    out: Out = RUNS,
    set_: Set = None,
    max_runs: MaxRuns = None,
    preflight: Annotated[bool, typer.Option("--preflight", help="check data, tokens, labels and reference")] = False,
    as_json: Json = False,
    engine: Annotated[Engines | None, typer.Option("--engine", help="forecast hours, bytes and load on it")] = None,
    gpus: Annotated[int | None, typer.Option("--gpus", min=1, help="with --engine: one pack on each at a time")] = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="with --engine: packs at a time")] = None,
) -> None:
    """Say what a sweep would run and what it should cost. Runs nothing, and knows what is done already."""
    from harness.spec import load_sweep
    from harness.sweep.forecast import Machines
    from harness.sweep.plan import describe, render

    if engine is None and (gpus or workers):
        raise InputError("--gpus, --workers: say of which --engine")
    machines = Machines(engine.value, workers or gpus or os.cpu_count() or 1) if engine is not None else None
    loaded = load_sweep(spec, set_ or (), max_runs)
    described = describe(loaded, out, machines)
    if preflight:
        from harness.sweep.before import preflight as look
        from harness.sweep.before import told

        described["preflight"] = look(loaded, sum(described["seconds"].values()), out)
    say(_json(described) if as_json else render(described))
    if preflight:
        if not as_json:
            say("\n".join(told(described["preflight"])))
        raise typer.Exit(2 if any(one["severity"] == "error" for one in described["preflight"]["findings"]) else 0)


@app.command(epilog="Example: harness sweep experiments/quick.yaml --set training.steps=400 --out runs")
def sweep(
    spec: Spec,
    out: Out = RUNS,
    set_: Set = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="processes; default: one a core")] = None,
    max_runs: MaxRuns = None,
    engine: Annotated[Engines, typer.Option("--engine", help="where packs train; inline: all in this process")] = (
        Engines.process
    ),
    checkpoint_every: Every = 60.0,
    profile: Annotated[bool, typer.Option("--profile", help="measure where the time goes; into profile.json")] = False,
    address: Annotated[str, typer.Option("--address", help="ray: `auto` or HOST:PORT; default: a Ray of its own")] = "",
    gpus_per_pack: Annotated[
        float | None, typer.Option("--gpus-per-pack", min=0, help="ray, slurm; 0.5: two share one")
    ] = None,
    partition: Annotated[str, typer.Option("--partition", help="slurm")] = "",
    account: Annotated[str, typer.Option("--account", help="slurm")] = "",
    minutes: Annotated[int, typer.Option("--time", min=1, metavar="MINUTES", help="slurm: limit of one job")] = 240,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="slurm: print the array script, submit nothing")] = False,
) -> None:
    """Run what is missing of a sweep. Writes its report; the same command resumes."""
    from harness.spec import load_sweep

    loaded = load_sweep(spec, set_ or (), max_runs)
    from harness.sweep.engines import Cluster

    cluster = Cluster(address, gpus_per_pack, 1, partition, account, minutes)
    if dry_run:
        from harness.sweep.engines.slurm import array_script

        if engine is not Engines.slurm:
            raise InputError("--dry-run: shows the script of --engine slurm; harness plan shows what a sweep would do")
        say(array_script(loaded.runs, out / loaded.name, workers, cluster))
        return
    _writable(out)
    cores = os.cpu_count() or 1
    if workers is not None and workers > cores and engine is Engines.process:
        print(f"warning: {workers} workers on {cores} cores; more than one a core is slower", file=sys.stderr)
    from harness.sweep.run import Means, run_sweep
    from harness.sweep.stopping import stoppable

    means = Means(engine.value, checkpoint_every, cluster=cluster, profile=profile)
    raise typer.Exit(stoppable(lambda: run_sweep(loaded, out, workers, means=means)))


app.command("resume", hidden=True)(sweep)  # the word many look for; the same command resumes


@app.command(epilog="Example: harness study experiments/study.yaml --set trials=10")
def study(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="the study as YAML, e.g. experiments/study.yaml")],
    out: Out = RUNS,
    set_: Set = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="processes; default: one a core")] = None,
) -> None:
    """Search settings under equal budgets. Runs the winners on fresh seeds; the same command resumes."""
    from harness.spec_study import load_study

    loaded = load_study(spec, set_ or ())
    _writable(out)
    from harness.sweep.stopping import stoppable
    from harness.sweep.study_run import run_study

    raise typer.Exit(stoppable(lambda: run_study(loaded, out, workers)))


@app.command(epilog="Example: harness status runs/quick --json")
def status(folder: Folder, as_json: Json = False) -> None:
    """Count the runs of a sweep by outcome."""
    _folder(folder)
    from harness.sweep.status import read_status

    found = read_status(folder)
    say(_json(found) if as_json else "\n".join(f"{key:<12}{_flat(value)}" for key, value in found.items()))


@app.command(epilog="Example: harness report runs/quick")
def report(folder: Folder) -> None:
    """Write a sweep's report from its files. They are report/index.html, report.md and tables as CSV."""
    _folder(folder)
    if (folder / "study.json").is_file():
        from harness.report.study_page import write_study_report

        say(str(write_study_report(folder)))
        return
    from harness.report.page import write_report

    say(str(write_report(folder)))


@app.command(epilog="Example: harness dashboard --out runs")
def dashboard(
    out: Out = RUNS,
    study: Annotated[Path | None, typer.Option("--study", metavar="FOLDER", help="Optuna's own, of one study")] = None,
) -> None:
    """Serve the tracking store on this machine. Prints the addresses of its views and reports."""
    if study is not None:
        _folder(study)
        from harness.sweep.study_storage import serve_study

        raise typer.Exit(serve_study(study))
    _folder(out)
    from harness.tracking.mlflow_server import serve

    raise typer.Exit(serve(out))


@app.command(epilog="Example: harness export runs/quick/1a2b3c4d-dpo --to exported")
def export(
    folder: Annotated[Path, typer.Argument(metavar="RUN_FOLDER", help="a run's folder, e.g. runs/quick/1a2b3c4d-dpo")],
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="the new folder")],
) -> None:
    """Write a run's kept weights as a transformers or peft folder. Tokenizer and model card lie beside them."""
    _folder(folder)
    from harness.models.export import export_run

    export_run(folder, to)
    say(str(to))


@app.command("eval", epilog="Example: harness eval runs/real --tasks preference --json")
def eval_(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="a run's folder, or a sweep's for all its runs")],
    tasks: Annotated[
        str | None, typer.Option("--tasks", metavar="A,B", help="names of lm-eval tasks (preference: held-out pairs)")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="first N documents of each task")] = None,
    fewshot: Annotated[int | None, typer.Option("--num-fewshot", min=0, help="examples before each document")] = None,
    runs: Annotated[Runs, typer.Option("--runs", help="of a sweep: all, best or flagged")] = Runs.all,
    as_json: Json = False,
) -> None:
    """Run lm-eval's tasks on kept weights. Paired with the reference; without --tasks on the held-out pairs."""
    _folder(folder)
    from harness.sweep.evaluate import evaluate_folder, printed, publish
    from harness.types import LmEvalSpec

    names = tuple(name.strip() for name in tasks.split(",")) if tasks is not None else LmEvalSpec().tasks
    asked = LmEvalSpec(names, limit, fewshot, runs.value)
    tell = (lambda _: None) if as_json else say
    found = evaluate_folder(folder, asked, tell)
    publish(folder, tell)
    if as_json:
        say(_json(printed(found, alone=(folder / "result.json").exists())))


@app.command(epilog="Example: MLFLOW_TRACKING_URI=http://127.0.0.1:5000 harness sync runs/quick")
def sync(folder: Folder) -> None:
    """Deliver what the tracking server still lacks."""
    _folder(folder)
    from harness.tracking.mlflow_outbox import sync as deliver

    raise typer.Exit(deliver(folder))


@app.command(epilog="Example: harness verify runs/quick")
def verify(
    folder: Folder,
    again: Annotated[bool, typer.Option("--rerun", help="compute a run's folder again and compare")] = False,
    as_json: Json = False,
) -> None:
    """Check every file of a sweep or a run. Exits 1 and names the damaged ones."""
    _folder(folder)
    if again:
        from harness.sweep.rerun import rerun
        from harness.sweep.stopping import stoppable

        def compared() -> int:
            found = rerun(folder)
            about = {"tier": found.tier, "largest": min(found.largest, 1e308), "lines": list(found.lines)}
            say(_json(about) if as_json else "\n".join(found.lines))
            return 0 if found.tier else 1

        raise typer.Exit(stoppable(compared))
    from harness.sweep.checks import check

    damaged, notes = check(folder)
    lines = [*(damaged or ["ok: every file is as it was written"]), *notes]
    say(_json({"damaged": damaged, "notes": notes}) if as_json else "\n".join(lines))
    raise typer.Exit(1 if damaged else 0)


@app.command(epilog="Example: harness clean runs/quick --yes")
def clean(
    folder: Folder,
    yes: Annotated[bool, typer.Option("--yes", help="remove them; without it they are only listed")] = False,
) -> None:
    """Remove what killed processes, damage and changed plans left of a sweep. Lists it without --yes."""
    _folder(folder)
    from harness.sweep.cleaning import clean as cleaned

    items = cleaned(folder, yes)
    total = sum(item.size for item in items)
    lines = [f"{item.path}  {item.size} bytes: {item.why}" for item in items]
    told = "removed" if yes else "to remove with --yes"
    say("\n".join([*lines, f"{len(items)} files and folders, {total} bytes {told}" if items else "nothing to remove"]))


@app.command("list", epilog="Example: harness list objectives --json")
def list_(
    what: Annotated[Table, typer.Argument(metavar="objectives|corruptions|metrics")], as_json: Json = False
) -> None:
    """List objectives, corruptions or measures. Their parameters stand beside them."""
    from harness.listing import listing, table

    rows = listing(what.value)
    say(_json(rows) if as_json else table(rows))


@app.command(epilog="Example: harness doctor --json")
def doctor(out: Out = RUNS, as_json: Json = False) -> None:
    """Say whether this machine is fit for a sweep. Looks at versions, device, memory, disk, tracking server, hub."""
    from harness.doctor import BAD, examine, lines

    found = examine(out)
    plain = {name: {"state": f.state, "text": f.text, "fix": f.fix} for name, f in found.items()}
    say(_json(plain) if as_json else "\n".join(lines(found)))
    raise typer.Exit(1 if any(f.state == BAD for f in found.values()) else 0)


@app.command(epilog="Example: harness init mine.yaml --data prefs.jsonl.gz")
def init(
    path: Annotated[Path, typer.Argument(metavar="SPEC", help="the spec to write, e.g. mine.yaml")],
    data: Annotated[str, typer.Option("--data", metavar="FILE", help="preference pairs: JSONL or Parquet")] = "",
    model: Annotated[str, typer.Option("--model", metavar="FOLDER", help="a causal LM, or its hub id")] = "",
) -> None:
    """Write a commented spec to start from. For the embedded world, or for your own pairs and model."""
    from harness.starter import write_starter

    say("\n".join(write_starter(path, data, model)))


def say(text: str) -> None:
    """Print to standard output; control and bidi characters are shown escaped. Quiet where the reader has left."""
    try:
        print(_escaped(text, keep="\n"), flush=True)
    except BrokenPipeError:  # as in `| head`: nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None


def run(argv: Sequence[str]) -> int:
    """One command line to its exit code. InputError becomes its lines on standard error and 2."""
    for stream in (sys.stdout, sys.stderr):  # LANG=C must not break names or messages
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        _no_flag_twice(argv)
        app(list(argv), prog_name="harness")
    except InputError as error:
        for line in error.problems:
            print(_escaped(line), file=sys.stderr)
        return 2
    except NoRoom as error:
        for line in error.problems:
            print(_escaped(line), file=sys.stderr)
        return 1
    except SystemExit as end:  # how typer hands back help, usage errors and exit codes
        return end.code if isinstance(end.code, int) else 0
    return 0


def _escaped(text: str, keep: str = "") -> str:
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


def _no_flag_twice(argv: Sequence[str]) -> None:
    """The parser would keep the last silently. `--set` is meant to be repeated."""
    options = [word.partition("=")[0] for word in argv[: argv.index("--") if "--" in argv else None]]
    flags = [word for word in options if word.startswith("--") and word != "--set"]
    twice = [flag for flag in dict.fromkeys(flags) if flags.count(flag) > 1]
    if twice:
        raise InputError(*(f"{flag}: given twice; keep one" for flag in twice))


def _folder(path: Path) -> None:
    if not path.is_dir():
        raise InputError(f"{path}: no such folder; expected a folder that `harness sweep` has written")


def _writable(out: Path) -> None:
    """The nearest existing folder of `out` must take new files; said before anything is built."""
    existing = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise InputError(f"--out {out}: {existing} is a file; expected a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"--out {out}: no permission to write in {existing}; choose another --out")
    os.umask(0o077)  # what is written from here on is for its owner only, on shared machines, too


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_flat(child)}" for key, child in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)

"""The command line: which verbs there are, and how a command line becomes an exit code."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from harness.commands import audit, corrupt, diagnose, formats, gold, inspect, judge, setup, share, sweep, weights
from harness.commands.printing import escaped
from harness.types import InputError, NoRoom

DISTRIBUTION = "preference-harness"
app = typer.Typer(
    name="harness",
    help="Train preference objectives x beta x corrupted labels x seeds; report which survive which label noise.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
VERBS = (  # in the order of `--help`: name, what it does, an example
    ("plan", sweep.plan, "harness plan experiments/quick.yaml --set seeds=8"),
    ("sweep", sweep.sweep, "harness sweep experiments/quick.yaml --set training.steps=400 --out runs"),
    ("study", sweep.study, "harness study experiments/study.yaml --set trials=10"),
    ("status", inspect.status, "harness status runs/quick --json"),
    ("report", inspect.report, "harness report runs/quick"),
    ("dashboard", inspect.dashboard, "harness dashboard --out runs"),
    (
        "diagnose",
        diagnose.diagnose,
        "harness diagnose --policy out/checkpoint-500 --reference base --data prefs.jsonl --beta 0.1",
    ),
    ("export-logps", diagnose.export_logps, "harness export-logps runs/quick/1a2b3c4d-dpo --out logps.parquet"),
    ("compare", share.compare, "harness compare runs/small runs/large --out comparison"),
    ("publish", share.publish, "harness publish runs/quick --to quick-published"),
    ("export", weights.export, "harness export runs/quick/1a2b3c4d-dpo --to exported"),
    ("eval", weights.eval_, "harness eval runs/real --tasks preference --json"),
    ("gold", gold.gold, "harness gold runs/real --reward-model models/reward"),
    ("judge", judge.judge, "harness judge runs/real --endpoint http://127.0.0.1:8000/v1 --model judge --limit 100"),
    ("sync", inspect.sync, "MLFLOW_TRACKING_URI=http://127.0.0.1:5000 harness sync runs/quick"),
    ("verify", inspect.verify, "harness verify runs/quick"),
    ("clean", inspect.clean, "harness clean runs/quick --yes"),
    ("list", setup.list_, "harness list objectives --json"),
    ("formats", formats.formats, "harness formats --json"),
    ("corrupt", corrupt.corrupt, "harness corrupt --data prefs.csv --kind uniform_flip --rate 0.2 --out noisy.jsonl"),
    ("audit", audit.audit, "harness audit --data prefs.jsonl --out audit --write cleaned.jsonl --advice"),
    ("check-plugin", setup.check_plugin, "harness check-plugin my-objectives --sweep runs/quick"),
    ("doctor", setup.doctor, "harness doctor --json"),
    ("init", setup.init, "harness init mine.yaml --data prefs.jsonl.gz"),
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"{DISTRIBUTION} {version(DISTRIBUTION)}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="print the version", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Options that belong to no verb."""


for _name, _verb, _example in VERBS:
    app.command(_name, epilog=f"Example: {_example}")(_verb)
app.command("resume", hidden=True)(sweep.sweep)  # the word many look for; the same command resumes


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
            print(escaped(line), file=sys.stderr)
        return 2
    except NoRoom as error:
        for line in error.problems:
            print(escaped(line), file=sys.stderr)
        return 1
    except SystemExit as end:  # how typer hands back help, usage errors and exit codes
        return end.code if isinstance(end.code, int) else 0
    return 0


def _no_flag_twice(argv: Sequence[str]) -> None:
    """The parser would keep the last silently. `--set`, `--policy` and `--reward-model` are meant to be repeated."""
    options = [word.partition("=")[0] for word in argv[: argv.index("--") if "--" in argv else None]]
    flags = [word for word in options if word.startswith("--") and word not in ("--set", "--policy", "--reward-model")]
    twice = [flag for flag in dict.fromkeys(flags) if flags.count(flag) > 1]
    if twice:
        raise InputError(*(f"{flag}: given twice; keep one" for flag in twice))

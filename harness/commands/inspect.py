"""`harness status`, `report`, `dashboard`, `sync`, `verify` and `clean`: commands on what a sweep has left."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from harness import api
from harness.api import existing
from harness.commands.options import RUNS, Folder, Json, Out, Texts
from harness.commands.printing import as_text, flat, say
from harness.storage.answer_file import answer_lines


def status(folder: Folder, as_json: Json = False) -> None:
    """Count the runs of a sweep by outcome."""
    found = api.status(folder).facts
    said = {key: value for key, value in found.items() if key != "answer" and value not in (None, [])}
    lines = [f"{key:<12}{flat(value)}" for key, value in said.items()]
    say(as_text(found) if as_json else "\n".join([*lines, *answer_lines(folder / "report")]))


def report(
    folder: Folder,
    texts: Annotated[
        Texts | None,
        typer.Option("--texts", help="what this report shows of prompts and answers; default: as in the spec"),
    ] = None,
    script: Annotated[
        bool, typer.Option("--script/--no-script", help="whether the page may sort and copy its tables by a script")
    ] = True,
) -> None:
    """Write a sweep's report from its files. Output: report/index.html, report.md and CSV tables.

    Quotes of your own data go to report/private.html only. A study's report quotes nothing.
    """
    say(str(api.report(folder, texts=None if texts is None else texts.value, script=script)))


def dashboard(
    out: Out = RUNS,
    study: Annotated[Path | None, typer.Option("--study", metavar="FOLDER", help="open Optuna's dashboard")] = None,
) -> None:
    """Serve the tracking store on this machine. Prints the addresses of its views and reports.

    With MLFLOW_TRACKING_URI at a running server, prints that server's.
    """
    if study is not None:
        existing(study)
        from harness.study.storage import serve_study

        raise typer.Exit(serve_study(study))
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        existing(out)
    from harness.tracking.server import serve

    raise typer.Exit(serve(out))


def sync(folder: Folder) -> None:
    """Upload what the tracking server is missing."""
    existing(folder)
    from harness.tracking.outbox import sync as deliver

    raise typer.Exit(deliver(folder))


def verify(
    folder: Folder,
    again: Annotated[bool, typer.Option("--rerun", help="train this run again and compare the results")] = False,
    as_json: Json = False,
) -> None:
    """Check every file of a sweep or a run. Exits 1 and names the damaged ones."""
    existing(folder)
    if again:
        from harness.signals import stoppable
        from harness.sweep.rerun import rerun

        def compared() -> int:
            found = rerun(folder)
            about = {"tier": found.tier, "largest": min(found.largest, 1e308), "lines": list(found.lines)}
            say(as_text(about) if as_json else "\n".join(found.lines))
            return 0 if found.tier else 1

        raise typer.Exit(stoppable(compared))
    from harness.sweep.verify import check

    damaged, notes = check(folder)
    lines = [*(damaged or ["ok: all files match their checksums"]), *notes]
    say(as_text({"damaged": damaged, "notes": notes}) if as_json else "\n".join(lines))
    raise typer.Exit(1 if damaged else 0)


def clean(
    folder: Folder,
    yes: Annotated[bool, typer.Option("--yes", help="remove the files instead of listing them")] = False,
) -> None:
    """Remove leftovers of killed processes, damage and changed plans. Without --yes it only lists them."""
    existing(folder)
    from harness.sweep.clean import clean as cleaned

    items = cleaned(folder, yes)
    total = sum(item.size for item in items)
    lines = [f"{item.path}  {item.size} bytes: {item.why}" for item in items]
    told = "removed" if yes else "to remove with --yes"
    say("\n".join([*lines, f"{len(items)} files and folders, {total} bytes {told}" if items else "nothing to remove"]))

"""`harness audit`: which labels of a preference set are likely wrong, and a cleaned set on request."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.api import audit as audit_
from harness.commands.options import Json
from harness.commands.printing import as_text, say


def audit(
    data: Annotated[
        str, typer.Option("--data", metavar="PATH", help="preference pairs in any form: file, folder, hub id")
    ],
    model: Annotated[
        str, typer.Option("--model", metavar="DIR", help="a model's folder or hub id; default: a tiny one, fitted")
    ] = "",
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="folder of the audit")] = Path("audit"),
    write: Annotated[Path | None, typer.Option("--write", metavar="FILE", help="also write a cleaned set")] = None,
    drop: Annotated[int | None, typer.Option("--drop", metavar="K", help="without the K most suspect rows")] = None,
    relabel: Annotated[int | None, typer.Option("--relabel", metavar="K", help="with these K relabelled")] = None,
    advice: Annotated[bool, typer.Option("--advice", help="as the audit advises")] = False,
    slices: Annotated[
        str, typer.Option("--slices", metavar="A,B", help="columns to break the share of wrong labels down by")
    ] = "",
    form: Annotated[str, typer.Option("--format", metavar="NAME", help="form of the rows, see `formats`")] = "",
    limit: Annotated[int, typer.Option("--limit", min=0, help="first N rows; 0: all")] = 0,
    folds: Annotated[
        int, typer.Option("--folds", min=2, max=20, help="parts of the prompts, each judged by others")
    ] = 5,
    steps: Annotated[
        int | None, typer.Option("--steps", min=0, help="updates of each model: 200; with --model 0, heads alone")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="draws folds and planted errors")] = 0,
    max_length: Annotated[int, typer.Option("--max-length", min=8, help="tokens of prompt and response")] = 256,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda")] = "auto",
    force: Annotated[bool, typer.Option("--force", help="replace files that exist")] = False,
    as_json: Json = False,
) -> None:
    """Say which labels of a preference set are likely wrong, how many, and how far that can be trusted."""
    names = [name.strip() for name in slices.split(",") if name.strip()]
    found = audit_(
        data, out=out, model=model, slices=names, write=write, drop=drop, relabel=relabel, advice=advice, form=form,
        limit=limit, folds=folds, steps=steps, seed=seed, max_length=max_length, device=device, force=force,
    )  # fmt: skip
    lines = [found.answer, f"page     {found.report}"]
    if found.cleaned is not None:
        ledger, card = found.cleaned.with_suffix(".ledger.parquet"), found.cleaned.with_suffix(".md")
        lines += [f"set      {found.cleaned}", f"ledger   {ledger}", f"card     {card}"]
    say(as_text(found.facts) if as_json else "\n".join(lines))

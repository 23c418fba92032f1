"""`harness gold`: a reward model on the answers of finished runs, or on a file of pairs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from harness.api import existing
from harness.commands.options import Quiet
from harness.commands.printing import escaped, say
from harness.types import GoldSpec, InputError


def gold(
    folder: Annotated[
        Path | None, typer.Argument(metavar="[FOLDER]", help="a run's folder, or a sweep's for all its runs")
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option("--reward-model", metavar="M", help="folder or hub id; repeatable; default: as the sweep's spec"),
    ] = None,
    data: Annotated[Path | None, typer.Option("--data", metavar="PATH", help="score these pairs; needs --out")] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="scored pairs, .jsonl or .parquet")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="how --data is read: data.format=NAME")
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="texts scored at once")] = 16,
    max_length: Annotated[int, typer.Option("--max-length", min=0, help="tokens of a text; 0: all positions")] = 0,
    device: Annotated[str, typer.Option("--device", help="with --data: auto, cpu, cuda or cuda:N")] = "auto",
    force: Annotated[bool, typer.Option("--force", help="with --data: replace files that exist")] = False,
    quiet: Quiet = False,
) -> None:
    """Score answers and held-out pairs with a reward model; or with --data, a file's pairs (adds gold_margin)."""
    from harness.config.gold_section import given_models

    asked = GoldSpec(given_models(models or ()), batch_size, max_length)
    if (folder is None) == (data is None):
        raise InputError("expected a sweep's folder, or --data with --out; one of the two")
    if data is not None:
        if out is None or not models:
            raise InputError("--data: needs --reward-model and --out")
        from harness.config.conversion import load_reading
        from harness.sweep.gold import score_file

        say(str(score_file(load_reading(data, set_ or ()), asked, out, device, force)))
        return
    if out is not None or set_:
        raise InputError("--out and --set need --data: scores of a sweep's runs are written into their folders")
    assert folder is not None
    existing(folder)
    from harness.sweep.evaluate import publish
    from harness.sweep.gold import score_folder

    failures = score_folder(folder, asked if models else None, _nothing if quiet else say)
    publish(folder, say)
    for line in failures:
        print(escaped(f"failed   {line}"), file=sys.stderr)
    raise typer.Exit(1 if failures else 0)


def _nothing(_: str) -> None:
    pass

"""`harness corrupt`: a preference set in TRL's form, as it is or corrupted; or every training set of a spec."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness import api
from harness.commands.printing import say
from harness.types import InputError


def corrupt(
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="the set to write, .jsonl or .parquet; with --spec a folder")
    ],
    data: Annotated[
        Path | None, typer.Option("--data", metavar="PATH", help="preference pairs in any form: a file or folder")
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--kind", metavar="KIND", help="with --data: a corruption, sequence, or none: convert")
    ] = None,
    rate: Annotated[float | None, typer.Option("--rate", help="share of pairs, for kinds that take one")] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="draws which pairs are hit; default 0")] = None,
    spec: Annotated[
        Path | None, typer.Option("--spec", metavar="YAML", help="every training set of this sweep, in place of --data")
    ] = None,
    parquet: Annotated[bool, typer.Option("--parquet", help="with --spec: Parquet, not JSONL")] = False,
    models: Annotated[
        Path | None, typer.Option("--models", metavar="DIR", help="with --spec: the sweep's --out; default runs")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="a parameter of KIND or of data, or a key of YAML; repeatable"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="replace files that exist")] = False,
) -> None:
    """Write a preference set in TRL's form, corrupted or converted. Beside it a ledger of every change and a card.

    --set takes parameters of KIND (`harness list corruptions`) and how rows are read, such as data.format=NAME. With
    --spec: the pairs and labels that the sweep trains on, a set per source, corruption and seed.
    """
    if spec is not None:
        given = {"--data": data, "--kind": kind, "--rate": rate, "--seed": seed}
        _refuse([name for name, value in given.items() if value is not None], "stands in the spec; leave it out")
        api.corrupt_sets(spec, out, overrides=set_ or (), parquet=parquet, models=models or "runs", force=force)
        return
    _refuse([name for name, on in (("--parquet", parquet), ("--models", models)) if on], "goes with --spec")
    if data is None or kind is None:
        raise InputError("expected --data FILE with --kind KIND, or --spec YAML")
    say(str(api.corrupt_file(data, out, kind=kind, rate=rate, seed=seed or 0, overrides=set_ or (), force=force)))


def _refuse(options: list[str], why: str) -> None:
    """Raise InputError for options that do not go with the others."""
    if options:
        raise InputError(*(f"{name}: {why}" for name in options))

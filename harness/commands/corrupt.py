"""`harness corrupt`: a preference set in TRL's form, as it is or corrupted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness import api
from harness.commands.printing import say


def corrupt(
    data: Annotated[
        Path, typer.Option("--data", metavar="PATH", help="preference pairs in any form: a file or folder")
    ],
    kind: Annotated[str, typer.Option("--kind", metavar="KIND", help="a corruption, or none: convert only")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="the set to write, .jsonl or .parquet")],
    rate: Annotated[float | None, typer.Option("--rate", help="share of pairs, for kinds that take one")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="draws which pairs are hit")] = 0,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="a parameter of KIND or of data; repeatable")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="replace files that exist")] = False,
) -> None:
    """Write a preference set in TRL's form, corrupted or converted. Beside it a ledger of every change and a card.

    --set takes parameters of KIND (`harness list corruptions`) and how rows are read, such as data.format=NAME.
    """
    say(str(api.corrupt_file(data, out, kind=kind, rate=rate, seed=seed, overrides=set_ or (), force=force)))

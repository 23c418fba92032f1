"""`harness corrupt`: a preference set in TRL's form, as it is or corrupted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.commands.printing import say
from harness.types import InputError

if TYPE_CHECKING:
    from harness.types import DataSpec

# Keys of a spec's `data` that say how rows are read; the others are of training.
READING = ("format", "sha256", "limit", "on_bad_row", "split", "columns", "pairs", "pairs_per_prompt", "slices")


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
    spec, params = _asked(data, set_ or ())
    from harness.data.export_pairs import export_pairs

    given = {} if rate is None else {"rate": rate}
    done = export_pairs(spec, {"kind": kind, **given, **params}, seed, out, force)
    lines = [f"set      {done.out}: {done.pairs} pairs, read as {done.form}, {done.touched} acted on"]
    lines += [f"ledger   {done.ledger}", f"card     {done.card}", *(f"note     {note}" for note in done.notes)]
    say("\n".join(lines))


def _asked(data: Path, overrides: list[str] | tuple[str, ...]) -> tuple[DataSpec, dict[str, Any]]:
    """How the rows are read, and the parameters of the kind. Raises InputError, one line for each mistake."""
    from harness.config.data_section import data_axes
    from harness.config.overrides import apply_overrides
    from harness.config.strict_yaml import Node, plain
    from harness.types import DataSpec

    path = Node(str(data.absolute()), "--data")
    root, problems = apply_overrides(Node({"data": Node({"path": path}, "--data")}, "--data"), overrides)
    assert isinstance(root.value, dict)
    section = root.value["data"]
    keys = section.value if isinstance(section.value, dict) else {}
    if keys.get("path") is not path:
        problems.append("--set data: give the file with --data")
    problems += [
        f"--set data.{name}: does not change what is written" for name in keys if name not in ("path", *READING)
    ]
    params = {name: plain(node) for name, node in root.value.items() if name != "data"}
    problems += [f"--set {name}: give it as --{name}" for name in ("kind", "rate", "seed") if name in params]
    if problems:
        raise InputError(*problems)
    axes = data_axes(section, "", Path.cwd(), {}, problems)
    problems += [f"--set data.{name}: a list; expected one value" for name, values in axes.items() if len(values) > 1]
    if problems:
        raise InputError(*problems)
    return DataSpec(**{name: values[0] for name, values in axes.items()}), params

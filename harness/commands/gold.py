"""`harness gold`: a reward model on the answers of finished runs, or on a file of pairs."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.api import existing
from harness.commands.options import Json, Quiet
from harness.commands.printing import as_text, escaped, say
from harness.types import GoldSpec, InputError

if TYPE_CHECKING:
    from harness.metrics.rewardbench import BenchScore


def gold(
    folder: Annotated[
        Path | None, typer.Argument(metavar="[FOLDER]", help="a run's folder, or a sweep's for all its runs")
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option("--reward-model", metavar="M", help="folder or hub id; repeatable; default: as the sweep's spec"),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="PATH", help="score these pairs; needs --out or --rewardbench")
    ] = None,
    rewardbench: Annotated[
        int | None, typer.Option("--rewardbench", metavar="1|2", min=1, max=2, help="--data is RewardBench's file")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="scored pairs, .jsonl or .parquet")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="how --data is read: data.format=NAME")
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="texts scored at once")] = 16,
    max_length: Annotated[int, typer.Option("--max-length", min=0, help="tokens of a text; 0: all positions")] = 0,
    device: Annotated[str, typer.Option("--device", help="with --data: auto, cpu, cuda or cuda:N")] = "auto",
    cache: Annotated[
        Path, typer.Option("--cache", metavar="DIR", help="with --data: keeps scores, so that the same command goes on")
    ] = Path("runs/cache"),
    force: Annotated[bool, typer.Option("--force", help="with --data: replace files that exist")] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Score answers and held-out pairs with a reward model; or with --data, a file's pairs (adds gold_margin)."""
    from harness.config.gold_section import given_models

    asked = GoldSpec(given_models(models or ()), batch_size, max_length)
    if (folder is None) == (data is None):
        raise InputError("expected a sweep's folder, or --data with --out; one of the two")
    if as_json and rewardbench is None:
        raise InputError("--json: needs --rewardbench; a sweep's scores stand in results.csv, a file's in --out")
    if data is not None:
        if (out is None) == (rewardbench is None) or not models:
            raise InputError("--data: needs --reward-model, and --out or --rewardbench")
        from harness.config.conversion import load_reading
        from harness.sweep.gold import bench_file, score_file

        told = _nothing if quiet else _progress
        if rewardbench is not None:
            found = bench_file(load_reading(data, set_ or ()), asked, rewardbench, cache, device, told)
            say(as_text({name: asdict(score) for name, score in found.items()}) if as_json else _table(found))
            return
        assert out is not None
        say(str(score_file(load_reading(data, set_ or ()), asked, out, cache, device, force, told)))
        return
    if out is not None or set_ or rewardbench is not None:
        raise InputError(
            "--out, --set and --rewardbench need --data: scores of a sweep's runs are written into their folders"
        )
    assert folder is not None
    existing(folder)
    from harness.sweep.evaluate import publish
    from harness.sweep.gold import score_folder

    failures = score_folder(folder, asked if models else None, _nothing if quiet else say)
    publish(folder, say)
    for line in failures:
        print(escaped(f"failed   {line}"), file=sys.stderr)
    raise typer.Exit(1 if failures else 0)


def _table(found: Mapping[str, BenchScore]) -> str:
    """A line for each model: total, sections or subsets, and what is missing."""
    lines = []
    for name, score in found.items():
        parts = ", ".join(f"{part} {100 * value:.1f}" for part, value in (score.sections or score.subsets).items())
        lines.append(f"{name}: RewardBench{' 2' if score.version == 2 else ''} {100 * score.total:.1f} ({parts})")
        if score.missing:
            lines.append(f"  not in the file, so the total is no published figure: {', '.join(score.missing)}")
    return "\n".join(lines)


def _progress(line: str) -> None:
    """Progress goes to standard error: what a pipe reads is the answer."""
    print(escaped(line), file=sys.stderr)


def _nothing(_: str) -> None:
    pass

"""What looks at policies that were trained anywhere: diagnose, export-logps."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from harness.api import existing
from harness.commands.options import Json, writable
from harness.commands.printing import as_text, say

Tokens = StrEnum("Tokens", ["dpo", "cpo", "harness"])  # as in TRL's DPO trainer, its CPO trainer, or a sweep
Dtype = StrEnum("Dtype", ["float32", "bfloat16"])


def diagnose(
    policy: Annotated[
        list[str] | None,
        typer.Option(
            "--policy", metavar="DIR", help="a model's folder, hub id, adapter or 'out/checkpoint-*'; repeatable"
        ),
    ] = None,
    reference: Annotated[
        str,
        typer.Option("--reference", metavar="DIR|none", help="what training started from; default: an adapter's base"),
    ] = "",
    data: Annotated[str, typer.Option("--data", metavar="FILE", help="held-out preference pairs")] = "",
    logps: Annotated[
        Path | None, typer.Option("--logps", metavar="FILE", help="a log-prob file, without a model")
    ] = None,
    beta: Annotated[float | None, typer.Option("--beta", min=0, help="beta of the training")] = None,
    slices: Annotated[
        str | None, typer.Option("--slices", metavar="A,B", help="columns to break results down by, and length")
    ] = None,
    train_data: Annotated[str, typer.Option("--train-data", metavar="FILE", help="the pairs it was trained on")] = "",
    ledger: Annotated[Path | None, typer.Option("--ledger", metavar="FILE", help="what `corrupt` did to them")] = None,
    form: Annotated[str, typer.Option("--format", metavar="NAME", help="form of the rows, see `formats`")] = "",
    rewardbench: Annotated[
        int | None, typer.Option("--rewardbench", metavar="1|2", min=1, max=2, help="the pairs are RewardBench's file")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=0, help="first N rows of each file; 0: all")] = 0,
    max_length: Annotated[int, typer.Option("--max-length", min=2, help="tokens of prompt and response")] = 1024,
    tokens: Annotated[Tokens, typer.Option("--tokens", help="as in TRL's DPO or CPO trainer, or a sweep")] = Tokens.dpo,
    dtype: Annotated[Dtype, typer.Option("--dtype", help="of the forward pass")] = Dtype.float32,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda")] = "auto",
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="folder of the diagnosis")] = Path("diagnosis"),
    track: Annotated[bool, typer.Option("--track", help="also as runs in MLflow")] = False,
    as_json: Json = False,
) -> None:
    """Say what a trained policy does to preference pairs. Reads any model and any trainer's log-probs."""
    from harness.diagnose.asked import Asked
    from harness.diagnose.diagnosis import plain
    from harness.diagnose.page import lines
    from harness.diagnose.run import run

    writable(out)
    names = None if slices is None else [name.strip() for name in slices.split(",") if name.strip()]
    asked = Asked(
        out, policy or (), reference, data, logps, train_data, ledger, beta, names, form, rewardbench or 0, limit,
        max_length, tokens.value, dtype.value, device, track,
    )  # fmt: skip
    found = run(asked, lambda line: typer.echo(line, err=True))
    say(as_text(plain(found)) if as_json else "\n".join([*lines(found), f"page     {out / 'index.html'}"]))


def export_logps(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="a run's folder, or a sweep's for all its runs")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="the log-prob file to write, e.g. logps.parquet")],
) -> None:
    """Write the log-probs of finished runs as a log-prob file. Holds held-out pairs and the training probe."""
    existing(folder)
    from harness.diagnose.export import export_logps as write

    say(f"{write(folder, out)} rows in {out}")

"""`harness diagnose` and `export-logps`: policies that were trained anywhere."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from harness import api
from harness.api import existing
from harness.commands.options import Json, writable
from harness.commands.printing import as_text, say
from harness.types import InputError

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
    arguments: Annotated[
        str, typer.Option("--template-arguments", metavar="JSON", help="of the chat template: {enable_thinking: false}")
    ] = "",
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="folder of the diagnosis")] = Path("diagnosis"),
    track: Annotated[bool, typer.Option("--track", help="also as runs in MLflow")] = False,
    force: Annotated[bool, typer.Option("--force", help="replace the diagnosis of others in --out")] = False,
    as_json: Json = False,
) -> None:
    """Say what a trained policy does to preference pairs. Reads any model and any trainer's log-probs."""
    writable(out)
    names = None if slices is None else [name.strip() for name in slices.split(",") if name.strip()]
    found = api.diagnose(
        policy or (), reference=reference, data=data, logps=logps, beta=beta, slices=names, train_data=train_data,
        ledger=ledger, format=form, rewardbench=rewardbench or 0, limit=limit, max_length=max_length,
        tokens=tokens.value, dtype=dtype.value, device=device, out=out,
        template_arguments=_template_arguments(arguments), track=track, force=force,
    )  # fmt: skip
    say(as_text(found.facts) if as_json else repr(found))


def _template_arguments(text: str) -> dict[str, Any]:
    """Arguments written as JSON or YAML. Raises InputError for what is no mapping."""
    import yaml

    try:
        given = yaml.safe_load(text) or {}
    except yaml.YAMLError:
        given = None
    if not isinstance(given, dict):
        raise InputError(f"--template-arguments: {text!r} is no mapping; expected e.g. '{{enable_thinking: false}}'")
    return given


def export_logps(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="a run's folder, or a sweep's for all its runs")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="the log-prob file to write, e.g. logps.parquet")],
    reference: Annotated[
        bool, typer.Option("--reference", help="the reference's on all their pairs, for model.reference_logps")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="replace a file that exists")] = False,
) -> None:
    """Write the log-probs of finished runs as a log-prob file. Holds held-out pairs and the training probe."""
    existing(folder)
    if out.exists() and not force:
        raise InputError(f"--out {out}: exists; choose another name, or add --force")
    from harness.diagnose.export import export_logps as write
    from harness.diagnose.export import export_reference

    rows = export_reference(folder, out, lambda line: typer.echo(line, err=True)) if reference else write(folder, out)
    say(f"{rows} rows in {out}")

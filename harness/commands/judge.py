"""`harness judge`: a judge model compares answers of finished runs."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from harness.api import existing
from harness.commands.options import Json, Quiet
from harness.commands.printing import as_text, escaped, say


def judge(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="a run's folder, or a sweep's for all its runs")],
    endpoint: Annotated[
        str,
        typer.Option("--endpoint", metavar="URL", help="speaks OpenAI's chat format, e.g. http://127.0.0.1:8000/v1"),
    ],
    model: Annotated[str, typer.Option("--model", metavar="NAME", help="the judge, as the endpoint names it")],
    against: Annotated[
        str, typer.Option("--against", metavar="RUN", help="another run of the sweep; default: the reference's answers")
    ] = "",
    template: Annotated[
        Path | None, typer.Option("--template", metavar="FILE", help="prompt with {prompt}, {first} and {second}")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="first N prompts of each run")] = None,
    most: Annotated[
        int | None, typer.Option("--max-comparisons", min=0, metavar="N", help="ask at most N new comparisons")
    ] = None,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, max=256, help="questions at a time")] = 4,
    attempts: Annotated[int, typer.Option("--attempts", min=1, max=20, help="per comparison, with backoff")] = 5,
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, metavar="SECONDS", help="of one attempt")] = 120.0,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="of the judge's reply")] = 512,
    key_env: Annotated[
        str, typer.Option("--key-env", metavar="NAME", help="variable with the key; default: OPENAI_API_KEY, if set")
    ] = "",
    send_texts: Annotated[
        bool, typer.Option("--send-texts", help="prompts and answers may leave for an endpoint on another machine")
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Let a model compare the runs' answers with the reference's. Both orders; verdicts are kept, so it resumes."""
    existing(folder)
    from harness.evaluation.chat_endpoint import Retries
    from harness.signals import Interrupted, catching_signals
    from harness.sweep.judge import JudgeOptions, judge_folder, lines

    options = JudgeOptions(
        endpoint, model, against, template, limit, most, concurrency, max_tokens, key_env, send_texts,
        Retries(attempts, timeout),
    )  # fmt: skip
    show = _nothing if as_json or quiet else say
    with catching_signals() as stop:
        try:
            found, failures = judge_folder(folder, options, show, stop)
        except Interrupted as stopped:
            print("stopped  the verdicts so far are kept; the same command continues", file=sys.stderr)
            raise typer.Exit(stopped.code) from None
    for line in lines(found):
        show(line)
    from harness.sweep.evaluate import publish  # after the judge: it reads more modules

    publish(folder, _nothing if as_json else say)
    if as_json:
        say(as_text({"runs": {path.name: asdict(one) for path, one in found}}))
    for line in failures:
        print(escaped(f"failed   {line}"), file=sys.stderr)
    raise typer.Exit(1 if failures else 0)


def _nothing(_: str) -> None:
    pass

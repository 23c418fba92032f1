"""What long commands say: `--quiet` leaves the end and what failed, NO_COLOR no colours, and no text is markup."""

from __future__ import annotations

import io
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import yaml
from rich.console import Console

from harness.sweep.console import FAILURES, CommandOutput
from tests.commands import harness
from tests.sweep.test_end_to_end import TINY

ONE = {**TINY, "objectives": [{"name": "dpo", "beta": 0.5}], "corruptions": [{"kind": "none"}], "seeds": 1}
ENDS = ["results", "report", "tracking", "Use:", "Breaks:"]


def said(terminal: bool = False, quiet: bool = False) -> tuple[CommandOutput, io.StringIO]:
    text = io.StringIO()
    return CommandOutput(Console(file=text, force_terminal=terminal, width=40), quiet), text


def heads(out: str) -> list[str]:
    return [line.split()[0] for line in out.splitlines()]


def sweep(folder: Path, *more: str) -> CompletedProcess[str]:
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump(ONE), encoding="utf-8")
    return harness("sweep", path, "--out", folder / "runs", *more)


def test_a_quiet_sweep_says_where_everything_stands_and_no_more(tmp_path: Path) -> None:
    quiet = sweep(tmp_path, "--quiet")
    assert (quiet.returncode, heads(quiet.stdout), quiet.stderr) == (0, ENDS, "")
    assert str(tmp_path / "runs" / "tiny" / "results.csv") in quiet.stdout
    usual = sweep(tmp_path)
    assert heads(usual.stdout)[-len(ENDS) :] == ENDS and "2 already done" in usual.stdout


def test_a_quiet_sweep_still_says_what_is_wrong(tmp_path: Path) -> None:
    found = sweep(tmp_path, "--quiet", "--set", "objectives.0.bta=1")
    assert found.returncode == 2 and found.stdout == "" and "bta" in found.stderr


def test_quiet_drops_progress_and_keeps_results_and_failures() -> None:
    for quiet in (False, True):
        output, text = said(quiet=quiet)
        output.progress("on the way")
        output.live.print("live")
        output.result("at the end")
        output.tracked(Path("runs/tiny"), 3)
        output.failed([f"run {i}" for i in range(FAILURES + 5)])
        ends = ["at the end", "tracking 3 points waiting, run harness sync runs/tiny"]
        failed = [f"failed   run {i}" for i in range(FAILURES)]
        assert text.getvalue().splitlines() == [*([] if quiet else ["on the way", "live"]), *ends, *failed]


def test_text_is_no_markup_and_is_not_wrapped() -> None:
    output, text = said()
    odd = "KeyError: [red] [/x] " + "long " * 20
    output.failed([odd])
    assert text.getvalue() == f"failed   {odd}\n"


@pytest.mark.parametrize("wanted", [True, False])
def test_no_color_is_heeded(monkeypatch: pytest.MonkeyPatch, wanted: bool) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if not wanted:
        monkeypatch.setenv("NO_COLOR", "1")
    output, text = said(terminal=True)
    output.failed(["x"])
    assert ("\x1b[31m" in text.getvalue()) == wanted

"""A few faults of most campaigns in every run of the tests; `nox -s faults` injects them by the hundred."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.storage import failpoints
from harness.types import InputError

ROOT = Path(__file__).parents[2]


def module(*words: str, seconds: float) -> subprocess.CompletedProcess[str]:
    """A module of the tests in a process of its own: campaigns fork, which a test process with threads must not."""
    return subprocess.run(
        [sys.executable, "-m", *words], capture_output=True, text=True, cwd=ROOT, timeout=seconds, check=False
    )


def test_a_few_faults_of_most_campaigns():
    done = module("tests.faults", "--selection", seconds=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "everything held" in done.stdout


def test_a_small_rehearsal_of_scale():
    done = module("tests.faults.scale", "--runs", "200", "--driver-kills", "0", seconds=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "lost 0, made twice 0, damaged files 0, whole journals 200 of 200" in done.stdout


def test_fuzzed_specs_give_runs_or_lines():
    done = module("tests.fuzz_specs", "600", seconds=600)
    assert done.returncode == 0, done.stderr[-3000:]
    tally = json.loads(done.stdout.splitlines()[-1])
    assert tally["good"] > 30 and tally["refused"] > 200


@pytest.mark.slow
def test_ten_thousand_fuzzed_specs_give_runs_or_lines():
    done = module("tests.fuzz_specs", "10000", seconds=3600)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("text", ["ckpt.rename", "nowhere:kill@1", "ckpt.rename:explode@1", "ckpt.rename:kill@0", "a"])
def test_a_failpoint_that_does_not_exist_is_refused(text):
    with pytest.raises(InputError, match="HARNESS_FAULT"):
        failpoints.parse(text)


def test_failpoints_are_parsed_and_absent_without_the_variable():
    assert failpoints.parse("ckpt.rename:kill@3,write.begin:full@1") == {
        "ckpt.rename": ("kill", 3),
        "write.begin": ("full", 1),
    }
    assert failpoints._armed == {}
    assert {failpoints.failpoint(name) for name in failpoints.POINTS} == {None}

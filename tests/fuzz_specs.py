"""Specs fuzzed from the shipped ones, in a process of their own: `python -m tests.fuzz_specs 10000`.

Whatever is done to a good spec (values of other types, unknown keys, huge numbers, NaN, odd characters, nesting,
anchors, damaged text), it gives runs or problem lines: never another error, never more than two seconds, never torch.
"""

from __future__ import annotations

import copy
import json
import os
import re
import string
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before the hub's client is imported: how long a network takes is not the question

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.config.load import load_sweep
from harness.config.study import load_study
from harness.types import InputError

SHIPPED = sorted((Path(__file__).parents[1] / "experiments").glob("*.yaml"))
TEXTS = {path.stem: path.read_text("utf-8") for path in SHIPPED}
TREES = {name: yaml.safe_load(text) for name, text in TEXTS.items()}
ODD = (
    *(0, -1, 1, 2**31, 2**63, 10**30, 1e308, -1e308, 5e-324, float("nan"), float("inf"), float("-inf"), -0.0, 0.5),
    *(True, False, None, "", " ", "no", "012", "1e-3", "12:30", "\u202e", "\x07", "é" * 50, "x" * 5000, "../x", "/etc"),
    *("${HOME}", "{{7*7}}", "$(id)", "dpo", "none", "uniform_flip", "ppo", "hard", "cuda:9", "<script>", "\ud800"),
    *([], {}, [[]], [{}], {"a": 1}, [1, 1], [None], {"name": "dpo"}, {"low": 1, "high": 0}, {"kind": "none"}),
)
NAMES = (
    *("name", "kind", "beta", "rate", "eps", "steps", "seeds", "also", "world", "data", "model", "path", "sequence"),
    *("mixture", "annotators", "trials", "targets", "constraints", "replica", "stepz", "", "\u202e", "a.b", "<<", "1"),
)
values = st.one_of(
    st.sampled_from(ODD),
    st.integers(),
    st.floats(),
    st.text(string.printable + "é\u2028\ufeff", max_size=12),
    st.recursive(st.sampled_from(ODD), lambda v: st.lists(v, max_size=3) | st.dictionaries(st.sampled_from(NAMES), v)),
)


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value of a tree but the root."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [at for key, value in items for at in ((*path, key), *places(value, (*path, key)))]


def mutate(tree: Any, draw: Any) -> None:
    """One change at a random place: another value, a key more, a key less, one level deeper, the same thing twice."""
    found = places(tree)
    if not found:
        return
    *way, last = draw(st.sampled_from(found))
    holder = tree
    for step in way:
        holder = holder[step]
    what = draw(st.sampled_from(["value", "value", "value", "add", "drop", "wrap", "deep", "twice"]))
    if what == "value":
        holder[last] = copy.deepcopy(draw(values))
    elif what == "drop":
        del holder[last]
    elif what == "wrap":
        holder[last] = [holder[last]]
    elif what == "deep":
        for _ in range(draw(st.sampled_from([1, 20, 40]))):
            holder[last] = {"a": holder[last]} if draw(st.booleans()) else [holder[last]]
    elif what == "twice" and isinstance(holder, list):
        holder.append(copy.deepcopy(holder[last]))
    elif isinstance(holder, dict):
        holder[draw(st.sampled_from(NAMES))] = copy.deepcopy(draw(values))


@st.composite
def specs(draw: Any) -> tuple[str, str]:
    """(name of the shipped spec, text of the changed one)."""
    name = draw(st.sampled_from(sorted(TREES)))
    if draw(st.integers(0, 3)):
        tree = copy.deepcopy(TREES[name])
        for _ in range(draw(st.integers(1, 3))):
            mutate(tree, draw)
        text = json.dumps(tree) if draw(st.booleans()) else yaml.safe_dump(tree, allow_unicode=True)
        text = re.sub(r"\b(NaN|Infinity)\b", lambda m: ".nan" if m[0] == "NaN" else ".inf", text)
    else:
        text = TEXTS[name]
    if not draw(st.integers(0, 2)):  # damage to the text itself, anchors and aliases among it
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 8)))
        more = draw(st.sampled_from(["&a ", "*a", "!!python/name:os.system ", "<<: *a\n", "\t", "\x00", "---\n", "? "]))
        text = (
            text[:start] + draw(st.just(more) | st.text(string.printable + "é\u202e&*!|>%@`", max_size=8)) + text[end:]
        )
    return name, text


def fuzz(count: int) -> Counter[str]:
    """How many specs gave runs and how many were refused, the slowest one's milliseconds among them."""
    tally: Counter[str] = Counter(good=0, refused=0, slowest_ms=0)

    @settings(max_examples=count, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(specs())
    def one(given_: tuple[str, str]) -> None:
        name, text = given_
        Path("fuzz.yaml").write_text(text, encoding="utf-8", errors="replace")
        began = time.perf_counter()
        try:
            if name == "study":
                load_study("fuzz.yaml")
            else:
                assert load_sweep("fuzz.yaml", max_runs=2000).runs
            tally["good"] += 1
        except InputError as error:
            assert error.problems
            for line in error.problems:
                assert ": " in line and "Traceback" not in line
            tally["refused"] += 1
        spent = time.perf_counter() - began
        tally["slowest_ms"] = max(tally["slowest_ms"], round(1000 * spent))

    one()
    assert "torch" not in sys.modules
    return tally


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        print(json.dumps(fuzz(int(sys.argv[1]))))

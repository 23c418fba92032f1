"""`nox -s gpu -- --rehearse`: every step of the GPU session on a CPU; a failing step costs its own figures alone."""

from __future__ import annotations

import json

import pytest

from tests.benchmarks import gpu


@pytest.mark.slow
def test_the_rehearsal_passes(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["gpu", "--rehearse", "--place", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert ended.value.code == 0 and {step["state"] for step in found["steps"].values()} == {"ok"}
    assert found["steps"]["kill and resume"]["figures"]["killed in training"]
    captured = found["steps"]["a captured step"]["figures"]
    assert captured["largest difference of a weight"] == 0 and not captured["captured"]
    beside = [step["figures"] for name, step in found["steps"].items() if name.endswith("beside TRL")]
    assert len(beside) == 5
    for figures in beside:
        assert figures["ours alone, ms per step per run"] > 0
        assert figures["final log-probs differ by, relative"] < 1e-5 < figures["moved by, relative"]
        assert ("TRL" in figures) != ("trl-precomputed, ms per step per run" in figures)
    assert found["steps"]["out of memory"]["figures"]["packs tried"][0] > 2
    assert "kill and resume: ok" in (tmp_path / "gpu.md").read_text()


def test_steps_are_guarded_and_written_as_they_come(tmp_path, monkeypatch):
    def broken(_):
        raise RuntimeError("broken on purpose")

    steps = {"first": broken, "second": lambda _: {"figure": 1}}
    monkeypatch.setattr(gpu, "STEPS", steps)
    written = []
    found = gpu.run(gpu.Day("cpu", True, tmp_path), lambda now: written.append(len(now["steps"])))
    assert written == [1, 2]
    assert found["steps"]["first"]["figures"] == {"why": "RuntimeError: broken on purpose"}
    assert gpu.page(found).startswith("# A rehearsal")
    assert found["steps"]["second"]["state"] == "ok" and "- figure: 1" in gpu.page(found)
    late = gpu.run(gpu.Day("cpu", True, tmp_path), lambda _: None, budget=0.0)
    assert {step["state"] for step in late["steps"].values()} == {"skipped"}

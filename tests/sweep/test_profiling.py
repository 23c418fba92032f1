"""A profile is the sum over packs, written beside the results."""

from __future__ import annotations

import json

import pytest

from harness.sweep.profiling import FILE, Profile
from harness.worker.protocol import PackProfile


def test_packs_add_up(tmp_path):
    profile = Profile(on=True)
    for seconds, flops, ceiling in ((1.0, 6e9, 5e9), (2.0, 6e9, 8e9)):
        profile.add(PackProfile(0, {"forward": seconds, "head": 0.5, "backward": seconds}, flops, ceiling))
    with profile.tracked():
        pass
    lines = profile.finish(tmp_path)
    found = json.loads((tmp_path / FILE).read_text())
    assert found["packs"] == 2 and found["seconds"]["forward"] == 3.0 and found["tracking_seconds"] > 0
    assert found["flops_per_second"] == pytest.approx(2e9) and found["share_of_gemm"] == pytest.approx(0.25)
    assert any("forward" in line and "50.0%" in line for line in lines)


def test_nothing_is_written_where_nothing_was_measured(tmp_path):
    assert Profile().finish(tmp_path) == [] and Profile(on=True).finish(tmp_path) == []
    assert not (tmp_path / FILE).exists()

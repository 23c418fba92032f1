"""Colours by name alone, apart for colour-blind readers, the same in report and MLflow."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from harness.objectives.registry import OBJECTIVES
from harness.palette import COLOURS, FIRST, Look, contrast, looks
from harness.report.data.report_data import read_report_data
from harness.tracking.rows import read_plan
from tests.report.fixture import grid, write_sweep

# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB.
BLIND = {
    "normal": np.eye(3),
    "protan": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deutan": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritan": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}  # fmt: skip


def lab(colour: str, matrix: np.ndarray) -> np.ndarray:
    """CIE Lab of an sRGB colour as such an eye sees it."""
    srgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.clip(matrix @ np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4), 0, 1)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear
    f = np.cbrt(np.maximum(xyz / np.array([0.9505, 1.0, 1.089]), 0.008856))
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("eye", BLIND)
def test_the_eight_most_used_are_told_apart(eye: str) -> None:
    shown = [looks([name])[name].colour for name in FIRST[:8]]
    for one, other in itertools.combinations(shown, 2):
        assert np.linalg.norm(lab(one, BLIND[eye]) - lab(other, BLIND[eye])) > 12, (eye, one, other)


def test_marks_and_their_labels_are_legible_on_white() -> None:
    assert contrast("#ffffff") == pytest.approx(1) and contrast("#000000") == pytest.approx(21)
    assert min(map(contrast, COLOURS)) >= 3
    assert all(contrast(Look(colour, "o", "-").ink) >= 4.5 for colour in COLOURS)
    assert Look("#0072B2", "o", "-").ink.lower() == "#0072b2", "what is dark enough stays"


def test_every_objective_at_once_has_a_look_of_its_own() -> None:
    names = list(OBJECTIVES)
    found = looks(names)
    assert set(found) == set(names) and len(set(found.values())) == len(names) > 46


def test_names_alone_decide_and_the_first_keep_their_colour_in_every_company() -> None:
    names = [name for name in OBJECTIVES if name not in FIRST]
    assert looks(names) == looks(reversed(names))
    everyone = looks([*names, *FIRST])
    for place, name in enumerate(FIRST):
        assert everyone[name].colour == looks([name])[name].colour == COLOURS[place]
    few = looks(["dpo", *names[:5]])
    assert len({look.colour for look in few.values()}) == 6, "no colour twice while one is free"


def test_report_and_mlflow_agree(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "s", grid(objectives=("simpo", "dpo", "hypo"), betas=1, rates=(0.0,), seeds=1))
    found = {name: look.colour for name, look in read_report_data(folder).looks.items()}
    assert dict(read_plan(folder).colours) == found

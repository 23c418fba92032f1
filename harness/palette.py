"""One look per objective, the same in every figure of a report and in MLflow: colour, marker, line style.

Colours: Okabe and Ito 2008, legible to colour-blind readers, then eight darker or paler neighbours. Marker and line
repeat what the colour says, so a grey print loses nothing and a second round of the colours stays apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#E69F00", "#555555"),
    *("#003F66", "#7A3600", "#00553D", "#7D3D63", "#A6761D", "#88CCEE", "#B3A200", "#9E9E9E"),
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", ":", "-.")
# Who gets which colour first, whatever else a sweep holds: the objectives that most sweeps compare.
FIRST = (
    *("dpo", "cpo_smooth", "ipo", "robust_dpo", "ppo", "rloo", "simpo", "hypo"),
    *("cdpo", "kto", "cpo_clip", "dr_dpo", "grpo", "hinge", "orpo", "best_of_n"),
)


@dataclass(frozen=True, slots=True)
class Look:
    """How one objective is drawn; marker and line are matplotlib's names."""

    colour: str
    marker: str
    line: str


def looks(names: Iterable[str]) -> dict[str, Look]:
    """A look for each name, by name alone, whatever their order. No two of up to 128 names look the same.

    The names of `FIRST` have their own colour; every other name wants the one its hash says, and takes the next that
    no earlier name holds. When all 16 are held, a second round begins with other markers.
    """
    ranked = sorted(set(names), key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), name))
    uses = [0] * len(COLOURS)
    found = {}
    for name in ranked:
        fewest = min(uses)
        wanted = FIRST.index(name) if name in FIRST else hashlib.sha256(name.encode()).digest()[0] % len(COLOURS)
        place = next(i for k in range(len(COLOURS)) if uses[i := (wanted + k) % len(COLOURS)] == fewest)
        turn = uses[place]
        found[name] = Look(COLOURS[place], MARKERS[(place + turn) % len(MARKERS)], LINES[(place + turn) % len(LINES)])
        uses[place] += 1
    return found

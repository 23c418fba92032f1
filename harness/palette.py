"""One look per objective, the same in every figure of a report and in MLflow: colour, marker, line style.

Colours: after Okabe and Ito 2008, legible to colour-blind readers, then eight darker or paler neighbours, each with a
contrast of 3:1 on white or more. Marker and line repeat what the colour says, so a grey print loses nothing and a
second round of the colours stays apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#2693FF", "#7A22CC", "#555555"),
    *("#003F66", "#7A3600", "#00553D", "#7D3D63", "#A6761D", "#679AB4", "#A49400", "#939393"),
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", ":", "-.")
TEXT = 4.5  # contrast of small text
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

    @property
    def ink(self) -> str:
        """The colour for text on white: darker where its contrast is below 4.5:1."""
        share = next(one / 100 for one in range(100, 0, -2) if contrast(_darker(self.colour, one / 100)) >= TEXT)
        return _darker(self.colour, share)


def contrast(colour: str) -> float:
    """The contrast of a colour with white, 1 to 21, as WCAG 2 defines it."""
    srgb = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in srgb)
    return 1.05 / (0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05)


def _darker(colour: str, share: float) -> str:
    """The colour with this share of its light, in sRGB."""
    return "#" + "".join(f"{round(int(colour[i : i + 2], 16) * share):02x}" for i in (1, 3, 5))


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

"""The width and number of rows of each forward outside training: widths from a fixed list (32, 48, 64, ...).

Both follow from a row's own length and the model alone, so what is computed for a row depends on nothing beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.models.lane_model import LaneModel

EXPLICIT = 256  # tokens: rows up to this width, read without padding, attend by plain matrix products (`unpadded.py`)
MOST = 64  # rows a lane and forward
FEWEST = 128  # tokens a lane and forward, where a row is not longer: fewer would wait for the weights
WORK = 2**34  # tokens x parameters of a lane's forward on a CPU, up to half a second: filling a chunk up costs little
GPU = 64  # times as much on a GPU, which needs it to be busy


def rung(length: int) -> int:
    """The least width that holds so many tokens: 8, 12, 16, 24, 32, 48, 64, 96 and so on.

    >>> [rung(n) for n in (1, 8, 9, 13, 25, 33, 55, 65, 200)]
    [8, 8, 12, 16, 32, 48, 64, 96, 256]
    """
    power = 8
    while power < length:
        power *= 2
    return 3 * power // 4 if power > 8 and 3 * power // 4 >= length else power


def rows_at_once(model: LaneModel, width: int) -> int:
    """Rows of so many tokens that a lane's forward holds."""
    size = WORK // (model.frozen + model.trained)
    tokens = max(size, FEWEST) * (GPU if model.flat.is_cuda else 1)
    return min(max(tokens // width, 1), MOST)

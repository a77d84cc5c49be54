"""What is drawn in a square frame -> where words stand clear of it."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CELLS = 160
"""The frame is looked at in so many cells a side."""
GAP = 2
"""Cells between words and what is drawn."""
PITCH = 1.15
"""From line to line, in heights of a line."""
AREA = 0.2
"""A cell of a pale area weighs so much against one of a line: words may stand on it where nothing else is free."""


class LabelSpace:
    """LabelSpace in a frame whose axes reach from 0 to 1, less what is drawn and written there."""

    def __init__(self, frame: "Axes") -> None:
        self.frame = frame
        self._taken: NDArray[np.float64] = np.zeros((CELLS, CELLS))  # rows from below

    def line(self, x: ArrayLike, y: ArrayLike, *, steps: bool = False) -> None:
        """Take the cells of a line through points (points,); with `steps` as matplotlib's `steps-pre` draws it."""
        x, y = np.asarray(x, float), np.asarray(y, float)
        if steps:
            x, y = np.repeat(x, 2)[:-1], np.repeat(y, 2)[1:]
        share = np.linspace(0, 1, 2 * CELLS)
        self._take(
            *(np.concatenate([np.outer(1 - share, v[:-1]) + np.outer(share, v[1:])]).ravel() for v in (x, y))
        )

    def area(self, x: ArrayLike, low: ArrayLike, high: ArrayLike) -> None:
        """Take what lies between two lines over `x` (points,), rising."""
        centres = (np.arange(CELLS) + 0.5) / CELLS
        places = np.asarray(x, float)
        below, above = (np.interp(centres, places, np.asarray(edge, float)) for edge in (low, high))
        inside = (centres[:, None] >= below) & (centres[:, None] <= above)
        self._taken[inside] = np.maximum(self._taken[inside], AREA)

    def spot(self, x: float, y: float, *, radius: float = 0.02) -> None:
        """Take a dot."""
        angle, out = np.meshgrid(np.linspace(0, 2 * np.pi, 36), np.linspace(0, radius, 6))
        self._take(x + out * np.cos(angle), y + out * np.sin(angle))

    def write(self, *lines: str, near: tuple[float, float], colour: str) -> None:
        """Write lines where the least is in their way, as near to a place as that allows, and takes their room.

        Args:
            lines: One above the other.
            near: Where their middle would stand best.
            colour: Of the letters.
        """
        texts = [self.frame.text(0, 0, line, color=colour, ha="left", va="bottom") for line in lines]
        boxes, whole = [text.get_window_extent() for text in texts], self.frame.get_window_extent()
        pitch = max(box.height for box in boxes) / whole.height * CELLS * PITCH
        width = min(CELLS, int(np.ceil(max(box.width for box in boxes) / whole.width * CELLS)) + 2 * GAP)
        height = min(CELLS, int(np.ceil(pitch * len(texts))) + 2 * GAP)
        cost = _sums(self._taken, height, width)
        up, across = (np.arange(number) for number in cost.shape)
        away = np.hypot((up + height / 2)[:, None] / CELLS - near[1], (across + width / 2) / CELLS - near[0])
        row, column = (int(place) for place in np.unravel_index(np.argmin(cost + away), cost.shape))
        for number, text in enumerate(reversed(texts)):
            text.set_position(((column + GAP) / CELLS, (row + GAP + pitch * number) / CELLS))
        self._taken[row : row + height, column : column + width] = 1.0

    def _take(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
        columns, rows = (np.clip((values * CELLS).astype(int), 0, CELLS - 1) for values in (x, y))
        self._taken[rows, columns] = 1.0


def _sums(values: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """Sums of all windows of `height` x `width` cells; (rows, columns) of their lower left corners."""
    total = np.zeros((CELLS + 1, CELLS + 1))
    total[1:, 1:] = values.cumsum(axis=0).cumsum(axis=1)
    return np.asarray(
        total[height:, width:] - total[:-height, width:] - total[height:, :-width] + total[:-height, :-width]
    )

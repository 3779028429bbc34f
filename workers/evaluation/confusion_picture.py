"""The picture of a confusion matrix: shares of each true class, the number of videos in each cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from .lettering import drawable

Picture = NDArray[np.uint8]

_FONT: Final = cv2.FONT_HERSHEY_SIMPLEX
_CELL: Final = 44
_SMALL_CELL: Final = 12
"""Side of a cell, in pixels, and where there are so many classes that numbers would not fit."""
_MOST_NUMBERED: Final = 40
_MARGIN: Final = 12
_TITLE: Final = "rows: true class, columns: predicted"
_TITLE_SIZE: Final = 0.4
_PAPER, _INK, _FULL = (255, 255, 255), (40, 40, 40), (120, 60, 8)
"""Colours (blue, green, red) of nothing, of text, and of all videos of a class."""


def draw_confusion(counts: NDArray[np.int64], names: Sequence[str]) -> Picture:
    """Return the picture, uint8 (height, width, 3) in OpenCV's order of colours.

    Rows are true classes and columns predicted ones; a cell is as dark as its share of its row.
    """
    classes = len(names)
    numbered = classes <= _MOST_NUMBERED
    cell, size = (_CELL, 0.45) if numbered else (_SMALL_CELL, 0.3)
    cells = _cells(counts, cell, numbered=numbered)
    rows = [_text(drawable(name, number), size, cell) for number, name in enumerate(names)]
    room = max(label.shape[1] for label in rows) + _MARGIN
    above = room + 2 * _MARGIN
    (title_width, _), _ = cv2.getTextSize(_TITLE, _FONT, _TITLE_SIZE, 1)
    width = max(room + cells.shape[1], title_width) + _MARGIN
    picture = np.full((above + cells.shape[0] + _MARGIN, width, 3), 255, np.uint8)
    picture[above : above + cells.shape[0], room : room + cells.shape[1]] = cells
    for number, label in enumerate(rows):
        start = number * cell
        picture[above + start : above + start + cell, room - label.shape[1] - 4 : room - 4] = label
        upright = np.rot90(label)
        picture[above - 4 - upright.shape[0] : above - 4, room + start : room + start + cell] = upright
    cv2.putText(picture, _TITLE, (4, 14), _FONT, _TITLE_SIZE, _INK, 1, cv2.LINE_AA)
    return picture


def _cells(counts: NDArray[np.int64], cell: int, *, numbered: bool) -> Picture:
    shares = counts / np.maximum(1, counts.sum(1, keepdims=True))
    colours = np.asarray(_PAPER) + shares[..., None] * (np.asarray(_FULL) - np.asarray(_PAPER))
    cells: Picture = colours.round().astype(np.uint8).repeat(cell, 0).repeat(cell, 1)
    cells[::cell] = cells[:, ::cell] = (225, 225, 225)
    for (row, column), count in np.ndenumerate(counts) if numbered else ():
        if count:
            text, ink = str(count), _PAPER if shares[row, column] > 0.5 else _INK
            (width, height), _ = cv2.getTextSize(text, _FONT, 0.45, 1)
            place = (column * cell + (cell - width) // 2, row * cell + (cell + height) // 2)
            cv2.putText(cells, text, place, _FONT, 0.45, ink, 1, cv2.LINE_AA)
    return cells


def _text(shown: str, size: float, height: int) -> Picture:
    """Return a line of text on paper."""
    (width, tall), _ = cv2.getTextSize(shown, _FONT, size, 1)
    line = np.full((height, width + 2, 3), 255, np.uint8)
    cv2.putText(line, shown, (0, (height + tall) // 2), _FONT, size, _INK, 1, cv2.LINE_AA)
    return line


def write_picture(picture: Picture, suffix: str) -> bytes:
    """Return the picture as a file of the kind of a suffix such as `.png`.

    Raises:
        ValueError: there is no such kind of picture.
    """
    try:
        done, data = cv2.imencode(suffix, picture)
    except cv2.error as error:
        raise ValueError(f"{suffix or 'a file without a suffix'} is no kind of picture; write .png") from error
    if not done:
        raise ValueError(f"the picture cannot be written as {suffix}")
    return data.tobytes()

"""The picture of a confusion matrix: every cell has its shade, and file kinds are those of pictures."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from workers.evaluation.confusion_picture import draw_confusion, write_picture
from workers.evaluation.lettering import drawable

COUNTS = np.array([[8, 2, 0], [0, 5, 5], [0, 0, 0]])
NAMES = ("Walk", "Run", "never shown \u00e9")


def test_a_cell_is_as_dark_as_its_share_of_the_row() -> None:
    picture = draw_confusion(COUNTS, NAMES)
    cell = 44
    top, left = picture.shape[0] - 3 * cell - 12, picture.shape[1] - 3 * cell - 12
    shades = np.array(
        [[picture[top + row * cell + 3, left + column * cell + 3].mean() for column in range(3)] for row in range(3)]
    )
    order = [shades[0, 0], shades[1, 1], shades[0, 1], shades[0, 2]]
    assert order == sorted(order), "80 %, 50 %, 20 %, nothing"
    assert shades[1, 1] == shades[1, 2]
    assert (shades[2] == 255).all()


def test_many_classes_fit_without_numbers() -> None:
    picture = draw_confusion(np.eye(101, dtype=np.int64) * 30, [f"class {number}" for number in range(101)])
    assert picture.shape[0] < 1500
    assert picture.shape[1] < 1500


def test_it_is_written_as_a_picture() -> None:
    picture = draw_confusion(COUNTS, NAMES)
    data = np.frombuffer(write_picture(picture, ".png"), np.uint8)
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert decoded is not None
    assert np.array_equal(decoded, picture)
    with pytest.raises(ValueError, match="no kind of picture"):
        write_picture(picture, ".txt")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Café", "Cafe"),
        ("Archery", "Archery"),
        ("smørrebrød", "3: sm?rrebr?d"),
        ("射箭", "class 3"),
        ("", ""),
    ],
)
def test_names_are_told_apart_by_what_can_be_drawn_of_them(name: str, shown: str) -> None:
    assert drawable(name, 3) == shown


def test_classes_without_a_latin_letter_have_rows_of_their_own() -> None:
    counts = np.ones((2, 2), np.int64)
    same = draw_confusion(counts, ["打球", "打球"])
    assert not np.array_equal(same, draw_confusion(counts, ["打球", "class 0"]))
    assert np.array_equal(same, draw_confusion(counts, ["class 0", "class 1"]))


def test_the_title_fits_over_few_classes() -> None:
    few = draw_confusion(np.ones((1, 1), np.int64), ["a"])
    many = draw_confusion(np.ones((20, 20), np.int64), ["a"] * 20)
    assert np.array_equal(few[:18], many[:18, : few.shape[1]])
    assert (many[:18, few.shape[1] :] == 255).all()

"""Small frames are padded at the right and at the bottom with their last row and column."""

from __future__ import annotations

import numpy as np

from data.flow.method import widened


def test_a_frame_that_is_large_enough_is_returned_unchanged() -> None:
    frame = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    assert widened(frame, 5) is frame


def test_sides_grow_to_the_least_side_and_to_a_multiple() -> None:
    frame = np.arange(9 * 3, dtype=np.uint8).reshape(9, 3, 1)
    assert widened(frame, 4).shape == (9, 4, 1)
    wide = widened(frame, 4, multiple=8)
    assert wide.shape == (16, 8, 1)
    np.testing.assert_array_equal(wide[:9, :3], frame)
    np.testing.assert_array_equal(wide[9:], np.broadcast_to(wide[8], (7, 8, 1)))
    np.testing.assert_array_equal(wide[:9, 3:], np.broadcast_to(frame[:, 2:], (9, 5, 1)))

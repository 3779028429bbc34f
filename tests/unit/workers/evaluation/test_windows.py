"""Windows of a stream: against a list, and in bounded memory."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from data.arrays import ByteArray
from workers.evaluation.windows import windows


def _frames(count: int) -> Iterator[ByteArray]:
    return (np.full((1, 1, 1), number % 256, np.uint8) for number in range(count))


@given(st.integers(0, 60), st.integers(1, 12), st.integers(1, 12))
def test_windows_are_runs_of_frames_and_reach_to_the_end(count: int, length: int, hop: int) -> None:
    found = list(windows(_frames(count), length, hop))
    for window in found:
        assert [int(frame[0, 0, 0]) for frame in window.frames] == list(
            range(window.start, window.start + len(window.frames))
        )
        assert len(window.frames) <= length
    whole = [window for window in found if len(window.frames) == length]
    assert [window.start for window in whole][: max(0, (count - length) // hop + 1)] == list(
        range(0, max(0, count - length + 1), hop)
    )
    if count:
        last = found[-1]
        left = count - (last.start + len(last.frames))
        assert 2 * left < min(hop, length) or left == 0
    else:
        assert found == []


def test_no_more_than_one_window_is_held() -> None:
    alive = most = 0

    def gone() -> None:
        nonlocal alive
        alive -= 1

    def watched() -> Iterator[ByteArray]:
        nonlocal alive, most
        for frame in _frames(500):
            weakref.finalize(frame, gone)
            alive += 1
            most = max(most, alive)
            yield frame
            del frame

    for window in windows(watched(), 10, 10):
        del window
    assert most <= 2 * 10 + 2

"""Sampling: properties that hold for every length of video and every clip."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data import ClipSpec, InvalidSpecError
from data.sampling import dense_indices, evaluation_indices, training_indices, view_starts
from data.seeding import generator

LENGTHS = st.integers(1, 400)
CLIPS = st.builds(
    ClipSpec,
    frames=st.integers(1, 40),
    stride=st.integers(1, 10),
    padding=st.sampled_from(["loop", "last"]),
)


@given(n_frames=LENGTHS, clip=CLIPS, seed=st.integers(0, 10))
def test_a_training_clip_lies_in_the_video(n_frames: int, clip: ClipSpec, seed: int) -> None:
    indices = training_indices(n_frames, clip, generator("t", seed))
    assert len(indices) == clip.frames
    assert indices.min() >= 0
    assert indices.max() < n_frames
    if n_frames >= clip.span:
        assert (np.diff(indices) == clip.stride).all()
    else:
        assert indices[0] == 0
    again = training_indices(n_frames, clip, generator("t", seed))
    np.testing.assert_array_equal(indices, again)


def test_every_possible_start_is_drawn_equally_often() -> None:
    clip = ClipSpec(frames=4, stride=2)
    rng = generator("starts")
    starts = [int(training_indices(10, clip, rng)[0]) for _ in range(4000)]
    counts = np.bincount(starts)
    assert len(counts) == 4  # 0, 1, 2, 3: the last start whose clip ends at frame 9
    assert abs(counts - 1000).max() < 120


@given(n_frames=LENGTHS, clip=CLIPS, views=st.integers(1, 10))
def test_views_are_evenly_spaced_from_end_to_end(n_frames: int, clip: ClipSpec, views: int) -> None:
    starts = view_starts(n_frames, clip.span, views)
    assert len(evaluation_indices(n_frames, clip, views)) == len(starts) == views
    last = max(0, n_frames - clip.span)
    if views == 1:
        assert abs(starts[0] - last / 2) <= 0.5
    else:
        assert (starts[0], starts[-1]) == (0, last)
        steps = np.diff(starts)
        assert steps.max() - steps.min() <= 1
    for indices in evaluation_indices(n_frames, clip, views):
        assert indices.min() >= 0
        assert indices.max() < n_frames


def test_padding_loops_or_holds_the_last_frame() -> None:
    assert dense_indices(3, 0, frames=5, stride=1, padding="loop").tolist() == [0, 1, 2, 0, 1]
    assert dense_indices(3, 0, frames=5, stride=1, padding="last").tolist() == [0, 1, 2, 2, 2]
    assert dense_indices(5, 0, frames=4, stride=2, padding="loop").tolist() == [0, 2, 4, 1]


def test_nothing_to_sample_is_refused() -> None:
    with pytest.raises(InvalidSpecError):
        dense_indices(0, 0, frames=1, stride=1, padding="loop")
    with pytest.raises(InvalidSpecError):
        view_starts(10, 4, 0)


def test_generators_depend_on_every_part_and_on_nothing_else() -> None:
    draws = {parts: generator(*parts).random() for parts in [(0, 1), (1, 0), (0, 1, "a"), ("01",)]}
    assert len(set(draws.values())) == 4
    # Written down once: another value means that recorded trials cannot be repeated.
    assert generator("clip", 0, 0, "a").integers(1 << 32) == 1545920947

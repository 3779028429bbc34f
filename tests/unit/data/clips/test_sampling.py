"""Sampling: properties that hold for every length of video and every clip, and the published formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data import ClipSpec, InvalidSpecError
from data.arrays import Indices
from data.clips.sampling import evaluation_indices, flow_indices, training_indices, view_starts
from data.seeding import Draws, generator

LENGTHS = st.integers(1, 400)


def _only_clip(n_frames: int, **clip: Any) -> Indices:
    (found,) = evaluation_indices(n_frames, ClipSpec(**clip))
    return found


def _clip(images: int, stack: int, **values: object) -> ClipSpec:
    return ClipSpec(frames=images * stack, stack=stack, **values)  # type: ignore[arg-type]  # keywords by name


CLIPS = st.builds(
    _clip,
    images=st.integers(1, 40),
    stack=st.sampled_from([1, 1, 3, 5]),
    gap=st.integers(1, 4),
    stride=st.integers(1, 10),
    sampling=st.sampled_from(["dense", "segments"]),
    padding=st.sampled_from(["loop", "last"]),
)


@given(n_frames=LENGTHS, clip=CLIPS, seed=st.integers(0, 10))
def test_a_training_clip_lies_in_the_video(n_frames: int, clip: ClipSpec, seed: int) -> None:
    indices = training_indices(n_frames, clip, Draws("t", seed))
    assert len(indices) == clip.frames
    assert indices.min() >= 0
    assert indices.max() < n_frames
    stacks = indices.reshape(clip.images, clip.stack)
    if n_frames >= clip.stack_span:
        if clip.sampling == "segments" or n_frames >= clip.span:
            assert (np.diff(stacks, axis=1) == clip.gap).all()
            assert (np.diff(stacks[:, 0]) >= 0).all()
    else:
        assert indices[0] == 0
    if clip.sampling == "dense" and n_frames >= clip.span:
        assert (np.diff(stacks[:, 0]) == clip.stride).all()
    np.testing.assert_array_equal(indices, training_indices(n_frames, clip, Draws("t", seed)))


@given(n_frames=LENGTHS, clip=CLIPS, views=st.integers(1, 10))
def test_an_evaluation_clip_lies_in_the_video(n_frames: int, clip: ClipSpec, views: int) -> None:
    clips = evaluation_indices(n_frames, clip, views)
    assert len(clips) == views
    for indices in clips:
        assert len(indices) == clip.frames
        assert indices.min() >= 0
        assert indices.max() < n_frames
    assert (np.diff([int(indices[0]) for indices in clips]) >= 0).all()


def test_every_possible_start_is_drawn_equally_often() -> None:
    clip = ClipSpec(frames=4, stride=2)
    draws = Draws("starts")
    starts = [int(training_indices(10, clip, draws)[0]) for _ in range(4000)]
    counts = np.bincount(starts)
    assert len(counts) == 4  # 0, 1, 2, 3: the last start whose clip ends at frame 9
    assert abs(counts - 1000).max() < 120


@given(n_frames=LENGTHS, clip=CLIPS.filter(lambda clip: clip.sampling == "dense"), views=st.integers(1, 10))
def test_views_are_evenly_spaced_from_end_to_end(n_frames: int, clip: ClipSpec, views: int) -> None:
    starts = view_starts(n_frames, clip.span, views)
    assert len(starts) == views
    last = max(0, n_frames - clip.span)
    if views == 1:
        assert abs(starts[0] - last / 2) <= 0.5
    else:
        assert (starts[0], starts[-1]) == (0, last)
        steps = np.diff(starts)
        assert steps.max() - steps.min() <= 1


def test_every_segment_gives_one_frame_each_as_often() -> None:
    clip = ClipSpec(frames=5, sampling="segments")
    draws = Draws("segments")
    found = np.array([training_indices(20, clip, draws) for _ in range(4000)])
    assert (found // 4 == np.arange(5)).all()
    counts = np.bincount((found % 4).ravel())
    assert abs(counts - 5000).max() < 250


@given(segments=st.integers(1, 25), length=st.integers(1, 30))
def test_in_evaluation_a_segment_gives_its_centre_as_tsn_has_it(segments: int, length: int) -> None:
    clip = ClipSpec(frames=segments, sampling="segments")
    (indices,) = evaluation_indices(segments * length, clip)
    assert indices.tolist() == [int(length / 2 + length * segment) for segment in range(segments)]


def test_more_views_of_segments_are_spread_over_each() -> None:
    clip = ClipSpec(frames=2, sampling="segments")
    views = evaluation_indices(12, clip, 3)
    assert [view.tolist() for view in views] == [[1, 7], [3, 9], [5, 11]]


def test_a_video_shorter_than_its_segments_repeats_frames_in_order() -> None:
    clip = ClipSpec(frames=8, sampling="segments")
    assert evaluation_indices(3, clip)[0].tolist() == [0, 0, 0, 1, 1, 1, 2, 2]


def test_stacks_stand_where_frames_stood() -> None:
    dense = ClipSpec(frames=6, stack=3, gap=2, stride=7)
    assert dense.span == 7 + 5
    assert evaluation_indices(12, dense)[0].tolist() == [0, 2, 4, 7, 9, 11]
    segments = ClipSpec(frames=6, stack=3, sampling="segments")
    # Halves of ten frames; a stack of three starts at one of eight, the middle one is the fifth.
    assert evaluation_indices(20, segments)[0].tolist() == [4, 5, 6, 14, 15, 16]


def test_padding_loops_or_holds_the_last_frame() -> None:
    assert _only_clip(3, frames=5, stride=1, padding="loop").tolist() == [0, 1, 2, 0, 1]
    assert _only_clip(3, frames=5, stride=1, padding="last").tolist() == [0, 1, 2, 2, 2]
    assert _only_clip(5, frames=4, stride=2, padding="loop").tolist() == [0, 2, 4, 1]


def test_ten_fields_reach_from_five_before_the_frame_to_four_behind_it() -> None:
    frames = np.array([50, 80])
    assert flow_indices(99, frames, 10).tolist() == [list(range(45, 55)), list(range(75, 85))]
    assert flow_indices(99, frames, 5).tolist() == [[48, 49, 50, 51, 52], [78, 79, 80, 81, 82]]
    assert flow_indices(99, frames, 1).tolist() == [[50], [80]]


def test_fields_are_repeated_at_the_ends_of_the_video() -> None:
    assert flow_indices(7, np.array([0, 7]), 4).tolist() == [[0, 0, 0, 1], [5, 6, 6, 6]]


def test_nothing_to_sample_is_refused() -> None:
    with pytest.raises(InvalidSpecError):
        _only_clip(0, frames=1, stride=1, padding="loop")
    with pytest.raises(InvalidSpecError):
        evaluation_indices(10, ClipSpec(), 0)
    with pytest.raises(InvalidSpecError, match="without optical flow"):
        flow_indices(0, np.array([0]), 1)


def test_generators_depend_on_every_part_and_on_nothing_else() -> None:
    parts = [(0, 1), (1, 0), (0, 1, "a"), ("01",)]
    assert len({generator(*part).random() for part in parts}) == 4
    assert len({Draws(*part).random() for part in parts}) == 4
    # Written down once: another value means that recorded trials cannot be repeated.
    assert generator("clip", 0, 0, "a").integers(1 << 32) == 1545920947
    assert Draws("clip", 0, 0, "a").integer(1 << 32) == 2203855921


def test_draws_are_uniform_and_independent() -> None:
    numbers = np.array([[draws.random() for _ in range(20)] for draws in (Draws("u", n) for n in range(3000))])
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts, _ = np.histogram(numbers, bins=16, range=(0, 1))
    # Chi-square with 15 degrees of freedom: 37.7 is passed once in a thousand sets.
    assert ((counts - 3750) ** 2 / 3750).sum() < 37.7
    correlations = np.corrcoef(numbers.T) - np.eye(20)
    assert abs(correlations).max() < 5 / np.sqrt(3000)
    integers = [draws.integer(3) for draws in (Draws("i", n) for n in range(3000))]
    assert abs(np.bincount(integers) - 1000).max() < 120

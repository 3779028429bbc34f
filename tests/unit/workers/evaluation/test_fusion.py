"""Late fusion: against loops over videos, and weights that only validation scores decide."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from workers.errors import CheckpointError
from workers.evaluation.fusion import _grid, choose_weights, fuse
from workers.evaluation.measures import measure

from .test_measures import drawn


@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.0, 1.5), (0.0, 2.0), (0.2, 0.3, 0.5)])
def test_fused_scores_are_those_of_a_loop(weights: tuple[float, ...]) -> None:
    first = drawn(0, videos=12)
    parts = [first.with_clips(drawn(seed, videos=12).clips) for seed in range(len(weights))]
    found = fuse(parts, weights)
    for video in range(12):
        for clip in range(3):
            for label in range(7):
                mean = sum(w * part.clips[video, clip, label] for w, part in zip(weights, parts, strict=True))
                assert found.clips[video, clip, label] == pytest.approx(mean / sum(weights), abs=1e-6)
    assert found.ids == first.ids


def test_models_that_see_other_clips_are_fused_by_video() -> None:
    one, other = drawn(0, videos=9, views=3), drawn(1, videos=9, views=5)
    found = fuse([one, replace(other, ids=one.ids, labels=one.labels)], [1, 3])
    np.testing.assert_allclose(found.videos, 0.25 * one.videos + 0.75 * other.videos, atol=1e-6)
    assert found.clips.shape[1] == found.frames.shape[1] == 1


def test_weights_are_the_best_of_a_search_over_the_grid() -> None:
    one = drawn(0, sharp=1.0)
    parts = [one, one.with_clips(np.roll(one.clips, 7, axis=0)), one.with_clips(drawn(0, sharp=1.5).clips)]
    found = choose_weights(parts)
    assert sum(found.values) == pytest.approx(1)
    every = [measure(fuse(parts, weights)).top1 for weights in _grid(3)]
    assert found.top1 == pytest.approx(max(every))
    assert measure(fuse(parts, found.values)).top1 == pytest.approx(found.top1)
    assert found.top1 >= max(measure(part).top1 for part in parts)


def test_a_model_that_knows_nothing_gets_no_weight_where_that_costs() -> None:
    good = drawn(0, sharp=6.0)
    noise = good.with_clips(drawn(1, sharp=0.0).clips)
    assert choose_weights([good, noise]).values[0] > 0.5


@pytest.mark.parametrize("models", [2, 3, 4, 5])
def test_the_grid_has_all_corners_and_equal_weights_of_two(models: int) -> None:
    points = list(_grid(models))
    assert len(set(points)) == len(points)
    assert all(sum(point) == pytest.approx(1) for point in points)
    assert {tuple(row) for row in np.eye(models)} <= set(points)
    assert models != 2 or (0.5, 0.5) in points


def test_what_does_not_belong_together_is_refused() -> None:
    one = drawn(0)
    with pytest.raises(CheckpointError, match="classes cannot be fused"):
        fuse([one, drawn(0, classes=5)], [1, 1])
    with pytest.raises(CheckpointError, match="different videos"):
        fuse([one, replace(one, ids=one.ids[::-1])], [1, 1])

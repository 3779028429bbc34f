"""Measures of scores, against scikit-learn, loops over videos, and a reader written from the seed document."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, label_ranking_average_precision_score, top_k_accuracy_score

from workers.evaluation.measures import Measures, class_table, measure
from workers.evaluation.views import Scores, frame_document


def drawn(seed: int = 0, *, videos: int = 60, views: int = 3, classes: int = 7, sharp: float = 2.0) -> Scores:
    """Return random scores that know a little of the labels."""
    draws = np.random.default_rng(seed)
    labels = draws.integers(classes, size=videos)
    logits = draws.normal(size=(videos, views, classes)) + sharp * np.eye(classes)[labels][:, None]
    clips = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    starts = np.tile(np.arange(views), (videos, 1))
    return Scores(
        class_names=tuple(f"class {number}" for number in range(classes)),
        ids=tuple(f"v{number}" for number in range(videos)),
        groups=tuple(f"g{number // 4}" for number in range(videos)),
        labels=labels.astype(np.int64),
        clips=clips.astype(np.float32),
        frames=np.stack([starts * 8, starts * 8 + 7], axis=-1),
    )


@pytest.mark.parametrize("seed", range(5))
def test_top_k_is_that_of_scikit_learn(seed: int) -> None:
    scores = drawn(seed)
    found, classes = measure(scores), np.arange(7)
    for k in (1, 3, 5):
        of_videos = top_k_accuracy_score(scores.labels, scores.videos, k=k, labels=classes)
        of_clips = top_k_accuracy_score(scores.labels.repeat(3), scores.clips.reshape(-1, 7), k=k, labels=classes)
        assert getattr(found, f"top{k}") == pytest.approx(of_videos)
        assert getattr(found, f"clip_top{k}") == pytest.approx(of_clips)
    assert found.mean_class_accuracy == pytest.approx(balanced_accuracy_score(scores.labels, scores.videos.argmax(1)))
    assert found.mean_error == pytest.approx(((1 - found.top1) + (1 - found.top5)) / 2)


def _average_precision(positive: list[bool], score: list[float]) -> float:
    """Return the mean, over positives, of the precision among all that score as high or higher."""
    precisions = []
    for own, one in zip(score, positive, strict=True):
        above = [is_positive for other, is_positive in zip(score, positive, strict=True) if other >= own]
        if one:
            precisions.append(sum(above) / len(above))
    return sum(precisions) / len(precisions)


def test_classes_are_measured_as_a_loop_would() -> None:
    scores = drawn(3, videos=40)
    found = measure(scores)
    predictions = scores.videos.argmax(1)
    for number, one in enumerate(found.classes):
        of_it = scores.labels == number
        assert one.videos == of_it.sum()
        assert one.recall == pytest.approx((predictions[of_it] == number).mean())
        called = predictions == number
        assert one.precision == pytest.approx((scores.labels[called] == number).mean())
        assert one.average_precision == pytest.approx(
            _average_precision(of_it.tolist(), scores.videos[:, number].tolist())
        )
        for other in range(7):
            assert found.confusion[number, other] == sum(
                label == number and prediction == other
                for label, prediction in zip(scores.labels, predictions, strict=True)
            )
    assert found.mean_average_precision == pytest.approx(np.mean([one.average_precision for one in found.classes]))
    assert [row["name"] for row in class_table(found)] == list(scores.class_names)


def test_a_class_without_videos_counts_in_no_mean() -> None:
    scores = drawn(1, videos=30, classes=3)
    absent = Scores(
        class_names=(*scores.class_names, "never shown"),
        ids=scores.ids,
        groups=scores.groups,
        labels=scores.labels,
        clips=np.concatenate([scores.clips, np.zeros((30, 3, 1), np.float32)], axis=2),
        frames=scores.frames,
    )
    before, found = measure(scores), measure(absent)
    assert (found.mean_class_accuracy, found.mean_average_precision) == (
        before.mean_class_accuracy,
        before.mean_average_precision,
    )
    last = found.classes[-1]
    assert (last.videos, last.recall, last.precision, last.average_precision) == (0, None, None, None)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**16), st.integers(2, 9), st.booleans())
def test_measures_keep_their_order(seed: int, classes: int, ties: bool) -> None:
    scores = drawn(seed, videos=20, classes=classes)
    if ties:
        scores = scores.with_clips(scores.clips.round(1))
    found = measure(scores)
    assert 0 <= found.top1 <= found.top3 <= found.top5 <= 1
    assert found.clip_top1 <= found.clip_top3 <= found.clip_top5
    assert found.top1 == pytest.approx(np.trace(found.confusion) / 20), "equal classes are told apart in one way"
    assert found.top5 == 1 or classes > 5
    assert found.interval.low <= found.top1 <= found.interval.high
    shares = [value for name, value in found.summary().items() if name.startswith(("top", "clip", "mean"))]
    assert len(shares) == 9
    assert all(isinstance(share, float) and 0 <= share <= 1 for share in shares)


def test_mean_precision_of_one_label_each_is_scikit_learns_reciprocal_rank() -> None:
    scores = drawn(4)
    one_hot = np.eye(7)[scores.labels]
    ranks = (scores.videos > scores.videos[np.arange(60), scores.labels][:, None]).sum(1) + 1
    assert label_ranking_average_precision_score(one_hot, scores.videos) == pytest.approx((1 / ranks).mean())


class SeedReader:
    """What a reader of the seed trainings' documents (scores of frames, results of videos) makes of a file.

    It knows their words only: frame-level scores, video-level results, f-top1, f-top3, v-top1, v-top5, mean-error.
    """

    def __init__(self, text: str) -> None:
        self.document: dict[str, Any] = json.loads(text)
        self.videos: dict[str, Any] = self.document["videos"]

    def row(self) -> dict[str, float]:
        frames = [(video["label"], frame["scores"]) for video in self.videos.values() for frame in video["frames"]]
        videos = [(video["label"], self._mean(video["frames"])) for video in self.videos.values()]
        top1, top5 = self._top(videos, 1), self._top(videos, 5)
        return {
            "f-top1": self._top(frames, 1),
            "f-top3": self._top(frames, 3),
            "v-top1": top1,
            "v-top5": top5,
            "mean-error": ((1 - top1) + (1 - top5)) / 2,
        }

    def _top(self, scored: list[tuple[str, list[float]]], k: int) -> float:
        classes = self.document["classes"]
        best = [sorted(zip(scores, classes, strict=True), reverse=True)[:k] for _, scores in scored]
        return sum(label in {name for _, name in top} for (label, _), top in zip(scored, best, strict=True)) / len(best)

    @staticmethod
    def _mean(frames: list[dict[str, Any]]) -> list[float]:
        return [sum(values) / len(frames) for values in zip(*(frame["scores"] for frame in frames), strict=True)]


def test_the_file_of_scores_is_read_back_with_the_same_table() -> None:
    scores = drawn(5)
    found: Measures = measure(scores)
    reader = SeedReader(json.dumps(frame_document(scores)))
    row = reader.row()
    assert row == pytest.approx({name: found.table()[name] for name in row})
    video = reader.videos["v7"]
    assert video["scores"] == pytest.approx(scores.videos[7], abs=1e-6)
    assert [(frame["first"], frame["last"]) for frame in video["frames"]] == [(0, 7), (8, 15), (16, 23)]
    assert video["prediction"] == f"class {scores.videos[7].argmax()}"

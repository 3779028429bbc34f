"""What scores are worth: top-k of clips and videos, mean error, means over classes, and the confusion matrix."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, confusion_matrix

from .interval import Interval, grouped_interval
from .views import Scores


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassMeasures:
    """One class."""

    name: str
    videos: int
    recall: float | None
    """Share of its videos that are recognised; None without videos."""
    precision: float | None
    """Share of the videos called so that are of it; None where none is called so."""
    average_precision: float | None
    mistaken_for: str | None
    """The class that its videos are most often mistaken for."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measures:
    """All measures of one evaluation. Shares are of videos but for those of clips."""

    videos: int
    sources: int
    """Groups that the videos come from."""
    top1: float
    top3: float
    top5: float
    clip_top1: float
    clip_top3: float
    clip_top5: float
    interval: Interval
    """Of `top1`."""
    mean_class_accuracy: float
    mean_average_precision: float
    """Mean over classes of the average precision of their probabilities (not interpolated)."""
    confusion: NDArray[np.int64]
    """(C, C): videos by true class (row) and predicted class."""
    classes: tuple[ClassMeasures, ...]

    @property
    def mean_error(self) -> float:
        """Mean of the top-1 and the top-5 error, by which the Kinetics challenges rank (Kay et al., 2017)."""
        return 1 - (self.top1 + self.top5) / 2

    def summary(self) -> dict[str, float | int | list[float]]:
        """Return the numbers that are not of single classes."""
        names = ("videos", "sources", "top1", "top3", "top5", "clip_top1", "clip_top3", "clip_top5")
        means = ("mean_error", "mean_class_accuracy", "mean_average_precision")
        return {
            **{name: getattr(self, name) for name in (*names, *means)},
            "interval": [self.interval.low, self.interval.high],
            "effective_videos": self.interval.effective,
        }

    def table(self) -> dict[str, float]:
        """Return the row of the table that seed trainings on Kinetics report: f is of single frames or clips."""
        return {
            "f-top1": self.clip_top1,
            "f-top3": self.clip_top3,
            "v-top1": self.top1,
            "v-top3": self.top3,
            "v-top5": self.top5,
            "mean-error": self.mean_error,
        }


def measure(scores: Scores) -> Measures:
    """Return the measures of scores."""
    means, labels = scores.videos, scores.labels
    ranks = _ranks(means, labels)
    clip_ranks = _ranks(scores.clips.reshape(-1, means.shape[1]), labels.repeat(scores.clips.shape[1]))
    of_classes = _classes(means, labels, scores.class_names)
    return Measures(
        videos=len(labels),
        sources=len(set(scores.groups)),
        **{f"top{k}": float((ranks < k).mean()) for k in (1, 3, 5)},
        **{f"clip_top{k}": float((clip_ranks < k).mean()) for k in (1, 3, 5)},
        interval=grouped_interval(ranks < 1, scores.groups),
        mean_class_accuracy=_mean([one.recall for one in of_classes]),
        mean_average_precision=_mean([one.average_precision for one in of_classes]),
        confusion=_confusion(means, labels),
        classes=of_classes,
    )


def class_table(measures: Measures) -> list[dict[str, Any]]:
    """Return the measures of each class as plain data."""
    fields = ("name", "videos", "recall", "precision", "average_precision", "mistaken_for")
    return [{field: getattr(one, field) for field in fields} for one in measures.classes]


def _ranks(scores: NDArray[Any], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many classes come before the right one, (N,); of equal ones the first, as in the confusion matrix."""
    own = scores[np.arange(len(labels)), labels][:, None]
    earlier = np.arange(scores.shape[1]) < labels[:, None]
    ranks: NDArray[np.int64] = ((scores > own) | ((scores == own) & earlier)).sum(1)
    return ranks


def _confusion(means: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    counts: NDArray[np.int64] = confusion_matrix(labels, means.argmax(1), labels=np.arange(means.shape[1]))
    return counts


def _classes(
    means: NDArray[np.float64], labels: NDArray[np.int64], names: tuple[str, ...]
) -> tuple[ClassMeasures, ...]:
    confusion = _confusion(means, labels)
    found = []
    for number, name in enumerate(names):
        row = confusion[number]
        of_it, called = int(row.sum()), int(confusion[:, number].sum())
        others = row.copy()
        others[number] = 0
        found.append(
            ClassMeasures(
                name=name,
                videos=of_it,
                recall=float(row[number] / of_it) if of_it else None,
                precision=float(row[number] / called) if called else None,
                average_precision=_average_precision(labels == number, means[:, number]) if of_it else None,
                mistaken_for=names[int(others.argmax())] if others.any() else None,
            )
        )
    return tuple(found)


def _average_precision(positive: NDArray[np.bool_], score: NDArray[np.float64]) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return float(average_precision_score(positive, score))


def _mean(values: list[float | None]) -> float:
    return float(np.mean([value for value in values if value is not None]))

"""A confusion matrix for a person: what the script draws, and in words and tables what matters most of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from hpo.plain_text import plain
from hpo.protocol import Confusion

MOST_PAIRS: Final = 10
MOST_WORST: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Videos of a class that the model took for another one."""

    true: str
    said: str
    videos: int
    of: int
    """Videos of the class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recall:
    """How many videos of a class were classified rightly."""

    name: str
    right: int
    videos: int

    @property
    def percent(self) -> int:
        """The share that is right, rounded as the script rounds it."""
        return int(100 * self.right / self.videos + 0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfusionSummary:
    """A confusion matrix as the page shows it."""

    sentence: str
    pairs: list[Pair]
    """The most frequent confusions first."""
    worst: list[Recall]
    """The classes with the least share of right videos first; without those that have no video."""
    figure: Mapping[str, Any]


def summary_of(found: Confusion, *, clip_word: str) -> ConfusionSummary:
    """Return what a page shows of a confusion matrix."""
    names = [plain(name) for name in found.class_names]
    right = [0] * len(names)
    for true, said, count in found.cells:
        if true == said:
            right[true] += count
    wrong = sorted((cell for cell in found.cells if cell[0] != cell[1]), key=lambda cell: (-cell[2], cell[0], cell[1]))
    recalls = [
        Recall(name=name, right=some, videos=videos)
        for name, some, videos in zip(names, right, found.videos, strict=True)
        if videos
    ]
    return ConfusionSummary(
        sentence=f"After epoch {found.step}, {sum(right):,} of {sum(found.videos):,} validation {clip_word}s of "
        f"{len(names):,} classes were classified rightly.",
        pairs=[
            Pair(true=names[true], said=names[said], videos=count, of=found.videos[true])
            for true, said, count in wrong[:MOST_PAIRS]
        ],
        worst=sorted(recalls, key=lambda one: (one.right / one.videos, -one.videos, one.name))[:MOST_WORST],
        figure={"names": names, "videos": found.videos, "cells": [list(cell) for cell in found.cells]},
    )

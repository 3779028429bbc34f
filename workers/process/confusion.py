"""What a validation says of each class, as a message of bounded size."""

from __future__ import annotations

from collections.abc import Sequence

from hpo.protocol import CLASS_NAME_CHARACTERS, MOST_CELLS, MOST_CLASSES, Confusion

from ..training.epoch import Classified


def confusion_of(classified: Classified | None, class_names: Sequence[str]) -> Confusion | None:
    """Return the confusion matrix of a validation; None without one, and where there are too many classes."""
    if classified is None or len(class_names) > MOST_CLASSES:
        return None
    videos = [0] * len(class_names)
    for (true, _), count in classified.counts.items():
        videos[true] += count
    # Of more cells than a message may have, the rarest confusions are left out.
    ordered = sorted(classified.counts.items(), key=lambda entry: (entry[0][0] != entry[0][1], -entry[1], entry[0]))
    cells = sorted((true, said, count) for (true, said), count in ordered[:MOST_CELLS])
    names = [name[:CLASS_NAME_CHARACTERS] for name in class_names]
    return Confusion(step=classified.epoch, class_names=names, videos=videos, cells=cells)

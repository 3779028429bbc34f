"""Confusion matrices: those of scikit-learn, in messages of bounded size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sklearn.metrics import confusion_matrix

from data import ClipBatch
from hpo.protocol import MOST_CELLS, MOST_CLASSES, Confusion
from workers.process.confusion import confusion_of
from workers.training.epoch import Classified
from workers.training.scoring import score

CPU = torch.device("cpu")
NAMES = tuple(f"class {number}" for number in range(7))


def _dense(found: Confusion) -> np.ndarray:
    matrix = np.zeros((len(found.videos),) * 2, np.int64)
    for true, said, count in found.cells:
        matrix[true, said] = count
    return matrix


def test_a_validation_counts_what_scikit_learn_counts() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(90, 7, generator=generator), torch.randint(5, (90,), generator=generator)
    sizes = [40, 40, 10]
    batches = [
        ClipBatch(clips=clips, labels=true, views=1, ids=("",) * len(true))
        for clips, true in zip(logits.split(sizes), labels.split(sizes), strict=True)
    ]
    result = score(torch.nn.Identity(), batches, device=CPU, precision="fp32")
    found = confusion_of(Classified(epoch=3, counts=result.confusion), NAMES)
    assert found is not None
    expected = confusion_matrix(labels, logits.argmax(1), labels=range(7))
    assert (_dense(found) == expected).all()
    assert found.videos == expected.sum(1).tolist()
    assert np.trace(_dense(found)) / 90 == result.top1
    assert (found.step, tuple(found.class_names)) == (3, NAMES)
    assert Confusion.model_validate_json(found.model_dump_json()) == found


def test_of_many_classes_rare_confusions_are_left_out_and_never_what_is_right() -> None:
    counted = {(true, said): 5 if true == said else 1 + (true + said) % 3 for true in range(200) for said in range(200)}
    found = confusion_of(Classified(epoch=1, counts=counted), [f"c{number}" * 60 for number in range(200)])
    assert found is not None
    assert len(found.cells) == MOST_CELLS
    assert (np.diag(_dense(found)) == 5).all()
    assert found.videos == [sum(counted[true, said] for said in range(200)) for true in range(200)]
    assert min(count for true, said, count in found.cells if true != said) == 3
    assert len(found.model_dump_json()) < 200_000
    assert confusion_of(Classified(epoch=1, counts={(0, 0): 1}), ["c"] * (MOST_CLASSES + 1)) is None
    state = Classified(epoch=1, counts=counted)
    assert Classified.from_state(state.to_state()) == state


@pytest.mark.parametrize(
    "wrong",
    [
        {"videos": [1]},
        {"cells": [(0, 2, 1)]},
        {"cells": [(0, 1, 1), (0, 1, 1)]},
        {"cells": [(0, 0, 4), (0, 1, 2)]},
        {"cells": [(0, 0, 0)]},
        {"step": 0},
    ],
)
def test_what_is_no_matrix_is_refused(wrong: dict[str, object]) -> None:
    right = {"step": 1, "class_names": ["a", "b"], "videos": [5, 5], "cells": [(0, 0, 4), (0, 1, 1)]}
    assert Confusion.model_validate(right).step == 1
    with pytest.raises(ValidationError):
        Confusion.model_validate({**right, **wrong})

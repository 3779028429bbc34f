"""Accuracy and loss against scikit-learn and brute force, over batches of unequal size."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss, top_k_accuracy_score
from torch.nn import functional as F

from workers.training.metrics import Sums, hits

CPU = torch.device("cpu")


def _samples(n: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(n)
    return torch.randn(n, classes, generator=generator), torch.randint(classes, (n,), generator=generator)


def _summed(logits: torch.Tensor, labels: torch.Tensor, batch: int) -> Sums:
    sums = Sums(CPU)
    for part, wanted in zip(logits.split(batch), labels.split(batch), strict=True):
        sums.add(F.cross_entropy(part, wanted), part, wanted)
    return sums


@pytest.mark.parametrize("batch", [1, 7, 32, 100])
def test_sums_equal_scikit_learn_for_every_batch_size(batch: int) -> None:
    logits, labels = _samples(100, 11)
    sums = _summed(logits, labels, batch)
    scores, classes = logits.double().numpy(), np.arange(11)
    assert sums.samples == 100
    assert sums.top1 == accuracy_score(labels, scores.argmax(1))
    assert sums.top5 == top_k_accuracy_score(labels, scores, k=5, labels=classes)
    expected = log_loss(labels, logits.double().softmax(1).numpy(), labels=classes)
    assert sums.loss == pytest.approx(expected, rel=1e-6)


def test_with_fewer_than_five_classes_all_are_among_the_best_five() -> None:
    logits, labels = _samples(20, 3)
    assert hits(logits, labels).tolist() == [int((logits.argmax(1) == labels).sum()), 20]


def test_sums_continue_exactly_from_their_state() -> None:
    logits, labels = _samples(60, 7)
    whole = _summed(logits, labels, 9)
    half = _summed(logits[:27], labels[:27], 9)
    file = io.BytesIO()
    torch.save(half.state(), file)
    file.seek(0)
    resumed = Sums.from_state(torch.load(file, weights_only=True), CPU)
    for part, wanted in zip(logits[27:].split(9), labels[27:].split(9), strict=True):
        resumed.add(F.cross_entropy(part, wanted), part, wanted)
    assert (resumed.loss, resumed.top1, resumed.top5) == (whole.loss, whole.top1, whole.top5)


def test_a_nan_loss_is_never_summed_away() -> None:
    sums = Sums(CPU)
    logits, labels = _samples(4, 3)
    sums.add(torch.tensor(float("nan")), logits, labels)
    sums.add(torch.tensor(1.0), logits, labels)
    assert np.isnan(sums.loss)

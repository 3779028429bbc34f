"""Counts and sums over samples: a mean of batch means would weigh a short last batch too much."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self

import torch
from torch import Tensor

TOP_K = (1, 5)


def hits(logits: Tensor, labels: Tensor) -> Tensor:
    """Return how many samples have their label as the best class, and among the best five.

    Args:
        logits: (N, classes); or any score that is higher for a likelier class.
        labels: (N,) int64.

    Returns:
        (2,) int64 on the device of `logits`. With fewer than five classes every label is among the best five.
    """
    right = _best_classes(logits) == labels[:, None]
    return torch.stack([right[:, :k].sum() for k in TOP_K])


def best_class(logits: Tensor) -> Tensor:
    """Return the best class of each sample, (N,) int64: the one that `hits` compares with the label."""
    return _best_classes(logits)[:, 0]


def _best_classes(logits: Tensor) -> Tensor:
    return logits.topk(min(max(TOP_K), logits.shape[1]), dim=1).indices


class Sums:
    """Loss and hits summed over samples, kept on the device so that adding a batch does not wait for it."""

    def __init__(self, device: torch.device) -> None:
        self._loss = torch.zeros((), dtype=torch.float64, device=device)
        self._hits = torch.zeros(len(TOP_K), dtype=torch.int64, device=device)
        self.samples = 0

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a batch: `loss` () is the mean over its samples."""
        self._loss += loss.detach().double() * len(labels)
        self._hits += hits(logits.detach(), labels)
        self.samples += len(labels)

    @property
    def loss(self) -> float:
        """Mean loss per sample; NaN before the first."""
        return float(self._loss) / self.samples if self.samples else float("nan")

    @property
    def top1(self) -> float:
        """Share of samples with the right best class."""
        return int(self._hits[0]) / self.samples

    @property
    def top5(self) -> float:
        """Share of samples with the right class among the best five."""
        return int(self._hits[1]) / self.samples

    def state(self) -> dict[str, Any]:
        """Return everything that :meth:`from_state` needs, as tensors and numbers."""
        return {"loss": self._loss.cpu(), "hits": self._hits.cpu(), "samples": self.samples}

    @classmethod
    def from_state(cls, state: Mapping[str, Any], device: torch.device) -> Self:
        """Return sums that continue from where :meth:`state` was taken."""
        return cls.joined([state], device)

    @classmethod
    def joined(cls, parts: Iterable[Mapping[str, Any]], device: torch.device) -> Self:
        """Return the sums over all `parts`, each as :meth:`state` returned it, added in their order."""
        sums = cls(device)
        for part in parts:
            sums._loss += part["loss"].to(device)
            sums._hits += part["hits"].to(device)
            sums.samples += part["samples"]
        return sums

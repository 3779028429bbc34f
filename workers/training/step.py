"""One update of a model's weights from one batch: forward, loss and backward in parts, then clipping and step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data import ClipBatch
from hpo.spec import TrainingConfig
from models import VideoModel

from .precision import Precision, autocast
from .recipe import Recipe

Loss = Callable[[ClipBatch], tuple[Tensor, Tensor]]
"""Of a batch, the loss (), a mean over its clips, with a graph, and the logits (N, classes)."""


def accumulate(loss_of: Loss, batch: ClipBatch, *, micro_batch: int) -> tuple[Tensor, Tensor]:
    """Add the gradients of the mean loss over `batch` to those of the weights, `micro_batch` clips at once.

    The loss of a part counts by its share of the clips, so that gradients are those of the whole batch wherever the
    loss of a clip does not depend on others. It does where batch norms train: they normalise each part by itself.

    Returns:
        The loss (), a mean over the batch, and the logits (N, classes) as they come, both without a gradient.
    """
    losses, outputs = [], []
    for part in batch.parts(micro_batch):
        loss, logits = loss_of(part)
        loss = loss * (len(part.ids) / len(batch.ids))
        loss.backward()
        losses.append(loss.detach())
        outputs.append(logits.detach())
        del loss, logits  # and with them the graph, before the next part makes its own
    return torch.stack(losses).sum(), torch.cat(outputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingStep:
    """What every update of a run has in common."""

    model: VideoModel
    """In training mode when an update is made."""
    recipe: Recipe
    config: TrainingConfig
    """Its `label_smoothing` and `grad_clip_norm` are used here."""
    precision: Precision
    device: torch.device

    def update(self, batch: ClipBatch, *, number: int, micro_batch: int | None = None) -> tuple[Tensor, Tensor]:
        """Make update `number` (from 0) of the weights; return what :meth:`differentiate` does."""
        found = self.differentiate(batch, micro_batch=micro_batch or len(batch.ids))
        self.apply(number=number)
        return found

    def differentiate(self, batch: ClipBatch, *, micro_batch: int) -> tuple[Tensor, Tensor]:
        """Set the gradients that `batch` gives, clipped, `micro_batch` clips at once; the weights stay as they are.

        Returns:
            The loss (), a mean over the batch, and the logits (N, classes), float32, both without a gradient.
        """
        # Before the forward pass, so that the gradients of the last update take no memory beside its activations.
        self.recipe.optimizer.zero_grad(set_to_none=True)
        loss, logits = accumulate(self._loss, batch, micro_batch=micro_batch)
        if self.config.grad_clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip_norm)
        return loss, logits

    def apply(self, *, number: int) -> None:
        """Change the weights by the gradients, with the learning rate of update `number` (from 0)."""
        self.recipe.set_learning_rate(number)
        self.recipe.optimizer.step()

    def forget(self) -> None:
        """Drop the gradients, and with them their memory."""
        self.recipe.optimizer.zero_grad(set_to_none=True)

    def _loss(self, batch: ClipBatch) -> tuple[Tensor, Tensor]:
        with autocast(self.precision, self.device):
            # A model of two clips takes the pair, which its base class does not promise.
            loss, logits = self.model.training_loss(batch.clips, batch.targets, self._criterion)  # type: ignore[arg-type]  # a model takes what its card says
        return loss, logits.detach().float()

    def _criterion(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits.float(), targets, label_smoothing=self.config.label_smoothing)

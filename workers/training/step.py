"""One update of a model's weights from one batch: forward, loss, backward, clipping, step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data import ClipBatch
from hpo.spec import TrainingConfig
from models import VideoModel

from .precision import Precision, autocast
from .recipe import Recipe


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

    def update(self, batch: ClipBatch, *, number: int) -> tuple[Tensor, Tensor]:
        """Change the weights once, with the learning rate of update `number` (from 0).

        Returns:
            The loss (), a mean over the batch, and the logits (N, classes), float32: both of before the update, and
            both without a gradient.
        """
        self.recipe.set_learning_rate(number)
        with autocast(self.precision, self.device):
            # A model of two clips takes the pair, which its base class does not promise.
            loss, logits = self.model.training_loss(batch.clips, batch.targets, self._criterion)  # type: ignore[arg-type]  # a model takes what its card says
        self.recipe.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.config.grad_clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip_norm)
        self.recipe.optimizer.step()
        return loss.detach(), logits.detach().float()

    def _criterion(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits.float(), targets, label_smoothing=self.config.label_smoothing)

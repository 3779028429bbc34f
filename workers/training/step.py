"""One update of a model's weights from one batch: forward, loss and backward in parts, then clipping and step."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data import ClipBatch
from hpo.spec import TrainingConfig
from models import VideoModel

from .compiled import CompiledBlocks
from .parallel import Gradients, Loss
from .precision import LossScale, Precision, autocast
from .recipe import Recipe


def accumulate(
    loss_of: Loss, batch: ClipBatch, *, micro_batch: int, gradients: Gradients | None = None, scale: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Add the gradients of the mean loss over `batch` to those of the weights, `micro_batch` clips at once.

    The loss of a part counts by its share of the clips, so that gradients are those of the whole batch wherever the
    loss of a clip does not depend on others. It does where batch norms train: they normalise each part by itself.

    Args:
        gradients: how those of several ranks add up; by default there is one.
        scale: what the gradients are multiplied by, and the loss that is returned is not.

    Returns:
        The loss (), a mean over the batch, and the logits (N, classes) as they come, both without a gradient.
    """
    gradients = gradients or Gradients()
    losses, outputs = [], []
    parts = gradients.parts(batch, micro_batch)
    for number, part in enumerate(parts, start=1):
        with gradients.part(is_last=number == len(parts)):
            loss, logits = gradients.loss(loss_of, part)
            loss = loss * (len(part.ids) / len(batch.ids))
            scaled = gradients.scaled(loss, batch)
            (scaled if scale == 1 else scaled * scale).backward()
        losses.append(loss.detach())
        outputs.append(logits.detach())
        del loss, logits, scaled  # and with them the graph, before the next part makes its own
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
    gradients: Gradients = field(default_factory=Gradients)
    """How those of several ranks add up."""
    scale: LossScale = field(default_factory=LossScale)
    """Of the loss, where the precision is fp16."""
    compiled: CompiledBlocks | None = None
    """How the blocks of the model are computed, if not as they are written."""

    def renew(self) -> None:
        """Take note of which parameters train from now on."""
        self.gradients.renew(self._loss)

    def update(self, batch: ClipBatch, *, number: int, micro_batch: int | None = None) -> tuple[Tensor, Tensor]:
        """Make update `number` (from 0) of the weights, whatever the gradients; return what :meth:`differentiate` does.

        To try or to time an update, which takes its memory and time only if it is not left out.
        """
        found = self.differentiate(batch, micro_batch=micro_batch or len(batch.ids))
        self._change_weights(number)
        return found

    def differentiate(self, batch: ClipBatch, *, micro_batch: int) -> tuple[Tensor, Tensor]:
        """Set the gradients that `batch` gives, clipped, `micro_batch` clips at once; the weights stay as they are.

        Returns:
            The loss (), a mean over the batch, and the logits (N, classes), float32, both without a gradient.
        """
        # Before the forward pass, so that the gradients of the last update take no memory beside its activations.
        self.recipe.optimizer.zero_grad(set_to_none=True)
        scale = self.scale.value if self._is_scaled else 1.0
        with nullcontext() if self.compiled is None else self.compiled.in_use(len(batch.ids)):
            found = accumulate(self._loss, batch, micro_batch=micro_batch, gradients=self.gradients, scale=scale)
        length = self.scale.unscale(self.model.parameters()) if self._is_scaled else None
        longest = self.config.grad_clip_norm
        if longest is not None and length is not None:
            nn.utils.clip_grads_with_norm_(self.model.parameters(), longest, length)
        elif longest is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), longest)
        return found

    def apply(self, *, number: int) -> bool:
        """Change the weights by the gradients, with the learning rate of update `number` (from 0).

        Returns:
            Whether they were changed: in fp16, an update whose gradients are not finite is left out.

        Raises:
            DivergedError: in fp16, the gradients are not finite however small the loss is made.
        """
        if self._is_scaled and not self.scale.take():
            return False
        self._change_weights(number)
        return True

    @property
    def _is_scaled(self) -> bool:
        return self.precision == "fp16"

    def _change_weights(self, number: int) -> None:
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

"""Which parts of a model do not train, and in which mode their layers are."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from hpo.spec import TrainingConfig
from models import InvalidModelError, VideoModel


class Freezing:
    """What `freeze`, `unfreeze_every` and `batch_norm` mean for one model: a function of the epoch.

    Frozen parameters get no gradient, and so no update and no weight decay. A module whose parameters are all frozen
    is in evaluation mode: batch norms keep their statistics, and nothing is dropped.
    """

    def __init__(self, model: VideoModel, config: TrainingConfig) -> None:
        """Find the parts that `config` names.

        Raises:
            models.InvalidModelError: the model has fewer layers than are to be frozen.
        """
        self._model = model
        self._layers = _frozen_layers(model, config)
        self._every = config.unfreeze_every
        self._norms = list(_frozen_norms(model, config))
        self._is_active = bool(self._layers or self._norms)

    def apply(self, epoch: int) -> None:
        """Freeze what does not train in `epoch` (from 0). The model was put into training mode as a whole before."""
        if not self._is_active:
            return
        layers = self._layers - (epoch // self._every if self._every else 0)
        norms = {id(parameter) for norm in self._norms for parameter in norm.parameters()}
        for name, parameter in self._model.named_parameters():
            parameter.requires_grad_(self._model.layer_index(name) >= layers and id(parameter) not in norms)
        for module in self._model.modules():
            if _is_frozen(module):
                module.eval()
        for norm in self._norms:
            norm.eval()


def _frozen_layers(model: VideoModel, config: TrainingConfig) -> int:
    """Return how many layers are frozen at first, the stem among them."""
    if isinstance(config.freeze, str):
        return {"none": 0, "stem": 1, "backbone": model.num_layers}[config.freeze]
    if config.freeze >= model.num_layers:
        raise InvalidModelError(
            f"{model.name} has a stem and {model.num_layers - 1} layers after it; `freeze` cannot be {config.freeze}"
        )
    return 1 + config.freeze


def _frozen_norms(model: VideoModel, config: TrainingConfig) -> Iterator[_BatchNorm]:
    if config.batch_norm == "train":
        return
    # Each stream of a two-stream model has an input of its own, to which its first norm adapts.
    streams: list[nn.Module] = list(model.children()) if len(model.info.inputs) > 1 else [model]
    for stream in streams:
        norms = [module for module in stream.modules() if isinstance(module, _BatchNorm)]
        yield from norms[1 if config.batch_norm == "freeze_all_but_first" else 0 :]


def _is_frozen(module: nn.Module) -> bool:
    """Return whether a module has parameters and none of them trains."""
    flags = [parameter.requires_grad for parameter in module.parameters()]
    return bool(flags) and not any(flags)

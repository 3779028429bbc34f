"""The model as it is validated and exported: the weights of training or their average, and batch-norm statistics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from itertools import chain, islice
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from data import ClipLoader, Dataset
from hpo.spec import TrainingConfig

from .batch_norm import has_statistics, reestimated
from .inputs import clip_spec
from .parallel import ALONE, World
from .precision import Precision

STATISTICS_SHARE: Final = 0.25
"""Share of the training videos that batch-norm statistics are computed from after most epochs: a forward pass costs a
third of a training step, so this adds a twelfth to the time of an epoch."""
FEWEST_VIDEOS: Final = 64
MOST_VIDEOS: Final = 512
LARGE_BATCH: Final = 32
"""Videos of a batch that statistics are computed from, unless memory forbids it: the larger, the nearer its own
statistics, which layers normalise by meanwhile, are to those that come out."""
_LARGER: Final = 4
"""How many training batches at once fit without gradients wherever one fits with them."""


class EvaluatedModel:
    """The tensors in which the evaluated model differs from the one that trains, and how they come about."""

    def __init__(
        self,
        model: nn.Module,
        config: TrainingConfig,
        *,
        dataset: Dataset,
        device: torch.device,
        precision: Precision,
        world: World = ALONE,
    ) -> None:
        """Set up what `config` asks for; `model` is on `device`, in training mode wherever it will train."""
        self._world = world
        self._model = model
        self._device = device
        self._precision = precision
        self._decay = config.ema
        self._average = _floats(model, copied=True) if config.ema else {}
        self._statistics: dict[str, Tensor] = {}
        has_loader = config.precise_bn and has_statistics(model)
        self._loader = _statistics_loader(dataset, config, device) if has_loader else None
        self._few = 0 if self._loader is None else statistics_batches(dataset.num_fit, self._loader.batch_size)

    def update(self, number: int) -> None:
        """Take the weights and buffers after update `number` (from 0) into their average, where there is one."""
        if self._average:
            average = get_ema_multi_avg_fn(ema_decay(self._decay, number))
            average(list(self._average.values()), list(_floats(self._model).values()), number)

    @property
    def batch_size(self) -> int:
        """Clips that the model sees at once when statistics are computed; 0 if none are."""
        return 0 if self._loader is None else self._loader.batch_size

    def rehearse(self, *, most_clips: int) -> None:
        """Compute statistics of a single batch and forget them: it takes the memory that :meth:`prepare` takes."""
        if self._loader is not None and has_statistics(self._model):
            self._computed(self._loader, 0, 1, most_clips, ALONE)

    def prepare(self, epoch: int, *, is_last: bool, most_clips: int | None = None) -> None:
        """Bring the evaluated model up to the weights at the end of `epoch` (from 0); the training one is untouched.

        The statistics after the last epoch, which stay, are computed from all training videos, up to `MOST_VIDEOS`.
        The model sees `most_clips` at once where a batch has more.
        """
        self._statistics = {}
        # Where all layers are frozen in this epoch, the statistics that they have are those to validate with.
        if self._loader is not None and has_statistics(self._model):
            self._statistics = self._computed(
                self._loader, epoch, None if is_last else self._few, most_clips, self._world
            )

    def _computed(
        self, loader: ClipLoader, epoch: int, count: int | None, most_clips: int | None, world: World
    ) -> dict[str, Tensor]:
        """Return the statistics that `count` batches of `loader` give, or all of them; ranks share the batches."""
        count = len(loader) if count is None else min(count, len(loader))
        own = range(world.rank, count, world.size)
        with (
            _holding(self._model, self._average),
            closing(loader.batches(epoch, world.rank, step=world.size)) as batches,  # type: ignore[type-var]  # generator
        ):
            return reestimated(
                self._model,
                islice(batches, len(own)),
                device=self._device,
                precision=self._precision,
                most_clips=most_clips,
                world=world,
            )

    def forget_statistics(self) -> None:
        """Drop the statistics, which the present weights do not have any more."""
        self._statistics = {}

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Have the model hold the evaluated tensors during the block."""
        with _holding(self._model, {**self._average, **self._statistics}):
            yield

    def state(self) -> dict[str, Any]:
        """Return what :meth:`load_state` needs, as tensors."""
        return {"average": dict(self._average), "statistics": dict(self._statistics)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from where :meth:`state` was taken."""
        for name, value in self._average.items():
            value.copy_(state["average"][name])
        self._statistics = {name: value.to(self._device) for name, value in state["statistics"].items()}


def evaluated_weights(model: Mapping[str, Tensor], state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the state dict of the evaluated model: that of training, `model`, with what :meth:`state` returned."""
    return {**model, **state["average"], **state["statistics"]}


def ema_decay(decay: float, number: int) -> float:
    """Return the share of the average that update `number` (from 0) keeps: less than `decay` in the first updates.

    So the average forgets the initial weights, which a run of a few hundred updates would otherwise keep in it
    (TensorFlow's `ExponentialMovingAverage` with `num_updates`).
    """
    return min(decay, (2 + number) / (11 + number))


def statistics_batches(videos: int, batch_size: int) -> int:
    """Return how many batches of `batch_size` videos statistics are computed from after most epochs.

    Args:
        videos: those of a whole epoch; `STATISTICS_SHARE` of them are taken, from `FEWEST_VIDEOS` to `MOST_VIDEOS`.
    """
    wanted = min(max(STATISTICS_SHARE * videos, FEWEST_VIDEOS), MOST_VIDEOS)
    return max(1, round(wanted / batch_size))


def _statistics_loader(dataset: Dataset, config: TrainingConfig, device: torch.device) -> ClipLoader:
    size = max(config.batch_size, min(_LARGER * config.batch_size, LARGE_BATCH))
    most = max(1, MOST_VIDEOS // size)
    return dataset.statistics_loader(
        clip=clip_spec(config), batch_size=size, seed=config.seed, most_batches=most, device=device
    )


def _floats(model: nn.Module, *, copied: bool = False) -> dict[str, Tensor]:
    """Return what of a state dict can be averaged: all but counters."""
    found = {name: value for name, value in model.state_dict().items() if value.is_floating_point()}
    return {name: value.clone() for name, value in found.items()} if copied else found


@contextmanager
def _holding(model: nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Have `model` hold `tensors`, named as in its state dict, during the block; nothing is copied."""
    places = dict(chain(model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)))
    kept = {name: places[name].data for name in tensors}
    try:
        for name, value in tensors.items():
            places[name].data = value
        yield
    finally:
        for name, value in kept.items():
            places[name].data = value

"""Scoring at each position of larger clips, against a loop over windows, and which models offer it."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import models

from .tiny import tiny

PATHS = {
    "slowfast_r18": ("slow.stages.3", "fast.stages.3"),
    "slow_r50": ("path.stages.3",),
    "i3d_r50": ("path.stages.3",),
    "x3d_xs": ("widen",),
}
"""Modules whose outputs are the last maps of a model, in the order of its features."""


def _noisy(name: str) -> models.VideoModel:
    """Return a model in float64 and evaluation mode whose classifier and residual branches are not near zero."""
    torch.manual_seed(1)
    model = tiny(name).double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.running_mean, -0.1, 0.1)  # type: ignore[arg-type]  # these have statistics
    nn.init.normal_(model.get_classifier().weight)
    nn.init.normal_(model.get_classifier().bias)
    return model


def _last_maps(model: nn.Module, names: tuple[str, ...], clip: Tensor) -> list[Tensor]:
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda _, __, output: found.update({name: output.clone()})

    handles = [model.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    model(clip)
    for handle in handles:
        handle.remove()
    return [found[name] for name in names]


@pytest.mark.parametrize("name", PATHS)
def test_probabilities_are_those_of_a_loop_over_windows_of_the_size_of_a_training_clip(name: str) -> None:
    model = _noisy(name)
    clip = torch.randn(2, 3, 8, 96, 120, dtype=torch.float64)
    with torch.no_grad():
        maps = _last_maps(model, PATHS[name], clip)
        assert maps[0].shape[3:] == (3, 4)
        single = []
        for top in range(2):
            for left in range(3):
                windows = [path[:, :, :, top : top + 2, left : left + 2].mean((2, 3, 4)) for path in maps]
                features = torch.cat(windows, 1)
                if name == "x3d_xs":
                    features = model.get_submodule("project")(features[..., None, None, None]).flatten(1)
                single.append(model.get_classifier()(features).softmax(1))
        model.score_positions(64)
        scores = model(clip)
        torch.testing.assert_close(scores.exp(), torch.stack(single).mean(0), rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(scores.softmax(1), scores.exp(), rtol=1e-12, atol=1e-14)
        whole = tiny(name).double().eval()
        whole.load_state_dict(model.state_dict())
        assert (whole(clip).softmax(1) - scores.exp()).abs().max() > 1e-3


@pytest.mark.parametrize("size", [40, 64])
def test_a_clip_of_the_size_of_training_or_less_has_one_position(size: int) -> None:
    model = _noisy("slowfast_r18")
    clip = torch.randn(1, 3, 8, 40, 40, dtype=torch.float64)
    with torch.no_grad():
        whole = model(clip)
        model.score_positions(size)
        torch.testing.assert_close(model(clip).exp(), whole.softmax(1), rtol=1e-12, atol=1e-14)


def test_training_pools_whole_maps() -> None:
    model = tiny("slowfast_r18", dropout=0.0).train()
    clip = torch.randn(2, 3, 8, 64, 64)
    before = model(clip)
    model.score_positions(32)
    assert torch.equal(model(clip), before)


def test_cards_say_which_models_are_fully_convolutional() -> None:
    for name in models.list_models():
        info = models.model_info(name)
        builder = pkgutil.resolve_name(info.builder)
        is_one = isinstance(builder, type) and issubclass(builder, models.FullyConvolutionalModel)
        assert info.fully_convolutional == is_one, name


def test_other_models_refuse_in_a_sentence() -> None:
    with pytest.raises(models.InvalidModelError, match="r3d_18 pools its whole maps: a classifier at each position"):
        tiny("r3d_18").score_positions(112)

"""Non-local blocks are pytorchvideo's, and those of the programs that pool later, written here as formulas."""

from __future__ import annotations

import importlib

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models.layers.non_local import NonLocal3d, attend
from models.layers.temporal_modules import NonLocal

from ..oracles import random_clip, randomise, relative_gap


def opened(module: NonLocal3d) -> NonLocal3d:
    """Return the module in float64 and evaluation mode, with all weights away from their start."""
    randomise(module, seed=3)
    return module.double().eval()


@pytest.mark.parametrize("kind", ["softmax", "dot_product"])
def test_block_is_pytorchvideos(kind: str) -> None:
    ours = opened(NonLocal3d(6, kind=kind, pool="before"))
    library = importlib.import_module("pytorchvideo.layers.nonlocal_net")
    theirs = library.create_nonlocal(dim_in=6, dim_inner=3, pool_size=(1, 2, 2), instantiation=kind).double().eval()
    names = {key: key if key.startswith("norm.") else f"conv_{key}" for key in ours.state_dict()}
    theirs.load_state_dict({names[key]: value for key, value in ours.state_dict().items()}, strict=True)
    clip = random_clip(2, 6, 3, 5, 4)
    assert relative_gap(ours(clip), theirs(clip)) < 1e-12
    assert relative_gap(ours(clip), clip) > 1e-3


@pytest.mark.parametrize("kind", ["gaussian", "dot_product"])
def test_pooled_later_it_is_the_block_of_tsm_in_three_dimensions_and_over_images(kind: str) -> None:
    block = opened(NonLocal3d(6, kind=kind, pool="after"))
    clip = random_clip(2, 6, 3, 5, 4)
    expected = formula(block, clip, kind)
    assert relative_gap(block(clip), expected) < 1e-12
    images = NonLocal(6, kind=kind, pool="after").double().eval()
    shapes = images.state_dict()
    images.load_state_dict({key: value.reshape(shapes[key].shape) for key, value in block.state_dict().items()})
    frames = clip.transpose(1, 2).flatten(0, 1)
    assert relative_gap(images(frames, 3).unflatten(0, (2, 3)).transpose(1, 2), expected) < 1e-12


def formula(block: NonLocal3d, clip: Tensor, kind: str) -> Tensor:
    """Return TSM's block: products are not scaled, and keys and values pooled after their convolutions."""
    state = block.state_dict()

    def point(x: Tensor, name: str) -> Tensor:
        weight, bias = state[f"{name}.weight"].flatten(1), state[f"{name}.bias"]
        product: Tensor = torch.einsum("oi,nithw->nothw", weight, x) + bias[:, None, None, None]
        return product

    phi, g = (F.max_pool3d(point(clip, name), (1, 2, 2)).flatten(2) for name in ("phi", "g"))
    products = torch.einsum("ncp,ncq->npq", point(clip, "theta").flatten(2), phi)
    weights = products.softmax(2) if kind == "gaussian" else products / products.shape[2]
    mixed = torch.einsum("npq,ncq->ncp", weights, g).reshape(2, 3, *clip.shape[2:])
    norm = [state[f"norm.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
    added: Tensor = F.batch_norm(point(mixed, "out"), norm[0], norm[1], norm[2], norm[3])
    return clip + added


def test_block_starts_as_the_identity_and_takes_single_positions() -> None:
    for shape in ((1, 4, 2, 1, 1), (2, 4, 1, 3, 1)):
        clip = random_clip(*shape)
        for pool in ("before", "after"):
            assert torch.equal(NonLocal3d(4, kind="softmax", pool=pool).double()(clip), clip)


def test_scaling_changes_the_softmax() -> None:
    rows = [random_clip(2, 5, 4, seed=seed) for seed in range(3)]
    scaled = attend(rows[0], rows[1], rows[2], "softmax")
    assert relative_gap(attend(rows[0] / 2, rows[1], rows[2], "gaussian"), scaled) < 1e-12

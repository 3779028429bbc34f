"""R3D, MC3 and R(2+1)D are torchvision's, to rounding."""

from __future__ import annotations

import pytest
from torchvision.models import video

import models

from .oracles import assert_same_network, random_clip, randomise


@pytest.mark.parametrize("name", ["r3d_18", "mc3_18", "r2plus1d_18"])
def test_torchvision_state_loads_strictly_and_computes_the_same(name: str) -> None:
    theirs = video.__dict__[name](weights=None, num_classes=7)
    randomise(theirs, seed=1)
    ours = models.create_model(name, num_classes=7)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    theirs.double()
    ours.double()
    clip = random_clip(2, 3, 8, 32, 32)
    names = {key: key for key in ours.state_dict()}
    assert_same_network(ours, theirs, clip, lambda: clip, names)


def test_midplanes_of_the_paper_are_computed_per_convolution() -> None:
    ours = models.create_model("r2plus1d_18", num_classes=2, midplanes="paper")
    theirs = models.create_model("r2plus1d_18", num_classes=2)
    key = "layer2.0.conv2.0.0.weight"
    assert ours.state_dict()[key].shape[0] == 288
    assert theirs.state_dict()[key].shape[0] == 230
    # In a block that changes nothing both rules agree.
    key = "layer2.1.conv2.0.0.weight"
    assert ours.state_dict()[key].shape == theirs.state_dict()[key].shape

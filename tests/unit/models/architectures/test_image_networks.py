"""Image networks over clips: torchvision's, to rounding, and one answer of all frames."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision import models as torchvision_models
from torchvision.models import vgg

import models
from models.architectures.frame_model import FrameModel, fold_frames, segment_consensus

from ..oracles import assert_same_network, random_clip, randomise, relative_gap

TINY: dict[str, Any] = {"num_classes": 4, "width": 8, "dropout": 0.0}
PARAMETERS: list[tuple[str, dict[str, Any], int | None, int]] = [
    ("resnet18", {}, 11_381_712, 11_228_325),
    ("resnet50", {}, 24_327_632, 23_714_981),
    ("resnet50", {"in_channels": 10}, None, 23_736_933),
    ("resnet50", {"in_channels": 20}, None, 23_768_293),
    ("resnet101", {}, 43_319_760, 42_707_109),
    ("inception_v1", {}, 6_009_904, 5_703_429),
    ("inception_v3", {}, 22_605_168, 21_992_517),
    ("inception_v3", {"aux": True}, 25_470_464, 24_627_882),
    ("inception_v3", {"in_channels": 2}, None, 21_992_229),
    ("inception_v3", {"in_channels": 10}, None, 21_994_533),
    ("inception_v3", {"in_channels": 20}, None, 21_997_413),
    ("vgg16", {}, 135_899_344, 134_674_341),
    ("vgg16", {"in_channels": 20}, None, 134_684_133),
    ("vgg16_bn", {}, 135_907_792, 134_682_789),
    ("vgg16_reducedfc", {}, 39_770_320, 39_463_845),
]


def count(name: str, classes: int, **options: Any) -> int:
    with torch.device("meta"):
        model = models.create_model(name, num_classes=classes, **options)
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("name", "options", "at_400", "at_101"), PARAMETERS)
def test_parameter_count(name: str, options: dict[str, Any], at_400: int | None, at_101: int) -> None:
    assert count(name, 101, **options) == at_101
    if at_400 is not None:
        assert count(name, 400, **options) == at_400


@pytest.mark.parametrize(("name", "oracle"), [("resnet34", "resnet34"), ("resnet152", "resnet152")])
def test_depths_that_no_table_lists_have_torchvisions_parameters(name: str, oracle: str) -> None:
    with torch.device("meta"):
        theirs = torchvision_models.get_model(oracle, weights=None, num_classes=101)
    assert count(name, 101) == sum(parameter.numel() for parameter in theirs.parameters())


class PerFrame(nn.Module):
    """An image network that answers for a clip with the mean of its frames' logits."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, clip: Tensor) -> Tensor:
        frames = [self.net(frame) for frame in clip.unbind(2)] if not self.training else None
        if frames is not None:
            return torch.stack(frames).mean(0)
        # In training all frames share one batch's statistics.
        images = clip.permute(0, 2, 1, 3, 4).reshape(-1, *clip.shape[1:2], *clip.shape[3:])
        logits: Tensor = self.net(images).view(clip.shape[0], clip.shape[2], -1)
        return logits.mean(1)


def narrow_vgg(batch_norm: bool) -> nn.Module:
    """Return torchvision's own layers, an eighth as wide; its constructor has one width only."""
    widths = [width if isinstance(width, str) else width // 8 for width in vgg.cfgs["D"]]
    theirs: nn.Module = vgg.VGG(vgg.make_layers(widths, batch_norm=batch_norm), init_weights=False)
    theirs.classifier = nn.Sequential(
        nn.Linear(64 * 49, 512),
        nn.ReLU(),
        nn.Dropout(0.0),
        nn.Linear(512, 512),
        nn.ReLU(),
        nn.Dropout(0.0),
        nn.Linear(512, 7),
    )
    return theirs


def torchvision_net(name: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: torchvision_models.get_model(name, weights=None, num_classes=7, **options)


@pytest.mark.parametrize(
    ("name", "options", "make", "size"),
    [
        ("resnet18", {}, torchvision_net("resnet18"), 33),
        ("resnet50", {}, torchvision_net("resnet50"), 33),
        ("inception_v1", {}, torchvision_net("googlenet", aux_logits=False, init_weights=False, dropout=0.0), 40),
        ("inception_v3", {}, torchvision_net("inception_v3", aux_logits=False, init_weights=False, dropout=0.0), 75),
        ("vgg16", {"width": 8}, lambda: narrow_vgg(False), 32),
        ("vgg16_bn", {"width": 8}, lambda: narrow_vgg(True), 37),
    ],
)
def test_torchvision_state_loads_strictly_and_computes_the_same(
    name: str, options: dict[str, Any], make: Callable[[], nn.Module], size: int
) -> None:
    theirs = PerFrame(make())
    randomise(theirs, seed=1)
    ours = models.create_model(name, num_classes=7, dropout=0.0, **options)
    ours.load_state_dict(theirs.net.state_dict(), strict=True)
    theirs.double()
    ours.double()
    clip = random_clip(2, 3, 2, size, size)
    names = {key: f"net.{key}" for key in ours.state_dict()}
    if name == "vgg16":
        # Without norms there are no running statistics to compare: only logits.
        with torch.no_grad():
            assert relative_gap(ours.eval()(clip), theirs.eval()(clip)) < 1e-10
        ours.train()(clip).square().mean().backward()
        theirs.train()(clip).square().mean().backward()
        expected = dict(theirs.named_parameters())
        for key, parameter in ours.named_parameters():
            assert parameter.grad is not None
            gradient = expected[names[key]].grad
            assert gradient is not None
            assert relative_gap(parameter.grad, gradient) < 1e-10, key
        return
    assert_same_network(ours, theirs, clip, lambda: clip, names)


def test_auxiliary_head_of_inception_v3_is_torchvisions() -> None:
    theirs = torchvision_models.inception_v3(weights=None, num_classes=7, aux_logits=True, init_weights=False)
    randomise(theirs, seed=1)
    ours = models.create_model("inception_v3", num_classes=7, aux=True)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    our_head, their_head = ours.get_submodule("AuxLogits").double(), theirs.get_submodule("AuxLogits").double()
    maps = random_clip(2, 768, 17, 17)
    our_logits, their_logits = our_head(maps), their_head(maps)
    assert relative_gap(our_logits, their_logits) < 1e-10
    our_logits.square().mean().backward()
    their_logits.square().mean().backward()
    expected = dict(their_head.named_parameters())
    for key, parameter in our_head.named_parameters():
        gradient = expected[key].grad
        assert parameter.grad is not None
        assert gradient is not None
        assert relative_gap(parameter.grad, gradient) < 1e-10, key


@pytest.mark.parametrize("size", [75, 131])
def test_loss_of_inception_v3_counts_the_auxiliary_head(size: int) -> None:
    criterion = nn.functional.cross_entropy
    plain = models.create_model("inception_v3", **TINY, aux=True, aux_weight=0.0).double()
    weighted = models.create_model("inception_v3", **TINY, aux=True, aux_weight=0.3).double()
    weighted.load_state_dict(plain.state_dict())
    clip, targets = random_clip(2, 3, 2, size, size), torch.tensor([1, 3])
    seen: list[Tensor] = []
    weighted.get_submodule("AuxLogits").register_forward_hook(lambda *arguments: seen.append(arguments[2]))
    alone, _ = plain.training_loss(clip, targets, criterion)
    loss, logits = weighted.training_loss(clip, targets, criterion)
    assert relative_gap(alone, criterion(logits, targets)) < 1e-12
    assert relative_gap(loss, alone + 0.3 * criterion(seen[0].view(2, 2, 4).mean(1), targets)) < 1e-12
    weighted.reset_classifier(9)
    assert weighted.training_loss(clip, targets, criterion)[1].shape == (2, 9)
    assert seen[1].shape == (4, 9)


def reduced_vgg(width: int, classes: int) -> nn.Module:
    """Return the reduced network layer by layer, from its description."""
    layers: list[nn.Module] = []
    channels = 3
    items: list[int | str] = [1, 1, "M", 2, 2, "M", 4, 4, 4, "C", 8, 8, 8, "M", 8, 8, 8]
    for item in items:
        if isinstance(item, str):
            layers.append(nn.MaxPool2d(2, 2, ceil_mode=item == "C"))
        else:
            layers += [nn.Conv2d(channels, item * width, 3, padding=1), nn.ReLU()]
            channels = item * width
    wide = 16 * width
    layers += [
        nn.MaxPool2d(3, 1, 1),
        nn.Conv2d(channels, wide, 3, padding=6, dilation=6),
        nn.ReLU(),
        nn.Conv2d(wide, wide, 1),
        nn.ReLU(),
    ]
    return nn.Sequential(
        OrderedDict(
            conv_base=nn.Sequential(OrderedDict(conv_base=nn.Sequential(*layers))),
            extra_layers=nn.Sequential(nn.MaxPool2d(2, 2), nn.Conv2d(wide, wide, 3, 3), nn.ReLU()),
            flat=nn.Flatten(),
            classifier=nn.Sequential(
                nn.Dropout(0.0), nn.Linear(9 * wide, wide), nn.ReLU(), nn.Dropout(0.0), nn.Linear(wide, classes)
            ),
        )
    )


def test_reduced_vgg_is_its_description_at_300_pixels() -> None:
    theirs = reduced_vgg(4, 7).double().eval()
    ours = models.create_model("vgg16_reducedfc", num_classes=7, width=4, dropout=0.0).double().eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    clip = random_clip(1, 3, 1, 300, 300)
    with torch.no_grad():
        assert relative_gap(ours(clip), theirs(clip[:, :, 0])) < 1e-10


@pytest.mark.parametrize("how", ["average", "max"])
def test_segment_consensus_is_its_formula(how: str) -> None:
    logits = random_clip(3, 5, 7)
    joined = segment_consensus(logits, how)
    for clip in range(3):
        for label in range(7):
            values = [float(logits[clip, segment, label]) for segment in range(5)]
            expected = max(values) if how == "max" else sum(values) / 5
            assert float(joined[clip, label]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("how", ["average", "max"])
def test_clip_logits_are_the_consensus_of_single_frames(how: str) -> None:
    model = models.create_model("tsn_resnet18", **TINY, consensus=how).double().eval()
    randomise(model, seed=0)
    clip = random_clip(2, 3, 5, 32, 32)
    with torch.no_grad():
        single = torch.stack([model(clip[:, :, index : index + 1]) for index in range(5)], dim=1)
        expected = single.amax(1) if how == "max" else single.mean(1)
        assert relative_gap(model(clip), expected) < 1e-12
        assert isinstance(model, FrameModel)
        assert relative_gap(model.frame_logits(clip), single) < 1e-12


@pytest.mark.parametrize("name", ["tsn_resnet18", "tsn_inception_v1", "vgg16_bn"])
def test_order_of_segments_does_not_matter_without_temporal_modules(name: str) -> None:
    model = models.create_model(name, **TINY).double().eval()
    randomise(model, seed=0)
    clip = random_clip(2, 3, 6, 32, 32)
    with torch.no_grad():
        shuffled = model(clip[:, :, torch.tensor([3, 0, 5, 1, 4, 2])])
        assert relative_gap(shuffled, model(clip)) < 1e-12


@pytest.mark.parametrize("seq_len", [1, 3])
def test_frames_are_stacked_in_order_on_the_channel_axis(seq_len: int) -> None:
    clip = random_clip(2, 2, 6, 3, 4)
    images = fold_frames(clip, seq_len)
    assert images.shape == (2 * 6 // seq_len, 2 * seq_len, 3, 4)
    for number in range(2):
        for stack in range(6 // seq_len):
            frames = [clip[number, :, stack * seq_len + index] for index in range(seq_len)]
            assert torch.equal(images[number * (6 // seq_len) + stack], torch.cat(frames))


def test_a_stack_of_equal_frames_is_one_frame_with_spread_weights() -> None:
    single = models.create_model("resnet18", **TINY).double().eval()
    stacked = models.create_model("resnet18", **TINY, seq_len=5).double().eval()
    state = single.state_dict()
    assert stacked.state_dict()["conv1.weight"].shape == (8, 15, 7, 7)
    stacked.load_state_dict(state | {"conv1.weight": state["conv1.weight"].repeat(1, 5, 1, 1) / 5})
    clip = random_clip(2, 3, 1, 32, 32)
    with torch.no_grad():
        assert relative_gap(stacked(clip.expand(-1, -1, 5, -1, -1)), single(clip)) < 1e-12
    with pytest.raises(models.InvalidClipError, match="seq_len = 5 does not divide frames = 6"):
        stacked(random_clip(1, 3, 6, 32, 32))


def test_channels_last_clips_are_folded_without_a_copy() -> None:
    clip = torch.randn(2, 3, 4, 5, 6).contiguous(memory_format=torch.channels_last_3d)
    images = fold_frames(clip)
    assert images.data_ptr() == clip.data_ptr()
    assert images.is_contiguous(memory_format=torch.channels_last)

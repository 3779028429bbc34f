"""The convention that every model of the catalogue keeps."""

from __future__ import annotations

import copy
import pickle
import re

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import models

from .tiny import DEEP, clips, every, plain, tiny

NAMES = every()
QUICK_TO_OVERFIT = frozenset({"i3d_inception", "r3d_18", "s3d_resnet18", "slowfast_r18", "videomae_vit_s"})
"""One of each kind of network; that a step changes every parameter for the better is tested of all of them."""
TRANSFORMERS = frozenset(
    name for name in models.list_models() if ("optimizer", "adamw") in models.model_info(name).search_base
)


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_classifier_of_dropped_features(name: str) -> None:
    model = tiny(name).eval()
    clip = clips()
    with torch.no_grad():
        features = model.forward_features(clip)
        assert features.shape == (2, model.num_features)
        logits = model(clip)
        assert logits.shape == (2, model.num_classes) == (2, 4)
        assert torch.equal(logits, model.get_classifier()(features))
    assert model.name == name
    assert model.dropout.p == models.model_info(name).dropout
    assert tiny(name, dropout=0.25).dropout.p == 0.25


def test_dropout_acts_in_training_only() -> None:
    model = tiny("r3d_18", dropout=0.9)
    model.eval()
    assert torch.equal(model(clips()), model(clips()))
    model.dropout.train()
    assert not torch.equal(model(clips()), model(clips()))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("channels", [1, 5])
def test_other_input_channels(name: str, channels: int) -> None:
    model = tiny(name, in_channels=channels)
    assert model(clips(channels=channels)).shape == (2, 4)
    message = f"takes clips (N, {channels}, T, H, W), not (2, 3, 8, 32, 32)"
    with pytest.raises(models.InvalidClipError, match=re.escape(message)):
        model(clips())


@pytest.mark.parametrize("name", NAMES)
def test_shapes_at_the_edges(name: str) -> None:
    model = tiny(name).eval()
    info = models.model_info(name)
    least = info.min_size
    frames = int(model.settings.hparams.get("alpha", info.min_frames))
    for shape in [(1, 3, frames, least, least), (1, 3, 3 * frames, least + 1, 41), (3, 3, 2 * frames, 33, least)]:
        assert model(torch.randn(shape)).shape == (shape[0], 4)
    for wrong in [(1, 3, frames, least - 1, 64), (1, 3, info.min_frames - 1, 32, 32), (3, frames, 32, 32)]:
        with pytest.raises(models.InvalidClipError) as caught:
            model(torch.randn(wrong))
        assert name in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_parameter_groups_hold_everything_once(name: str) -> None:
    model = tiny(name)
    groups = model.param_groups(weight_decay=0.1, head_lr_mult=10.0)
    held = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in model.parameters())

    names = {id(parameter): key for key, parameter in model.named_parameters()}
    undecayed = {
        id(parameter)
        for module in model.modules()
        for key, parameter in module.named_parameters(recurse=False)
        if isinstance(module, nn.BatchNorm3d | nn.LayerNorm) or key.endswith("bias") or key.startswith("class_")
    }
    head = {id(parameter) for parameter in model.get_classifier().parameters()}
    for group in groups:
        for parameter in group["params"]:
            key = id(parameter)
            assert group["weight_decay"] == (0.0 if key in undecayed else 0.1), names[key]
            assert group["lr_mult"] == (10.0 if key in head else 1.0), names[key]
    assert [group["name"] for group in groups] == [
        "body.decay",
        "body.no_decay",
        "head.decay",
        "head.no_decay",
    ]


def test_parameter_groups_fit_an_optimizer() -> None:
    model = tiny("slowfast_r18", head_bias=False)
    groups = model.param_groups(weight_decay=0.1, head_lr_mult=5.0, lr=0.2)
    assert [group["name"] for group in groups] == ["body.decay", "body.no_decay", "head.decay"]
    optimizer = torch.optim.SGD(groups, lr=0.7, momentum=0.9)
    assert [group["lr"] for group in optimizer.param_groups] == [0.2, 0.2, 1.0]
    plain = torch.optim.SGD(model.param_groups(weight_decay=0.1), lr=0.7)
    assert {group["lr"] for group in plain.param_groups} == {0.7}


@pytest.mark.parametrize("name", NAMES)
def test_reset_classifier_leaves_the_body(name: str) -> None:
    model = tiny(name).double()
    clip = clips().double()
    model.eval()
    with torch.no_grad():
        features = model.forward_features(clip)
        model.reset_classifier(9)
        assert model(clip).shape == (2, 9)
        assert torch.equal(model.forward_features(clip), features)
    assert model.num_classes == 9
    assert model.get_classifier().weight.dtype == torch.float64
    with pytest.raises(models.InvalidModelError, match="num_classes must be"):
        model.reset_classifier(0)


@pytest.mark.parametrize("name", NAMES)
def test_state_dict_copy_and_pickle_round_trips(name: str) -> None:
    model = tiny(name)
    model(clips())  # Moves the running statistics.
    model.eval()
    other = tiny(name).eval()
    with torch.no_grad():
        expected = model(clips())
        assert not torch.equal(other(clips()), expected)
        other.load_state_dict(model.state_dict(), strict=True)
        for twin in (other, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301 -- our own bytes
            assert torch.equal(twin(clips()), expected)
            assert twin.settings == model.settings


@pytest.mark.parametrize("name", NAMES)
def test_one_seed_makes_one_model_and_one_step(name: str) -> None:
    def trained(seed: int) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        model = tiny(name, dropout=0.5)
        optimizer = torch.optim.SGD(model.param_groups(weight_decay=1e-3), lr=0.1)
        F.cross_entropy(model(clips()), torch.tensor([0, 1])).backward()
        optimizer.step()
        return model.state_dict()

    with torch.random.fork_rng():
        first, again = trained(1), trained(1)
        torch.manual_seed(2)
        untrained = tiny(name, dropout=0.5).state_dict()
        torch.manual_seed(1)
        twin = tiny(name, dropout=0.5).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(twin[key], untrained[key]) for key in twin)


@pytest.mark.parametrize("name", every(but=TRANSFORMERS))
def test_initialisation_is_that_of_the_papers(name: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = models.create_model(name, num_classes=50, width=32)
    for key, module in model.named_modules():
        if isinstance(module, nn.Conv3d) and module.weight.numel() > 5000:
            fan_out = module.out_channels * module.weight[0, 0].numel()
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05), key
    head = model.get_classifier()
    assert head.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not head.bias.any()


@pytest.mark.parametrize("name", every(slow=frozenset(models.list_models()) - QUICK_TO_OVERFIT, but=DEEP))
def test_a_model_overfits_eight_clips(name: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = tiny(name, **plain(name), num_classes=8)
        clip, targets = clips(count=8), torch.arange(8)
        groups = model.param_groups(weight_decay=0.0)
        # Attention, and convolutions without norms, want smaller steps, and more of them.
        lr, steps = (0.003, 60) if name in TRANSFORMERS else (0.01, 25)
        if name.startswith(("timesformer", "videomae")):
            steps = 100
        if name.startswith(("c3d", "hiera_b", "mvit_v1_b")):
            lr, steps = 0.001, 120
        optimizer = torch.optim.AdamW(groups, lr=lr)
        first = last = float("nan")
        for step in range(steps):
            loss = F.cross_entropy(model(clip), targets)
            first, last = (loss.item() if step == 0 else first), loss.item()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert first == pytest.approx(torch.tensor(8.0).log().item(), rel=0.3)
    assert last < 0.1


@pytest.mark.parametrize("name", NAMES)
def test_channels_last_computes_the_same(name: str) -> None:
    model = tiny(name).double().eval()
    clip = clips().double()
    with torch.no_grad():
        expected = model(clip)
        model.to(memory_format=torch.channels_last_3d)
        actual = model(clip.contiguous(memory_format=torch.channels_last_3d))
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)
